"""Stored events: their content as it was sent, one of them by id, and those that stand behind a figure."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from django.db import connection
from django.db.models import Q, QuerySet

from metering.core.identity import Content
from metering.models import EventCount, LedgerEntry, MeterBalance, UsageEvent

# An id carries the time at which it was made; rows are looked for no farther from it than this.
ID_TIME_SLACK = timedelta(days=1)

decode_data = msgspec.json.Decoder(type=dict, float_hook=Decimal).decode

_CONTENTS = """
SELECT e.id, e.type, e.data::text, CASE WHEN e.time_was_sent THEN e.occurred_at END
FROM metering_usageevent e JOIN unnest(%s::text[], %s::uuid[]) AS wanted (subject, id) USING (subject, id)
"""


def stored_contents(events: Sequence[tuple[str, UUID | None]]) -> dict[UUID | None, Content]:
    """
    Return the content of events by their (subject, id).

    An event whose month was dropped is missing: its key is kept for ever, its content is not.
    """
    subjects = [subject for subject, _ in events]
    ids = [event_id for _, event_id in events]
    with connection.cursor() as cursor:
        cursor.execute(_CONTENTS, [subjects, ids])
        return {row[0]: Content(row[1], decode_data(row[2]), row[3]) for row in cursor}


def near(event_id: UUID) -> Q:
    """Return the condition that narrows a look-up by id to the partitions in which it can lie; nothing lies where no date is."""
    try:
        made_at = datetime.fromtimestamp((event_id.int >> 80) / 1000, tz=UTC)
    except (ValueError, OverflowError):
        return Q(pk__in=[])
    return Q(id=event_id, recorded_at__gte=made_at - ID_TIME_SLACK, recorded_at__lte=made_at + ID_TIME_SLACK)


def find_event(event_id: UUID) -> UsageEvent | None:
    """Return the event with our id; None where there is none (or its month was dropped)."""
    if event_id.version != 7:
        return None
    return UsageEvent.objects.filter(near(event_id)).first()


def unmatched_events() -> QuerySet[UsageEvent]:
    """Return the events that were stored without being counted and that no replay has counted since."""
    replayed = EventCount.objects.filter(kind=EventCount.Kind.REPLAY).values("event_id")
    return UsageEvent.objects.exclude(unmatched_code="").exclude(id__in=replayed).order_by("id")


def events_behind(
    *,
    balance: MeterBalance,
    up_to_entry_id: int,
    after_entry_id: int = 0,
    dimension_keys: Iterable[str] | None = None,
) -> QuerySet[UsageEvent]:
    """
    Return the events that were posted to a balance by its ledger entries in (after, up to], newest first.

    With `dimension_keys`, only those of these dimension sets. Events that a replay counted are among them; a reversal changes
    what an event counts, not that it was counted.
    """
    entries = LedgerEntry.objects.filter(
        balance=balance, pk__gt=after_entry_id, pk__lte=up_to_entry_id, kind=LedgerEntry.Kind.USAGE
    )
    replayed = EventCount.objects.filter(
        balance=balance, kind=EventCount.Kind.REPLAY, posting_id__in=entries.values("posting_id")
    )
    counted = Q(posting_id__in=entries.values("posting_id"), counts__contains=[[balance.pk]])
    if dimension_keys is not None:
        keys = list(dimension_keys)
        replayed = replayed.filter(dimension_key__in=keys)
        in_sets = Q(pk__in=[])
        for key in keys:
            in_sets |= Q(counts__contains=[[balance.pk, key]])
        counted &= in_sets
    events = UsageEvent.objects.filter(subject=balance.tenant.code)
    return events.filter(counted | Q(id__in=replayed.values("event_id"))).order_by("-occurred_at", "-id")
