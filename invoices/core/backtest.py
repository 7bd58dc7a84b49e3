"""
A backtest: what closed periods would have cost under other terms, by the functions that bill.

Owns how usage is walked again and priced, and what fees would have been. Does not own which usage belongs to which pool (`dealing`), what was
billed (it is told), nor what a price or a walk is (`metering.core`). It takes aggregates: events are not read again, so what only they
could answer is an obstacle, and the period is left out with its reason.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from invoices.core.dealing import CountedBalance, Matcher, PoolUsage, deal
from invoices.core.lines import LineKind
from metering.core.burndown import Grant, GrantId, GrantKind, walk
from metering.core.overage import ChargeId, ChargeTerms, PricedPool
from metering.core.pools import MeterPools, Pool
from metering.core.segments import cuts_of, meets
from subscriptions.core.money import exact, quantize
from subscriptions.core.periods import Period
from subscriptions.core.proration import Share, credit_for, prorate

_ZERO = Decimal(0)
# The allowance and the rollover of terms that never were have no rows; among grants that tie, those of rows are older.
_ALLOWANCE, _ROLLED = 2**62, 2**61


class Obstacle(StrEnum):
    """Why a period cannot be replayed from what was kept of it."""

    OTHER_TIER = "other_tier"
    OTHER_CURRENCY = "other_currency"
    OTHER_CADENCE = "other_cadence"
    # The terms charge a meter that counted nothing for this tenant then.
    METER_NOT_COUNTED = "meter_not_counted"
    # The terms have bounds per event other than those by which the events were summed.
    BOUNDS_PER_EVENT = "bounds_per_event"
    # Usage would move into a pool whose grants begin or end at instants at which it was not told apart.
    POOLS_CUT_OTHERWISE = "pools_cut_otherwise"


OBSTACLE_WORDS: Mapping[Obstacle, str] = {
    Obstacle.OTHER_TIER: "The subscription was on another tier for a part of the period.",
    Obstacle.OTHER_CURRENCY: "The period was billed in another currency.",
    Obstacle.OTHER_CADENCE: "The period had another length, or its fee paid for another span.",
    Obstacle.METER_NOT_COUNTED: "The version charges a meter that did not count this tenant's events then.",
    Obstacle.BOUNDS_PER_EVENT: "The version has bounds per event, and the events were not summed by those bounds.",
    Obstacle.POOLS_CUT_OTHERWISE: "Usage would burn grants that began or ended within the period, and was not counted apart there.",
}


@dataclass(frozen=True, slots=True)
class FeeEntry:
    """
    A fee item that a period has: a share of a fee, or the credit of a share of another item, which `credits` then is.

    `is_exchange` says that it comes of a change between versions of the tier, which under one version would not have been.
    """

    id: int
    share: Share
    amount: Decimal
    credits: "FeeEntry | None" = None
    is_exchange: bool = False
    is_of_tier: bool = True


@dataclass(frozen=True, slots=True, order=True)
class LineKey:
    """What a line of a comparison is about: a fee, or the overage or minimum of a charge, whichever version's it is."""

    kind: LineKind
    meter: str = ""
    dimensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PastPeriod:
    """
    A closed period: its usage, its fees, and what it was billed, by line.

    `opens_fee` is the share of a fee that it would open, for a tier that had none. `obstacle` is what is known to prevent its replay.
    """

    id: int
    subscription_id: int
    sequence: int
    span: Period
    is_trial: bool
    opened_at: datetime
    # When what rolls over into it and stays for several periods expires, by how many they are; see `BacktestTerms.rollover_lengths`.
    rollover_ends: Mapping[int, datetime]
    balances: Sequence[CountedBalance]
    fees: Sequence[FeeEntry]
    opens_fee: Share | None
    billed: Mapping[LineKey, Decimal]
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True)
class Burned:
    """What one of a tenant's periods has burned of a grant of the pool."""

    period_id: int
    starts_at: datetime
    grant_id: GrantId
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class TenantPast:
    """
    A tenant's closed periods in time order, its grants of pools, by meter and pool, and what every period has burned of them.

    `rolled_from` says of a grant that rolled over out of which period it came.
    """

    tenant_id: int
    periods: Sequence[PastPeriod]
    grants: Mapping[tuple[int, str], Sequence[Grant]]
    burned: Sequence[Burned]
    rolled_from: Mapping[GrantId, int]


@dataclass(frozen=True, slots=True)
class BacktestTerms:
    """The terms under which the past is played again. Pools by meter id; `trial_pools` are those of a trial."""

    fee: Decimal
    currency: str
    pools: Mapping[int, MeterPools]
    trial_pools: Mapping[int, MeterPools]
    bills_trial_overage: bool
    meter_codes: Mapping[int, str]
    _matchers: dict[tuple[int, bool], Matcher] = field(default_factory=dict, init=False, compare=False, repr=False)

    def matcher(self, meter_id: int, period: PastPeriod) -> Matcher:
        """Return what says to which of a meter's pools usage belongs in a period."""
        key = meter_id, period.is_trial
        if key not in self._matchers:
            self._matchers[key] = Matcher(self.pools_in(period)[meter_id])
        return self._matchers[key]

    def pools_in(self, period: PastPeriod) -> Mapping[int, MeterPools]:
        """Return the pools by meter id that are in force in a period."""
        return self.trial_pools if period.is_trial else self.pools

    @property
    def rollover_lengths(self) -> set[int]:
        """For how many periods what rolls over may stay."""
        return {
            pool.rollover_periods
            for pools in self.pools.values()
            for pool in pools.by_key.values()
            if pool.rollover_max > 0
        }


@dataclass(frozen=True, slots=True)
class Compared:
    """What a line was and would have been; both rounded as an invoice's line."""

    key: LineKey
    before: Decimal
    after: Decimal


@dataclass(frozen=True, slots=True)
class ReplayedPeriod:
    """A period with its lines before and after; with none where an obstacle left it out."""

    period_id: int
    lines: tuple[Compared, ...]
    obstacle: Obstacle | None = None

    @property
    def before(self) -> Decimal:
        """The sum of the lines as they were billed."""
        with exact():
            return sum((line.before for line in self.lines), _ZERO)

    @property
    def after(self) -> Decimal:
        """The sum of the lines as they would have been."""
        with exact():
            return sum((line.after for line in self.lines), _ZERO)


def replay(past: TenantPast, terms: BacktestTerms) -> list[ReplayedPeriod]:
    """
    Play a tenant's closed periods again under other terms.

    In time order, so that what a period leaves of grants and of its allowance is there for the next one. Usage that came after its period had
    closed was overage, and is so again. What a period with an obstacle, and any other period of the tenant, burned of a grant stays burned.
    """
    obstacles = {period.id: period.obstacle or obstacle_of(period, past, terms) for period in past.periods}
    replayed_ids = {period_id for period_id, obstacle in obstacles.items() if obstacle is None}
    # What rolled over out of a period that is replayed is for the replay to say.
    kept = _without(past, {grant_id for grant_id, period_id in past.rolled_from.items() if period_id in replayed_ids})
    burned = sorted((one for one in past.burned if one.period_id not in replayed_ids), key=lambda one: one.starts_at)
    stock = _Stock(kept.grants)
    found = []
    for period in kept.periods:
        while burned and burned[0].starts_at <= period.span.starts_at:
            stock.take(burned.pop(0))
        if (obstacle := obstacles[period.id]) is not None:
            found.append(ReplayedPeriod(period.id, (), obstacle))
            continue
        found.append(ReplayedPeriod(period.id, _compare(period.billed, _lines(period, terms, stock))))
    return found


def _without(past: TenantPast, gone: Collection[GrantId]) -> TenantPast:
    """Return the past without these grants."""
    if not gone:
        return past

    def left(grants: Sequence[Grant]) -> list[Grant]:
        return [grant for grant in grants if grant.id not in gone]

    periods = [
        replace(period, balances=[replace(one, grants=left(one.grants)) for one in period.balances])
        for period in past.periods
    ]
    return replace(past, periods=periods, grants={key: left(grants) for key, grants in past.grants.items()})


def obstacle_of(period: PastPeriod, past: TenantPast, terms: BacktestTerms) -> Obstacle | None:
    """Return what prevents a period's replay under the terms, as far as its usage can tell."""
    counted = {balance.meter_id for balance in period.balances}
    for meter_id in terms.pools_in(period):
        if meter_id not in counted:
            return Obstacle.METER_NOT_COUNTED
        matcher = terms.matcher(meter_id, period)
        for balance in period.balances:
            if balance.meter_id == meter_id and (obstacle := _obstacle_in(balance, matcher, period, past)):
                return obstacle
    return None


def _obstacle_in(balance: CountedBalance, matcher: Matcher, period: PastPeriod, past: TenantPast) -> Obstacle | None:
    sets = {names for segment in balance.segments for names in segment.usage}
    for names in sets:
        key, charge = matcher.place(names)
        if charge is not None and charge.price.clamps_events:
            known = [then.charge_for(names) for then in balance.pools]
            if any(one is None or one.price != charge.price for one in known):
                return Obstacle.BOUNDS_PER_EVENT
            # A minimum spend looks at what had come when the period closed, and that was not summed apart.
            if charge.price.amount_min is not None and any(segment.late for segment in balance.segments):
                return Obstacle.BOUNDS_PER_EVENT
        if balance.is_additive and key != balance.pool:
            cuts = cuts_of(period.span, past.grants.get((balance.meter_id, key), ()))
            if any(cut not in balance.cuts for cut in cuts):
                return Obstacle.POOLS_CUT_OTHERWISE
    return None


class _Stock:
    """What is left of a tenant's grants at a point of the replay, and what rolls over on the way."""

    def __init__(self, grants: Mapping[tuple[int, str], Sequence[Grant]]) -> None:
        self._grants = {key: list(of_pool) for key, of_pool in grants.items()}
        self._left = {grant.id: grant.quantity for of_pool in grants.values() for grant in of_pool}
        # Left of an allowance, by subscription, the sequence of the period into which it moves, meter and pool.
        self._rolling: dict[tuple[int, int, int, str], tuple[Pool, Decimal]] = {}

    def take(self, burned: Burned) -> None:
        """Take out of a grant what a period that is not replayed has burned of it."""
        if burned.grant_id in self._left:
            with exact():
                self._left[burned.grant_id] = max(self._left[burned.grant_id] - burned.quantity, _ZERO)

    def in_force(self, period: PastPeriod, meter_id: int, pool: Pool) -> list[Grant]:
        """Return the grants of a pool that reach into the period, each with what is left of it; what rolls over into it is one of them."""
        key = meter_id, pool.key
        if rolled := self._rolling.pop((period.subscription_id, period.sequence, *key), None):
            self._roll(period, key, *rolled)
        return [
            replace(grant, quantity=self._left[grant.id])
            for grant in self._grants.get(key, ())
            if meets(grant, period.span)
        ]

    def settle(self, period: PastPeriod, meter_id: int, pool: Pool, remaining: Mapping[GrantId, Decimal]) -> None:
        """Note what a walk has left; of the allowance up to `rollover_max` moves on."""
        for grant_id, left in remaining.items():
            if grant_id in self._left:
                self._left[grant_id] = left
        left = min(remaining.get(_ALLOWANCE, _ZERO), pool.rollover_max)
        if left > 0:
            self._rolling[period.subscription_id, period.sequence + 1, meter_id, pool.key] = (pool, left)

    def _roll(self, period: PastPeriod, key: tuple[int, str], pool: Pool, quantity: Decimal) -> None:
        lasts = pool.rollover_periods > 1
        ends_at = period.rollover_ends[pool.rollover_periods] if lasts else period.span.ends_at
        grant_id = _ROLLED + len(self._left)
        grant = Grant(
            id=grant_id,
            quantity=quantity,
            priority=0,
            effective_at=period.span.starts_at,
            expires_at=ends_at,
            voided_at=None,
            kind=GrantKind.ROLLOVER,
            created_at=period.opened_at,
            ranked_at=period.span.ends_at if lasts else None,
        )
        self._grants.setdefault(key, []).append(grant)
        self._left[grant_id] = quantity


def _compare(before: Mapping[LineKey, Decimal], after: Mapping[LineKey, Decimal]) -> tuple[Compared, ...]:
    return tuple(Compared(key, before.get(key, _ZERO), after.get(key, _ZERO)) for key in sorted({*before, *after}))


def _lines(period: PastPeriod, terms: BacktestTerms, stock: _Stock) -> dict[LineKey, Decimal]:
    """Return the amounts of a period's lines under the terms."""
    lines: dict[LineKey, Decimal] = {}
    if fee := fee_under(period, terms):
        lines[LineKey(LineKind.FEE)] = fee
    for meter_id, pools in terms.pools_in(period).items():
        balances = [balance for balance in period.balances if balance.meter_id == meter_id]
        dealt = deal(period.span.starts_at, balances, terms.matcher(meter_id, period))
        for pool in pools.by_key.values():
            usage = dealt[pool.key]
            in_force = stock.in_force(period, meter_id, pool) if usage.is_additive else []
            position = walk(usage.in_time(), [*_own_grants(period, pool, usage), *in_force])
            if usage.is_additive:
                stock.settle(period, meter_id, pool, position.remaining)
            if period.is_trial and not terms.bills_trial_overage:
                continue
            overage = [burndown.overage for burndown in position.segments]
            of_pool = (terms.meter_codes[meter_id], pool.charges, terms.currency)
            priced = usage.priced(overage, pool)
            lines |= usage_lines(priced, *of_pool)
            # A minimum spend was settled when the period closed, and what came late did not touch it.
            lines |= _minimum_lines(usage.priced(overage, pool, late=False) if usage.has_late else priced, *of_pool)
    return {key: amount for key, amount in lines.items() if amount}


def usage_lines(
    priced: PricedPool, meter: str, charges: Iterable[ChargeTerms], currency: str
) -> dict[LineKey, Decimal]:
    """Return what each of these charges has come to, rounded once as an invoice's lines; what other charges of the pool came to is left out."""
    keys = _line_keys(LineKind.OVERAGE, meter, charges)
    owed = [(charge_id, one.amount) for (charge_id, _), one in priced.owed().items()]
    return _rounded(((keys[charge_id], amount) for charge_id, amount in owed if charge_id in keys), currency)


def _minimum_lines(
    priced: PricedPool, meter: str, charges: Iterable[ChargeTerms], currency: str
) -> dict[LineKey, Decimal]:
    keys = _line_keys(LineKind.MINIMUM, meter, charges)
    return _rounded(((keys[part.charge_id], part.top_up) for part in priced.parts), currency)


def _line_keys(kind: LineKind, meter: str, charges: Iterable[ChargeTerms]) -> dict[ChargeId, LineKey]:
    return {charge.charge_id: LineKey(kind, meter, tuple(sorted(charge.dimensions.items()))) for charge in charges}


def _rounded(amounts: Iterable[tuple[LineKey, Fraction]], currency: str) -> dict[LineKey, Decimal]:
    lines: dict[LineKey, Decimal] = {}
    for key, amount in amounts:
        with exact():
            lines[key] = lines.get(key, _ZERO) + quantize(amount, currency)
    return lines


def fee_under(period: PastPeriod, terms: BacktestTerms) -> Decimal:
    """
    Return what the period's fees and their credits would have come to with the terms' fee.

    Each share is taken of the new fee and rounded as its item was; credits of one item never come to more than it. Where the tier had no
    fee, the period pays for the span that begins with it.
    """
    if not period.fees:
        if period.opens_fee is None or not terms.fee:
            return _ZERO
        return prorate(terms.fee, period.opens_fee, currency=terms.currency)
    total = _ZERO
    credited: dict[int, Decimal] = {}
    for item in sorted(period.fees, key=lambda one: one.id):
        if not item.is_of_tier:
            amount = item.amount
        elif item.is_exchange:
            continue
        elif item.credits is None:
            amount = prorate(terms.fee, item.share, currency=terms.currency)
        else:
            charged = prorate(terms.fee, item.credits.share, currency=terms.currency)
            already = credited.get(item.credits.id, _ZERO)
            unused = credit_for(charged=charged, share=item.share, already_credited=_ZERO, currency=terms.currency)
            with exact():
                amount = min(unused + already, _ZERO)
                credited[item.credits.id] = already - amount
        with exact():
            total += amount
    return total


def _own_grants(period: PastPeriod, pool: Pool, usage: PoolUsage) -> list[Grant]:
    """Return what covers this period alone: its allowance, and what had rolled over into it from before the backtest."""
    if not pool.included:
        return list(usage.rolled)
    allowance = Grant(
        id=_ALLOWANCE,
        quantity=pool.included,
        priority=0,
        effective_at=period.span.starts_at,
        expires_at=period.span.ends_at,
        voided_at=None,
        kind=GrantKind.ALLOWANCE,
        created_at=period.opened_at,
    )
    return [allowance, *usage.rolled]
