"""Takes a counted event back: a negative count in the same segment. The event itself stays as it is."""

from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from django.db import transaction

from billing_site.database import uuid7
from billing_site.http.problems import DomainError
from billing_site.prepared import run
from metering.core.measuring import Aggregation, Reading, dimension_set
from metering.models import EventCount, UsageEvent
from metering.selectors.event_details import EventNotFound
from metering.selectors.events import find_event
from metering.selectors.segments import segment_of
from metering.selectors.terms import pools_of_version
from metering.services import windows
from metering.services.arrays import columns, plain_array, text_array, uuid_array
from metering.services.locked import LockedBalance
from metering.services.locking import lock_pools
from metering.services.posting import Movement, post
from metering.services.values import ValueMovement, take_back
from subscriptions.core.pricing import clamp_event
from subscriptions.models import Tenant
from subscriptions.selectors.clock import now_for
from subscriptions.services import audit

_INSERT_COUNTS = """
INSERT INTO metering_eventcount (event_id, kind, balance_id, dimension_key, quantity, seen, clamped, posting_id, reason)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::bigint[], %s::text[], %s::numeric[], %s::text[], %s::numeric[], %s::uuid[], %s::text[])
ON CONFLICT (event_id, kind, balance_id) DO NOTHING RETURNING event_id
"""

CountRow = tuple[UUID, str, int, str, Decimal, str, Decimal, UUID, str]
"""Event, kind, balance, dimension key, quantity, digest of a unique count's value, clamped price, posting, reason."""


class EventNotCounted(DomainError):
    """The event was never counted, so there is nothing to take back."""

    status = 409
    code = "event_not_counted"
    title = "Event not counted"


class EventReversed(DomainError):
    """The event was reversed before; that happens once."""

    status = 409
    code = "event_reversed"
    title = "Event already reversed"


class ClockAdvancing(DomainError):
    """The tenant's test clock is advancing."""

    status = 409
    code = "clock_advancing"
    title = "Test clock advancing"


def reverse_event(*, event_id: UUID, reason: str, actor: str) -> UsageEvent:
    """
    Take an event's quantities back, once, and return the event.

    In an open period the position is that of the same events without this one. In a closed period overage is lowered first, and the
    rest becomes available to nobody; the difference is billed, or credited, on a later invoice.

    Raises EventNotFound, EventNotCounted, EventReversed or ClockAdvancing.
    """
    event = find_event(event_id)
    if event is None:
        raise EventNotFound(f"There is no event {event_id}.")
    tenant = Tenant.objects.select_related("test_clock").filter(code=event.subject).first()
    if tenant is not None and tenant.test_clock is not None and tenant.test_clock.status == "advancing":
        raise ClockAdvancing(
            "The tenant's test clock is advancing; try again when it is done.", headers={"Retry-After": "1"}
        )
    posting_id = uuid7()
    with transaction.atomic():
        counted = _counted(event)
        if tenant is None or not counted:
            raise EventNotCounted("The event was never counted: it is unmatched.")
        locked = lock_pools(one.balance_id for one in counted)
        movements = [_movement(event, locked[one.balance_id], one) for one in counted]
        rows = [
            _row(event, movement, one.seen, posting_id, reason)
            for movement, one in zip(movements, counted, strict=True)
        ]
        if not insert_counts(rows):
            raise EventReversed("The event was reversed before.")
        values = [
            _value(event, locked[one.balance_id], one, movement)
            for movement, one in zip(movements, counted, strict=True)
        ]
        take_back([value for value in values if value is not None], subject=event.subject)
        now = now_for(tenant)
        post(movements, posting_id=posting_id, kind="reverse", locked=locked, now_of=dict.fromkeys(locked, now))
        for one in counted:
            windows.take_out(locked[one.balance_id], occurred_at=event.occurred_at, quantity=one.quantity)
        audit.record(actor=actor, action="reverse", instance=event, reason=reason)
    return event


def insert_counts(rows: list[CountRow]) -> set[UUID]:
    """Write event counts, and return the events that had none of their kind before: a second writer of the same gets nothing."""
    ids, kinds, balances, keys, quantities, seen, clamped, postings, reasons = columns(rows, 9)
    inserted = run(
        _INSERT_COUNTS,
        [
            uuid_array(ids),
            text_array(kinds),
            plain_array(balances),
            text_array(keys),
            plain_array(quantities),
            text_array(seen),
            plain_array(clamped),
            uuid_array(postings),
            text_array(reasons),
        ],
    )
    return {row[0] for row in inserted}


class _Counted(NamedTuple):
    """What an event was counted as in one balance."""

    balance_id: int
    dimension_key: str
    quantity: Decimal
    seen: str


def _counted(event: UsageEvent) -> list[_Counted]:
    """Return what the event was counted as: by the posting that recorded it, or by a replay."""
    counts = [
        _Counted(balance_id, key, Decimal(quantity), "".join(seen)) for balance_id, key, quantity, *seen in event.counts
    ]
    replays = EventCount.objects.filter(event_id=event.pk, kind=EventCount.Kind.REPLAY)
    return counts + [_Counted(one.balance_id, one.dimension_key, one.quantity, one.seen) for one in replays]


def _movement(event: UsageEvent, locked: LockedBalance, counted: _Counted) -> Movement:
    balance = locked.model()
    instant = event.occurred_at if balance.meter.is_additive else balance.period.starts_at
    segment_at, terms_id = segment_of(balance, instant)
    charge = pools_of_version(terms_id)[locked.row.meter_id].charge_for(dimension_set(counted.dimension_key))
    clamps = charge is not None and charge.price.clamps_events
    clamped = clamp_event(charge.price, counted.quantity) if charge is not None and clamps else Decimal(0)
    return Movement(locked.row.pk, segment_at, counted.dimension_key, -counted.quantity, -1, -clamped)


def _value(event: UsageEvent, locked: LockedBalance, counted: _Counted, movement: Movement) -> ValueMovement | None:
    """Return what the event was to the value of its set; None where its meter adds up."""
    meter = locked.model().meter
    if meter.is_additive:
        return None
    reading = Reading(event.occurred_at, event.source, event.event_id, counted.quantity, counted.seen or None)
    return ValueMovement(Aggregation(meter.aggregation), movement, [reading])


def _row(event: UsageEvent, movement: Movement, seen: str, posting_id: UUID, reason: str) -> CountRow:
    return (
        event.pk,
        EventCount.Kind.REVERSAL.value,
        movement.balance_id,
        movement.dimension_key,
        movement.quantity,
        seen,
        movement.clamped,
        posting_id,
        reason,
    )
