"""
Decides what each event of a group of requests is, before anything is written: what it would count, or why it cannot.

Reads without locks; `ingest` checks under the locks that nothing has moved meanwhile, and asks again if it has.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec

from metering.core.identity import canonical, digest, fingerprint_of_text, is_canonical, value_digest
from metering.core.measuring import (
    SETTLED_SOURCE,
    DimensionSet,
    Measured,
    MeterDefinition,
    Missing,
    NotMatched,
    Reading,
    Refused,
    dimension_key,
    measure,
    measure_settled,
)
from metering.selectors.meters import CountingMeter, Meters
from metering.selectors.placement import (
    PlacedBalance,
    PlacedPeriod,
    Placement,
    read_placements,
    remembered_placement,
    unopened_subscription,
)
from metering.selectors.terms import pools_of_version
from metering.services.opening import open_due_periods
from metering.services.requests import CONFLICT, DUPLICATE, REJECTED, NewEvent, Outcome, Record, Rejected
from subscriptions.core.prices import Price
from subscriptions.core.pricing import clamp_event

# How far ahead of the tenant's time an event may lie, and how far back where no meter says otherwise.
AHEAD = timedelta(minutes=10)
WINDOW = timedelta(days=35)

_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode

_ZERO = Decimal(0)
LONG_AGO = datetime.min.replace(tzinfo=UTC)


# Events and their counts are structs, outside of the garbage collector's sight: a batch makes thousands, each in a quarter of a dataclass's
# time, and none ever refers back to what refers to it.
class Count(msgspec.Struct, gc=False):
    """What one event counts for one balance."""

    balance: PlacedBalance
    meter: MeterDefinition
    segment_at: datetime
    dimension_key: str
    quantity: Decimal
    # The event's clamped price, where its charge clamps per event; else 0.
    clamped: Decimal
    # Where the meter does not add up: the event among those that make the value of its dimension set.
    reading: Reading | None = None


class Candidate(msgspec.Struct, gc=False):
    """An event on its way through a group."""

    request: int
    event: NewEvent
    received_at: datetime
    # Subject and digest: what makes it the same event as another.
    identity: tuple[str, bytes]
    # Its data as compact JSON.
    text: str
    fingerprint: bytes
    # The first event of the group with the same identity; None for that one itself.
    first: "Candidate | None" = None
    outcome: Outcome | None = None
    uuid: UUID | None = None
    # The tenant's time, and when the event counts; known once its tenant is.
    now: datetime = LONG_AGO
    occurred_at: datetime = LONG_AGO
    # Where it settles an authorization: when that was made. Such usage has happened, and is recorded however late it comes.
    authorized_at: datetime | None = None
    # By the meters that let it through; what it counts for is found from this.
    measured: "Sequence[tuple[CountingMeter, Measured]]" = ()
    counts: Sequence[Count] = ()
    unmatched_code: str = ""
    unmatched_detail: str = ""

    @property
    def digest(self) -> bytes:
        """What stands for its source and id."""
        return self.identity[1]

    @property
    def instant(self) -> datetime:
        """About when it counts; what of the tenant is read goes by that."""
        return self.authorized_at or self.event.time or self.received_at

    @property
    def decided(self) -> Outcome:
        """What became of it; only asked when everything is decided."""
        assert self.outcome is not None
        return self.outcome

    def reject(self, code: str, detail: str, *fields: str) -> None:
        """Refuse it; it takes no key."""
        self.outcome = Outcome(REJECTED, code=code, detail=detail, fields=fields)

    def leave_unmatched(self, code: str, detail: str) -> None:
        """Let it be stored without being counted, until a replay."""
        self.unmatched_code, self.unmatched_detail = code, detail


class Group:
    """The events of several requests, deduplicated in memory."""

    def __init__(self, requests: Sequence[Record]) -> None:
        self._slots: list[list[Candidate | Outcome]] = []
        self.candidates: list[Candidate] = []
        for index, request in enumerate(requests):
            slots: list[Candidate | Outcome] = []
            for event in request.events:
                if isinstance(event, Rejected):
                    slots.append(Outcome(REJECTED, event.code, event.detail, fields=(event.path,)))
                else:
                    candidate = _candidate(index, event, request.now)
                    slots.append(candidate)
                    self.candidates.append(candidate)
            self._slots.append(slots)

    def undecided(self) -> list[Candidate]:
        """Return the events of which nothing is settled yet."""
        return [candidate for candidate in self.candidates if candidate.outcome is None]

    def storable(self) -> list[Candidate]:
        """
        Return the first event of each identity that is neither rejected nor known.

        A rejected event does not take its key, so the next one of its identity gets its chance.
        """
        firsts: dict[tuple[str, bytes], Candidate] = {}
        for candidate in self.undecided():
            candidate.first = None
            first = firsts.setdefault(candidate.identity, candidate)
            if first is not candidate:
                candidate.first = first
        return list(firsts.values())

    def start_over(self) -> None:
        """Prepare for another resolution: what was decided against a placement that has changed is open again."""
        for candidate in self.candidates:
            candidate.counts = ()
            candidate.unmatched_code = candidate.unmatched_detail = ""

    def batches(self, least: int) -> list[list[Candidate]]:
        """Return the events of the requests that have at least so many."""
        large = [slots for slots in self._slots if len(slots) >= least]
        return [[slot for slot in slots if isinstance(slot, Candidate)] for slots in large if _has_candidate(slots)]

    def candidates_of(self, request: int) -> Iterator[Candidate]:
        """Yield the events of one request that had the right form."""
        return (slot for slot in self._slots[request] if isinstance(slot, Candidate))

    def answer_followers(self) -> None:
        """Answer the events that repeat another one of the group, now that it is decided what became of that one."""
        for candidate in self.undecided():
            first = candidate.first
            if first is None or first.outcome is None:
                raise RuntimeError(f"event {candidate.event.id!r} was left without an outcome")
            status = DUPLICATE if candidate.fingerprint == first.fingerprint else CONFLICT
            candidate.outcome = Outcome(status, event_id=first.outcome.event_id)

    def outcomes(self, request: int) -> list[Outcome]:
        """Return what became of each event of one request, in the order in which they were sent."""
        return [slot if isinstance(slot, Outcome) else slot.decided for slot in self._slots[request]]


def _candidate(request: int, event: NewEvent, received_at: datetime) -> Candidate:
    identity = event.subject, digest(event.source, event.id)
    text = _encode(event.data).decode()
    content = text if is_canonical(text) else canonical(event.data)
    return Candidate(request, event, received_at, identity, text, fingerprint_of_text(event.type, content, event.time))


def _has_candidate(slots: Iterable[Candidate | Outcome]) -> bool:
    return any(isinstance(slot, Candidate) for slot in slots)


def classify(group: Group, meters: Meters, *, checks_window: bool = True) -> None:
    """
    Decide for every undecided event of the group what these meters would count. A replay does not ask for the window again.

    Afterwards each has counts, a reason why it is unmatched, or an outcome. What is rejected here may still be a repeat of a
    stored event: identity goes before the window, so the caller's key look-up has already answered those.
    """
    for candidate in group.undecided():
        candidate.measured = _measured(candidate, meters.of_type(candidate.event.type))
    undecided = group.undecided()
    if not undecided:
        return
    placements = _placements(undecided)
    places: _Places = {}
    for candidate in undecided:
        placement = placements.get(candidate.event.subject)
        _date(candidate, placement)
        if candidate.outcome is None and (not checks_window or _is_in_window(candidate)):
            _place(candidate, placement, places)


@dataclass(slots=True)
class _Place:
    """Where usage of one dimension set in one segment of a period belongs."""

    balance: PlacedBalance
    segment_at: datetime
    dimension_key: str
    # The charge's price, where it clamps per event.
    clamping: Price | None
    # Whether the meter sums up; else its events make a value.
    adds_up: bool


# What has been found for the events of a group: many are alike.
_Places = dict[tuple[int, datetime, int, DimensionSet], _Place | None]


def _measured(candidate: Candidate, meters: Sequence[CountingMeter]) -> list[tuple[CountingMeter, Measured]]:
    """Measure an event for every meter of its type; says why it is unmatched, or rejects it."""
    found: list[tuple[CountingMeter, Measured]] = []
    missing: Missing | None = None
    event = candidate.event
    read = measure_settled if event.source == SETTLED_SOURCE else measure
    for meter in meters:
        result = read(meter.definition, event.data)
        if isinstance(result, Measured):
            found.append((meter, result))
        elif isinstance(result, Refused):
            detail = f"data.{result.detail} (meter {meter.definition.code})."
            candidate.reject("invalid_quantity", detail, f"data.{result.path}")
        elif isinstance(result, Missing):
            missing = result
        else:
            assert isinstance(result, NotMatched)
    if not found:
        if missing is not None:
            candidate.leave_unmatched("property_missing", f"data.{missing.path}, which the meter counts, is missing.")
        elif meters:
            candidate.leave_unmatched("filtered", "No meter's filters let this event through.")
        else:
            candidate.leave_unmatched("no_meter", f"No meter counts events of type {candidate.event.type!r}.")
    return found


def _placements(candidates: Sequence[Candidate]) -> dict[str, Placement]:
    """Return the tenants of the events, as remembered where that has all that the events need; else read, and opened where due."""
    placements: dict[str, Placement] = {}
    lacking: set[str] = set()
    for candidate in candidates:
        code = candidate.event.subject
        placement = placements.get(code) or remembered_placement(code)
        if placement is None or not placement.has(candidate.instant, [meter.id for meter, _ in candidate.measured]):
            lacking.add(code)
        else:
            placements[code] = placement
    if lacking:
        to_read = [candidate for candidate in candidates if candidate.event.subject in lacking]
        read = _read(to_read)
        placements |= _read(to_read) if _open_missing(to_read, read) else read
    return placements


def _read(candidates: Sequence[Candidate]) -> dict[str, Placement]:
    times = [candidate.instant for candidate in candidates]
    wall = max(candidate.received_at for candidate in candidates)
    codes = {candidate.event.subject for candidate in candidates}
    return read_placements(codes, earliest=min(times), latest=max(times), wall=wall)


def _open_missing(candidates: Iterable[Candidate], placements: dict[str, Placement]) -> bool:
    """Open the periods that have begun and are not stored yet; whether there were any."""
    missing: dict[str, datetime] = {}
    for candidate in candidates:
        placement = placements.get(candidate.event.subject)
        if placement is None or placement.is_advancing:
            continue
        now = placement.now(candidate.received_at)
        instant = candidate.authorized_at or candidate.event.time or now
        if instant <= now + AHEAD and placement.period_at(instant) is None:
            missing[placement.code] = max(instant, missing.get(placement.code, instant))
    opened = False
    for code, instant in missing.items():
        subscription_id = unopened_subscription(tenant_id=placements[code].tenant_id, at=instant)
        if subscription_id is not None:
            opened |= bool(open_due_periods(subscription_id=subscription_id, now=instant))
    return opened


def _date(candidate: Candidate, placement: Placement | None) -> None:
    """Set the tenant's time and the moment at which the event counts."""
    candidate.now = candidate.received_at if placement is None else placement.now(candidate.received_at)
    candidate.occurred_at = candidate.event.time or candidate.now
    if candidate.authorized_at is not None:
        candidate.occurred_at = _settled_at(candidate, candidate.authorized_at, placement)
    if placement is not None and placement.is_advancing:
        candidate.reject(
            "clock_advancing", "The tenant's test clock is advancing; send the event again when it is done."
        )


def _settled_at(candidate: Candidate, authorized_at: datetime, placement: Placement | None) -> datetime:
    """Return when settled usage counts: when it was authorized, or at its own time if that is later and in the same period."""
    time = candidate.event.time
    if time is None or placement is None or not authorized_at <= time <= candidate.now:
        return authorized_at
    return time if placement.period_at(time) is placement.period_at(authorized_at) else authorized_at


def _place(candidate: Candidate, placement: Placement | None, places: _Places) -> None:
    """Find the balances that the event counts for, or the reason why there are none."""
    if placement is None:
        candidate.leave_unmatched("unknown_tenant", f"No tenant has the id {candidate.event.subject!r}.")
        return
    if not candidate.measured:
        return
    period = placement.period_at(candidate.occurred_at)
    if period is None:
        candidate.leave_unmatched("no_period", "The tenant has no billing period at the time of the event.")
        return
    _count(candidate, period, places)


def _is_in_window(candidate: Candidate) -> bool:
    if candidate.authorized_at is not None:
        return True
    ahead = candidate.occurred_at - candidate.now
    if ahead > AHEAD:
        candidate.reject("in_future", "time lies more than 10 minutes ahead of the tenant's time.", "time")
        return False
    window = min([meter.window for meter, _ in candidate.measured]) if candidate.measured else WINDOW
    if -ahead > window:
        candidate.reject("too_old", f"time lies more than {window.days} days back.", "time")
        return False
    return True


def _count(candidate: Candidate, period: PlacedPeriod, places: _Places) -> None:
    segment_at, terms_id = period.segment_of(candidate.occurred_at)
    counts: list[Count] = []
    for meter, measurement in candidate.measured:
        key = (period.id, segment_at, meter.id, measurement.dimensions)
        if key in places:
            place = places[key]
        else:
            place = places[key] = _find_place(period, (segment_at, terms_id), meter, measurement.dimensions)
        if place is None:
            continue
        if period.is_closed and meter.rejects_late and candidate.authorized_at is None:
            candidate.reject(
                "period_closed", "The period of the event is closed, and its meter takes no late usage.", "time"
            )
            return
        quantity, starts_at = measurement.quantity, place.segment_at
        clamped = clamp_event(place.clamping, quantity) if place.clamping is not None else _ZERO
        if place.balance.cuts:
            starts_at = place.balance.cut_segment(starts_at, candidate.occurred_at)
        count = Count(place.balance, meter.definition, starts_at, place.dimension_key, quantity, clamped)
        if not place.adds_up:
            count.reading = _reading(candidate, measurement, place)
        counts.append(count)
    candidate.counts = counts
    if not counts:
        candidate.leave_unmatched("not_in_tier", "The tenant's tier has no charge for the event's meter.")


def _reading(candidate: Candidate, measured: Measured, place: _Place) -> Reading:
    event = candidate.event
    seen = None if measured.seen is None else value_digest(place.dimension_key, measured.seen).hex()
    return Reading(candidate.occurred_at, event.source, event.id, measured.quantity, seen)


def _find_place(
    period: PlacedPeriod, segment: tuple[datetime, int], meter: CountingMeter, dimensions: DimensionSet
) -> _Place | None:
    adds_up = meter.definition.aggregation.is_additive
    segment_at, terms_id = segment if adds_up else period.whole
    pools = pools_of_version(terms_id).get(meter.id)
    balance = pools and period.balances.get((meter.id, pools.key_for(dimensions)))
    if not pools or not balance:
        return None
    charge = pools.charge_for(dimensions)
    clamping = charge.price if charge is not None and charge.price.clamps_events else None
    return _Place(balance, segment_at, dimension_key(dimensions), clamping, adds_up)
