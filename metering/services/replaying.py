"""Counts unmatched events once the cause is mended: a tenant, a meter, a subscription or a property that was missing then."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing_site.database import uuid7
from metering.models import EventCount, UsageEvent
from metering.selectors.events import decode_data, unmatched_events
from metering.selectors.meters import counting_meters
from metering.services.candidates import Candidate, Group, classify
from metering.services.ingest import StaleBalances, lock_counted, post_counted
from metering.services.requests import NewEvent, Record
from metering.services.reversing import CountRow, insert_counts

CHUNK = 500


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay did: how many events it counted, and how many still match nothing."""

    counted: int
    unmatched: int


def replay_events(*, now: datetime, tenant: str | None = None) -> Replay:
    """
    Count the unmatched events again, of one tenant or of all, each at most once however often and by whomever this is called.

    `now` is wall time; tenants on a test clock have their own. An event whose period has closed meanwhile is late usage. One that
    is still without a match stays as it is.
    """
    counted = seen = 0
    last: UUID | None = None
    while True:
        events = unmatched_events()
        if tenant is not None:
            events = events.filter(subject=tenant)
        if last is not None:
            events = events.filter(id__gt=last)
        chunk = list(events.extra(select={"data_text": "data::text"})[:CHUNK])
        if not chunk:
            return Replay(counted, seen - counted)
        counted += _replay(chunk, now)
        seen += len(chunk)
        last = chunk[-1].pk


def _replay(events: list[UsageEvent], now: datetime) -> int:
    """Count one chunk in a transaction of its own; how many were counted."""
    for _ in range(3):
        group = Group([Record([_new_event(event) for event in events], now)])
        classify(group, counting_meters(afresh=True), checks_window=False)
        for candidate, event in zip(group.candidates, events, strict=True):
            candidate.uuid = event.pk
        counted = [candidate for candidate in group.undecided() if candidate.counts]
        try:
            return _count(counted) if counted else 0
        except StaleBalances:
            continue
    return 0


def _count(candidates: list[Candidate]) -> int:
    posting_id = uuid7()
    with transaction.atomic():
        rows = [row for candidate in candidates for row in _rows(candidate, posting_id)]
        fresh_ids = insert_counts(rows)
        fresh = [candidate for candidate in candidates if candidate.uuid in fresh_ids]
        if not fresh:
            return 0
        locked = lock_counted(fresh)
        post_counted(fresh, locked, posting_id=posting_id, kind="replay")
    return len(fresh)


def _rows(candidate: Candidate, posting_id: UUID) -> list[CountRow]:
    assert candidate.uuid is not None
    return [
        (
            candidate.uuid,
            EventCount.Kind.REPLAY.value,
            count.balance.id,
            count.dimension_key,
            count.quantity,
            (count.reading and count.reading.seen) or "",
            count.clamped,
            posting_id,
            "",
        )
        for count in candidate.counts
    ]


def _new_event(event: UsageEvent) -> NewEvent:
    # The stored time stands as if it had been sent: an event keeps the moment at which it was received.
    data = decode_data(event.data_text)  # type: ignore[attr-defined]
    return NewEvent(event.subject, event.source, event.event_id, event.type, event.occurred_at, data)
