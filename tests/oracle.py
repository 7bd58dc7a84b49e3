"""
The slow, obvious twin of ledger and rating.

Walks single events in time order and knows no segments, no totals, no increments and no code of the product; exact
fractions throughout. What it says of a story is what the ledger and the invoice must say. Prices are the documents of
the API, with the models `flat`, `per_unit`, `package`, `graduated` and `volume`.

    events = [Event(june(5), 100), Event(june(20), 100, {"model": "opus"})]
    grants = [Grant("allowance", 150, june(1), expires_at=july(1))]
    position(events, grants).overage            # 50
    bill(events, grants, [Version("v1", june(1), [Charge("tokens", {"model": "per_unit", "unit_amount": "0.5"})])]).amounts
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import ceil
from zoneinfo import ZoneInfo

Number = Decimal | Fraction | int
FAR_FUTURE = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Event:
    occurred_at: datetime
    quantity: Number
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grant:
    """`paid` says that it was purchased; an allowance is not. `rolled` says that it was left of one: then `ranked_at` may be its rank."""

    id: int | str
    quantity: Number
    effective_at: datetime
    expires_at: datetime | None = None
    voided_at: datetime | None = None
    priority: int = 0
    paid: bool = False
    created_at: datetime | None = None
    rolled: bool = False
    ranked_at: datetime | None = None

    def is_live(self, instant: datetime) -> bool:
        if instant < self.effective_at:
            return False
        if self.expires_at is not None and instant >= self.expires_at:
            return False
        return self.voided_at is None or instant < self.voided_at


@dataclass(frozen=True)
class Charge:
    id: int | str
    price: Mapping[str, object]
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """In force from `starts_at` until the next one starts."""

    id: int | str
    starts_at: datetime
    charges: Sequence[Charge]


@dataclass
class Position:
    """`uncovered` has one entry for each event, in the order of the walk."""

    used: Fraction = Fraction(0)
    covered: Fraction = Fraction(0)
    overage: Fraction = Fraction(0)
    burns: dict[int | str, Fraction] = field(default_factory=dict)
    uncovered: list[tuple[Event, Fraction]] = field(default_factory=list)


@dataclass
class Bill:
    """Amounts by (version, charge), where there is one; overage that no charge prices by dimension set."""

    amounts: dict[tuple[int | str, int | str], Fraction] = field(default_factory=dict)
    unpriced: dict[tuple[tuple[str, str], ...], Fraction] = field(default_factory=dict)


def position(events: Iterable[Event], grants: Sequence[Grant]) -> Position:
    """Burn the grants with each event in turn, earliest first."""
    left = {grant.id: Fraction(grant.quantity) for grant in grants}
    result = Position(burns={grant.id: Fraction(0) for grant in grants})
    for event in sorted(events, key=lambda event: event.occurred_at):
        rest = Fraction(event.quantity)
        result.used += rest
        while rest:
            usable = [grant for grant in grants if grant.is_live(event.occurred_at) and left[grant.id] > 0]
            if not usable:
                break
            first = min(usable, key=burns_before)
            burned = min(rest, left[first.id])
            left[first.id] -= burned
            result.burns[first.id] += burned
            result.covered += burned
            rest -= burned
        result.overage += rest
        result.uncovered.append((event, rest))
    return result


@dataclass
class Pool:
    """
    A pool over several periods, told as it happens: what comes in, what closes, what rolls over.

    Whatever was received before its period closed counts as if it had been known from the beginning; what comes later is overage. So the
    position is always that of one walk over the single events. `periods` are the starts and ends of those that are open or closed.
    """

    allowance: Number
    rollover_max: Number = 0
    rollover_periods: int = 1
    periods: list[tuple[datetime, datetime]] = field(default_factory=list)
    closed: int = 0
    grants: dict[int | str, Grant] = field(default_factory=dict)
    in_time: list[Event] = field(default_factory=list)
    late: list[Event] = field(default_factory=list)

    def open(self, starts_at: datetime, ends_at: datetime) -> None:
        self.periods.append((starts_at, ends_at))
        self.give(Grant(f"allowance {len(self.periods)}", self.allowance, starts_at, ends_at))

    def cut(self, ends_at: datetime) -> None:
        """Let the newest period, and its allowance, end earlier."""
        self.periods[-1] = (self.periods[-1][0], ends_at)
        name = f"allowance {len(self.periods)}"
        self.grants[name] = replace(self.grants[name], expires_at=ends_at)

    def rescale(self, quantity: Number) -> None:
        """Let the newest period's allowance be another, as if it had been from the beginning."""
        name = f"allowance {len(self.periods)}"
        self.grants[name] = replace(self.grants[name], quantity=quantity)

    def give(self, grant: Grant) -> None:
        """The how manieth it is stands for when it was made."""
        made = datetime(2020, 1, 1 + len(self.grants) // 24, len(self.grants) % 24, tzinfo=UTC)
        self.grants[grant.id] = replace(grant, created_at=made)

    def void(self, grant_id: int | str, at: datetime) -> None:
        self.grants[grant_id] = replace(self.grants[grant_id], voided_at=at)

    def receive(self, event: Event) -> None:
        (self.in_time if self.period_of(event) >= self.closed else self.late).append(event)

    def reverse(self, event: Event) -> None:
        """Only of what is still open."""
        self.in_time.remove(event)

    def close(self) -> None:
        """Close the oldest open period; the next one is open."""
        name = f"allowance {self.closed + 1}"
        left = Fraction(self.grants[name].quantity) - self.position().burns[name]
        self.closed += 1
        rolled = min(left, Fraction(self.rollover_max))
        if rolled:
            starts_at, ends_at = self.periods[self.closed]
            lasts = self.rollover_periods > 1
            expires_at = ends_at + (self.rollover_periods - 1) * (ends_at - starts_at)
            ranked_at = ends_at if lasts else None
            name = f"rolled {self.closed}"
            self.give(Grant(name, rolled, starts_at, expires_at, rolled=True, ranked_at=ranked_at))

    def period_of(self, event: Event) -> int:
        return next(
            n for n, (starts_at, ends_at) in enumerate(self.periods) if starts_at <= event.occurred_at < ends_at
        )

    def position(self) -> Position:
        return position(self.in_time, list(self.grants.values()))

    def used_and_covered(self) -> list[tuple[Fraction, Fraction]]:
        """Return the figures of each period."""
        figures = [[Fraction(0), Fraction(0)] for _ in self.periods]
        for event, uncovered in self.position().uncovered:
            of_period = figures[self.period_of(event)]
            of_period[0] += Fraction(event.quantity)
            of_period[1] += Fraction(event.quantity) - uncovered
        for event in self.late:
            figures[self.period_of(event)][0] += Fraction(event.quantity)
        return [(used, covered) for used, covered in figures]


def late(closed: Position, changes: Sequence[tuple[Event, int]]) -> Position:
    """
    Return where a closed period stands after what came late, in its order: events (1), and events taken back (-1).

    Burns are frozen: late usage is overage. What is taken back lowers the overage first, then the cover, which nobody gets again. Which
    event is uncovered is no longer told; the sum is. So the period must be one stretch: one version, and no grant that ends within it.
    """
    used, overage = closed.used, closed.overage
    events = [event for event, _ in closed.uncovered]
    for event, sign in changes:
        used += sign * Fraction(event.quantity)
        overage = max(overage + sign * Fraction(event.quantity), Fraction(0))
        if sign > 0:
            events.append(event)
        else:
            events.remove(event)
    uncovered = [(event, overage if number == 0 else Fraction(0)) for number, event in enumerate(events)]
    return Position(used, used - overage, overage, dict(closed.burns), uncovered)


def burns_before(grant: Grant) -> tuple[object, ...]:
    """Priority, soonest expiry (never last), what rolled over before promotional before paid, oldest, id."""
    return (
        grant.priority,
        grant.ranked_at or grant.expires_at or FAR_FUTURE,
        0 if grant.rolled else 2 if grant.paid else 1,
        grant.effective_at if grant.created_at is None else grant.created_at,
        grant.id,
    )


def bill(
    events: Iterable[Event], grants: Sequence[Grant], versions: Sequence[Version], *, ends_at: datetime = FAR_FUTURE
) -> Bill:
    """
    Price the overage of the period that begins with the first version and ends at `ends_at`.

    Events outside it burn grants, and are not priced.
    """
    return bill_position(position(events, grants), grants, versions, ends_at=ends_at)


def bill_position(
    stand: Position, grants: Sequence[Grant], versions: Sequence[Version], *, ends_at: datetime = FAR_FUTURE
) -> Bill:
    """Price the overage of a position, which may be that of a closed period after late usage."""
    starts_at = min(version.starts_at for version in versions)
    uncovered = [(event, overage) for event, overage in stand.uncovered if starts_at <= event.occurred_at < ends_at]
    shares = spread_in_time_order(uncovered, grants, versions, starts_at)
    result = Bill()
    for number, (version, share) in enumerate(shares):
        for dimensions, quantity in share.items():
            if quantity and winner(version.charges, dict(dimensions)) is None:
                result.unpriced[dimensions] = result.unpriced.get(dimensions, Fraction(0)) + quantity
        for charge in version.charges:
            lengths = [matched(charge, version, each) for _, each in shares]
            start, end, total = sum(lengths[:number]), sum(lengths[: number + 1]), sum(lengths)
            if start == end and (total or number):
                continue
            amount = up_to(charge.price, end, total) - (up_to(charge.price, start, total) if start else 0)
            key = (version.id, charge.id)
            result.amounts[key] = result.amounts.get(key, Fraction(0)) + amount
    return result


def spread_in_time_order(
    uncovered: Sequence[tuple[Event, Fraction]],
    grants: Sequence[Grant],
    versions: Sequence[Version],
    starts_at: datetime,
) -> list[tuple[Version, dict[tuple[tuple[str, str], ...], Fraction]]]:
    """
    Return, for each stretch in which the same grants are live and the same version is in force, its overage by
    dimension set.

    Inside a stretch each set has the share of the overage that it has of the usage. The period's first instant always
    begins one.
    """
    instants = {starts_at, *(version.starts_at for version in versions)}
    for grant in grants:
        instants |= {each for each in (grant.effective_at, grant.expires_at, grant.voided_at) if each is not None}
    stretches: list[tuple[Version, dict[tuple[tuple[str, str], ...], Fraction]]] = []
    conditions_before = None
    instants_in_order = sorted(instant for instant in instants if instant >= starts_at)
    events_of_stretches: list[list[tuple[Event, Fraction]]] = []
    for index, instant in enumerate(instants_in_order):
        until = instants_in_order[index + 1] if index + 1 < len(instants_in_order) else FAR_FUTURE
        version = max((each for each in versions if each.starts_at <= instant), key=lambda each: each.starts_at)
        conditions = (version.id, [grant.id for grant in grants if grant.is_live(instant)])
        if conditions != conditions_before:
            stretches.append((version, {}))
            events_of_stretches.append([])
            conditions_before = conditions
        events_of_stretches[-1] += [pair for pair in uncovered if instant <= pair[0].occurred_at < until]
    for (_, share), pairs in zip(stretches, events_of_stretches, strict=True):
        used = sum(Fraction(event.quantity) for event, _ in pairs)
        overage = sum(rest for _, rest in pairs)
        for event, _ in pairs:
            if used:
                dimensions = tuple(sorted(event.dimensions.items()))
                share[dimensions] = share.get(dimensions, Fraction(0)) + overage * Fraction(event.quantity) / used
    return stretches


def integral(
    values: Sequence[tuple[datetime, Number]], starts_at: datetime, ends_at: datetime, *, days_in: str | None
) -> Fraction:
    """
    Return the sum, over the time from `starts_at` to `ends_at`, of the values that came into force one after the other.

    Counts by local days of the zone `days_in`, of which each has the value that was the last to come into force on it, and the last day
    none; or by elapsed time where that is None. To be divided by `integral` of 1 over the whole.
    """
    if days_in is None:
        instants = sorted({starts_at, ends_at, *(min(max(at, starts_at), ends_at) for at, _ in values)})
        stretches = [(start, Fraction((end - start) // timedelta(microseconds=1))) for start, end in pairwise(instants)]
        return sum(
            (length * Fraction([value for at, value in values if at <= start][-1]) for start, length in stretches),
            Fraction(0),
        )
    zone = ZoneInfo(days_in)
    day, total = starts_at.astimezone(zone).date(), Fraction(0)
    while day < ends_at.astimezone(zone).date():
        total += Fraction([value for at, value in values if at.astimezone(zone).date() <= day][-1])
        day += timedelta(days=1)
    return total


def winner(charges: Sequence[Charge], dimensions: Mapping[str, str]) -> Charge | None:
    """Return the charge that asks for most of these dimensions, of those whose every wish is met."""
    met = [c for c in charges if all(dimensions.get(name) == value for name, value in c.dimensions.items())]
    return max(met, key=lambda charge: len(charge.dimensions)) if met else None


def matched(charge: Charge, version: Version, share: Mapping[tuple[tuple[str, str], ...], Fraction]) -> Fraction:
    """Return how much of a stretch's overage the charge would price under its own version."""
    mine = [quantity for dimensions, quantity in share.items() if winner(version.charges, dict(dimensions)) is charge]
    return sum(mine, Fraction(0))


def up_to(price: Mapping[str, object], units: Fraction, total: Fraction) -> Fraction:
    """Return what the first `units` of `total` cost."""
    match price["model"]:
        case "flat":
            return Fraction(price["amount"])
        case "per_unit":
            return units * Fraction(price["unit_amount"])
        case "package":
            beyond = units - Fraction(price.get("free_units", 0))
            return ceil(beyond / Fraction(price["size"])) * Fraction(price["amount"]) if beyond > 0 else Fraction(0)
        case "graduated":
            return graduated_up_to(price, units)
        case "volume":
            return volume_up_to(price, units, total)
    raise ValueError(f"the oracle has no price model {price['model']}")


def graduated_up_to(price: Mapping[str, object], units: Fraction) -> Fraction:
    amount, lower = Fraction(0), Fraction(0)
    for number, band in enumerate(price["bands"]):
        upper = units if band["up_to"] is None else min(units, Fraction(band["up_to"]))
        if units > lower or (number == 0 and price.get("zero_usage") == "first_tier_flat"):
            amount += (upper - lower) * Fraction(band["unit_amount"]) + Fraction(band.get("flat_amount", 0))
        if band["up_to"] is None or units <= Fraction(band["up_to"]):
            return amount
        lower = Fraction(band["up_to"])
    raise ValueError("the last band is open")


def volume_up_to(price: Mapping[str, object], units: Fraction, total: Fraction) -> Fraction:
    lower = Fraction(0)
    for number, band in enumerate(price["bands"]):
        if band["up_to"] is None or total <= Fraction(band["up_to"]):
            is_entered = units > lower or (number == 0 and price.get("zero_usage") == "first_tier_flat")
            return units * Fraction(band["unit_amount"]) + (Fraction(band.get("flat_amount", 0)) if is_entered else 0)
        lower = Fraction(band["up_to"])
    raise ValueError("the last band is open")
