"""The journal of due work: what was run, when and on which row. On a test clock it is kept; in wall time it is only told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from invoices.models import ClockEntry
from subscriptions.models import TestClock


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """That something due was run: when in the tenant's time, what, and on which row. `parked` where its tries were used up."""

    at: datetime
    what: str
    object: str


def enter(
    *, at: datetime, what: str, rows: Sequence[Any], names: Sequence[str], clock: TestClock | None
) -> list[JournalEntry]:
    """
    Return an entry for each of the rows, which are called by these names; with a clock, keep them as its entries.

    Call it within the transaction that does the work: an advance that is cut off then leaves an entry of all that it did, and of
    nothing else.
    """
    if clock is not None:
        ClockEntry.objects.bulk_create(
            ClockEntry(
                clock_id=clock.pk,
                tenant_id=row.tenant_id,
                at=at,
                what=what,
                object=name,
                row_type=row._meta.label_lower,
                row_id=str(row.pk),
            )
            for row, name in zip(rows, names, strict=True)
        )
    return [JournalEntry(at, what, name) for name in names]
