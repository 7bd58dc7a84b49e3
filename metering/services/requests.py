"""
What the doors of ingestion and its services say to each other: events as they were read, and what became of each.

Owns these values only. Reading them from a body is a door's work (`metering.api.wire`); deciding and storing is `ingest`'s. They are plain
and mutable, because a batch makes a thousand of them: nobody changes one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from metering.selectors.balances import BalanceView

ACCEPTED = "accepted"
DUPLICATE = "duplicate"
CONFLICT = "conflict"
REJECTED = "rejected"
UNMATCHED = "unmatched"


@dataclass(slots=True)
class NewEvent:
    """An event whose form is right. Whether it counts, and against what, is not known yet."""

    # The tenant's code as sent; perhaps of no tenant.
    subject: str
    source: str
    id: str
    type: str
    # In UTC, cut to microseconds. None: not sent, so the moment of receipt in the tenant's time counts.
    time: datetime | None
    # Decoded JSON; numbers are int or Decimal, never float.
    data: dict[str, Any]


@dataclass(slots=True)
class Rejected:
    """An event whose form is wrong. It keeps its place among the others, and takes no key."""

    # As sent, where it could be read; else None.
    id: str | None
    code: str
    detail: str
    # Where the fault lies: "subject", "data", empty for the event as a whole.
    path: str = ""


@dataclass(slots=True)
class Record:
    """One request to record events."""

    events: Sequence[NewEvent | Rejected]
    # Wall time of receipt; tenants on a test clock have a time of their own, which the service asks for.
    now: datetime


@dataclass(slots=True)
class Outcome:
    """What became of one event."""

    # accepted, duplicate, conflict, rejected or unmatched.
    status: str
    # Why, for all but the first two.
    code: str = ""
    detail: str = ""
    # Our id of the stored event (in a duplicate or conflict, of the first one); None when nothing is stored.
    event_id: UUID | None = None
    # Dotted paths: where a conflict differs, or what a rejection is about.
    fields: Sequence[str] = ()


@dataclass(slots=True)
class IngestReport:
    """What became of a request: one outcome per event, in order, and the pools that it touched as they stand now."""

    outcomes: Sequence[Outcome]
    balances: Sequence[BalanceView]
