"""
What a backtest reads: closed periods as aggregates, by tenant, with what they were billed. A pure read, in a fixed number of queries a chunk.

What was billed is computed from the ledger's position by the rater, as everything that is shown is; only a minimum spend, which was settled
once, is read as it was booked.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from django.db import connection
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Window
from django.db.models.functions import RowNumber

from billing_site.database import among, array_of
from billing_site.prepared import run
from invoices.core.backtest import (
    BacktestTerms,
    Burned,
    FeeEntry,
    LineKey,
    Obstacle,
    PastPeriod,
    TenantPast,
    usage_lines,
)
from invoices.core.dealing import CountedBalance, CountedSegment, Late
from invoices.core.lines import LineKind
from invoices.models import BacktestRun
from metering.core.burndown import Grant, GrantId
from metering.core.measuring import dimension_set
from metering.models import CreditGrant, MeterBalance, OverageCharge
from metering.selectors.overage import charges_in_force, price_pools, read_totals
from metering.selectors.terms import bills_overage, pools_of_terms, pools_of_version
from subscriptions.core.money import exact, quantize
from subscriptions.core.periods import Period, next_period
from subscriptions.core.proration import Grain, Share, share_of
from subscriptions.models import BillingPeriod, FeeItem, Meter, TierChange, TierVersion
from subscriptions.selectors.agreement import VersionSpan, terms_id_in, version_of_terms, version_spans_of
from subscriptions.selectors.catalog import VersionTerms, terms_of

_LATE = """
SELECT e.balance_id, e.segment_at, e.dimension_key, e.quantity, e.events
FROM metering_meterbalance b JOIN metering_ledgerentry e ON e.balance_id = b.id AND e.id > b.closing_entry_id
WHERE b.id = ANY(%s::bigint[]) AND e.kind = 'usage' ORDER BY e.id
"""

_BURNED = """
SELECT b.tenant_id, p.id, p.starts_at, e.grant_id, sum(e.quantity)
FROM metering_meterbalance b
JOIN subscriptions_billingperiod p ON p.id = b.period_id
JOIN metering_ledgerentry e ON e.balance_id = b.id AND e.grant_id IS NOT NULL AND e.kind IN ('usage', 'walk')
WHERE b.tenant_id = ANY(%s::bigint[]) AND b.is_wide
GROUP BY 1, 2, 3, 4 ORDER BY 3
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which periods of a tenant are replayed: closed ones of a tier, the last so many, or those that lie in [from_at, to_at)."""

    tier_id: int
    periods: int | None
    from_at: datetime | None
    to_at: datetime | None


def scope_of(run: BacktestRun) -> Scope:
    """Return which periods a run is about."""
    return Scope(run.version.tier_id, run.periods, run.from_at, run.to_at)


def backtest_terms(version: TierVersion) -> BacktestTerms:
    """Return the terms of a version, a draft or not, as the replay takes them."""
    terms = terms_of(version.pk)
    return BacktestTerms(
        fee=terms.fee,
        currency=terms.currency,
        pools=pools_of_terms(terms, terms_id_in("", terms.id)),
        trial_pools=pools_of_terms(terms, terms_id_in(BillingPeriod.Kind.TRIAL, terms.id)),
        bills_trial_overage=terms.trial_overage == "bill",
        meter_codes={charge.meter_id: charge.meter_code for charge in terms.charges},
    )


def tenants_of(scope: Scope, who: Q) -> list[int]:
    """Return, in order, the ids of the tenants that have something to replay; `who` is a condition on a period's `tenant`."""
    found = _periods(scope).filter(who).order_by("tenant_id")
    return list(found.values_list("tenant_id", flat=True).distinct())


def pasts(tenant_ids: Collection[int], *, scope: Scope, terms: BacktestTerms, version: TierVersion) -> list[TenantPast]:
    """Return the pasts of these tenants, in the order of their ids."""
    periods = _periods(scope).filter(among("tenant_id", tenant_ids)).select_related("subscription")
    if scope.periods is not None:
        place = Window(RowNumber(), partition_by=F("tenant_id"), order_by=F("starts_at").desc())
        periods = periods.annotate(place=place).filter(place__lte=scope.periods)
    of_tenant: dict[int, list[BillingPeriod]] = {pk: [] for pk in sorted(tenant_ids)}
    for period in sorted(periods, key=lambda one: one.starts_at):
        of_tenant[period.tenant_id].append(period)
    read = _Read([period for of_one in of_tenant.values() for period in of_one], terms, version)
    return [read.past_of(tenant_id, of_one) for tenant_id, of_one in of_tenant.items()]


def _periods(scope: Scope) -> QuerySet[BillingPeriod]:
    came_to = TierChange.objects.filter(period=OuterRef("pk"), to_version__tier_id=scope.tier_id)
    found = BillingPeriod.objects.filter(
        Q(version__tier_id=scope.tier_id) | Exists(came_to),
        closed_at__isnull=False,
    )
    if scope.from_at is not None:
        found = found.filter(starts_at__gte=scope.from_at)
    if scope.to_at is not None:
        found = found.filter(ends_at__lte=scope.to_at)
    return found


class _Read:
    """What was read of the periods of a chunk of tenants."""

    def __init__(self, periods: Sequence[BillingPeriod], terms: BacktestTerms, version: TierVersion) -> None:
        self._version, self._terms = terms_of(version.pk), terms
        self._tier_id = version.tier_id
        self._spans = version_spans_of(periods)
        ids = {span.terms_id for spans in self._spans.values() for span in spans}
        self._tier_of = dict(
            TierVersion.objects.filter(pk__in={version_of_terms(one) for one in ids}).values_list("pk", "tier_id")
        )
        self._balances: dict[int, list[MeterBalance]] = {}
        for balance in MeterBalance.objects.filter(among("period_id", self._spans)).order_by("pk"):
            self._balances.setdefault(balance.period_id, []).append(balance)
        self._meters = Meter.objects.in_bulk()
        flat = [balance for of_one in self._balances.values() for balance in of_one]
        self._totals = read_totals([balance.pk for balance in flat])
        self._late = _late([balance.pk for balance in flat])
        self._read_billed(flat)
        self._read_fees()
        self._read_grants({period.tenant_id for period in periods}, {balance.pk: balance.period_id for balance in flat})

    def past_of(self, tenant_id: int, periods: Sequence[BillingPeriod]) -> TenantPast:
        """Return one tenant's."""
        return TenantPast(
            tenant_id=tenant_id,
            periods=[self._past(period) for period in periods],
            grants=self._grants.get(tenant_id, {}),
            burned=self._burned.get(tenant_id, ()),
            rolled_from=self._rolled_from,
        )

    def _past(self, period: BillingPeriod) -> PastPeriod:
        spans = self._spans[period.pk]
        is_free = not any(terms_of(version_of_terms(span.terms_id)).fee for span in spans)
        return PastPeriod(
            id=period.pk,
            subscription_id=period.subscription_id,
            sequence=period.sequence,
            span=period.period,
            is_trial=period.kind == BillingPeriod.Kind.TRIAL,
            opened_at=period.created_at,
            rollover_ends={
                count: _rollover_end(period, self._version, count) for count in self._terms.rollover_lengths
            },
            balances=[self._counted(balance, spans) for balance in self._balances.get(period.pk, ())],
            fees=self._fees.get(period.pk, ()),
            opens_fee=_opening_share(period) if is_free else None,
            billed=self._billed.get(period.pk, {}),
            obstacle=self._obstacle(spans),
        )

    def _obstacle(self, spans: Iterable[VersionSpan]) -> Obstacle | None:
        versions = [terms_of(version_of_terms(span.terms_id)) for span in spans]
        if any(self._tier_of[version.id] != self._tier_id for version in versions):
            return Obstacle.OTHER_TIER
        if any(version.currency != self._version.currency for version in versions):
            return Obstacle.OTHER_CURRENCY
        cadence = (self._version.cadence, self._version.fee_every)
        if any((version.cadence, version.fee_every) != cadence for version in versions):
            return Obstacle.OTHER_CADENCE
        return None

    def _counted(self, balance: MeterBalance, spans: Iterable[VersionSpan]) -> CountedBalance:
        late = self._late.get(balance.pk, {})
        then = (pools_of_version(span.terms_id).get(balance.meter_id) for span in spans)
        return CountedBalance(
            meter_id=balance.meter_id,
            pool=balance.pool,
            is_additive=self._meters[balance.meter_id].is_additive,
            cuts=balance.cuts,
            pools=[pools for pools in then if pools is not None],
            segments=[
                CountedSegment(one.segment_at, one.usage, one.events, one.clamped, late.get(one.segment_at, ()))
                for one in self._totals.get(balance.pk, ())
            ],
            grants=self._own_grants.get(balance.pk, ()),
        )

    def _read_billed(self, balances: Sequence[MeterBalance]) -> None:
        """Compute what each period was billed: the cumulative price of its balances by the ledger, its minimums, its fees."""
        versions_of = {pk: {span.starts_at: span.terms_id for span in spans} for pk, spans in self._spans.items()}
        priced = price_pools(balances, versions_of, self._totals)
        self._billed: dict[int, dict[LineKey, Decimal]] = {}
        for balance in balances:
            versions = versions_of[balance.period_id]
            charges = [one for one in charges_in_force(balance, versions) if bills_overage(int(one.version_id))]
            currency = terms_of(version_of_terms(next(iter(versions.values())))).currency
            for item in usage_lines(priced[balance.pk], self._meters[balance.meter_id].code, charges, currency).items():
                self._bill(balance.period_id, *item)
        minimums = OverageCharge.objects.filter(among("period_id", self._spans), kind=OverageCharge.Kind.MINIMUM)
        columns = ("period_id", "charge_id", "charge__version_id", "currency", "amount_numerator", "amount_denominator")
        for period_id, charge_id, version_id, currency, numerator, denominator in minimums.values_list(*columns):
            charge = next(one for one in terms_of(version_id).charges if one.id == charge_id)
            key = LineKey(LineKind.MINIMUM, charge.meter_code, charge.dimensions)
            self._bill(period_id, key, quantize(Fraction(int(numerator), int(denominator)), currency))

    def _bill(self, period_id: int, key: LineKey, amount: Decimal) -> None:
        lines = self._billed.setdefault(period_id, {})
        if amount:
            with exact():
                lines[key] = lines.get(key, Decimal(0)) + amount

    def _read_fees(self) -> None:
        self._fees: dict[int, list[FeeEntry]] = {}
        items = FeeItem.objects.filter(among("period_id", self._spans)).select_related(
            "credits", "version", "change__from_version"
        )
        for item in items.order_by("pk"):
            self._bill(item.period_id, LineKey(LineKind.FEE), item.amount)
            self._fees.setdefault(item.period_id, []).append(self._fee_entry(item))

    def _fee_entry(self, item: FeeItem) -> FeeEntry:
        change = item.change
        return FeeEntry(
            id=item.pk,
            share=Share(item.share_numerator, item.share_divisor),
            amount=item.amount,
            credits=None if item.credits is None else _whole_entry(item.credits),
            # A reset ends a period, and its credit is for time that nobody had.
            is_exchange=change is not None
            and change.from_version.tier_id == self._tier_id
            and change.allowance != "reset",
            is_of_tier=item.version.tier_id == self._tier_id,
        )

    def _read_grants(self, tenant_ids: Collection[int], period_of: Mapping[int, int]) -> None:
        self._grants: dict[int, dict[tuple[int, str], list[Grant]]] = {}
        self._own_grants: dict[int, list[Grant]] = {}
        self._rolled_from: dict[GrantId, int] = {}
        of_pools = Q(among("tenant_id", tenant_ids), balance__isnull=True)
        of_periods = Q(among("balance_id", period_of), kind=CreditGrant.Kind.ROLLOVER)
        for grant in CreditGrant.objects.filter(of_pools | of_periods).select_related("rolled_from").order_by("pk"):
            came_from = None if grant.rolled_from is None else grant.rolled_from.balance_id
            if came_from is not None and came_from in period_of:
                self._rolled_from[grant.pk] = period_of[came_from]
            if grant.balance_id is not None:
                self._own_grants.setdefault(grant.balance_id, []).append(grant.as_core())
            elif self._meters[grant.meter_id].is_additive:
                pools = self._grants.setdefault(grant.tenant_id, {})
                pools.setdefault((grant.meter_id, grant.pool), []).append(grant.as_core())
        self._burned: dict[int, list[Burned]] = {}
        for tenant_id, *burned in run(_BURNED, [array_of(self._grants)]) if self._grants else ():
            self._burned.setdefault(tenant_id, []).append(Burned(*burned))


def _late(balance_ids: list[int]) -> dict[int, dict[datetime, list[Late]]]:
    found: dict[int, dict[datetime, list[Late]]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_LATE, [array_of(balance_ids)])
        for balance_id, segment_at, key, quantity, events in cursor:
            late = Late(dimension_set(key), quantity, events)
            found.setdefault(balance_id, {}).setdefault(segment_at, []).append(late)
    return found


def _whole_entry(item: FeeItem) -> FeeEntry:
    return FeeEntry(item.pk, Share(item.share_numerator, item.share_divisor), item.amount)


def _opening_share(period: BillingPeriod) -> Share | None:
    """Return the share of a fee that the period would open, were its tier not free; not less what an end would have given back of it."""
    if period.kind == BillingPeriod.Kind.TRIAL or not (period.begins_run or period.starts_at == period.fee_starts_at):
        return None
    whole = Period(period.fee_starts_at, period.fee_ends_at)
    if period.starts_at == whole.starts_at:
        return Share(1, 1)
    zone = period.subscription.anchor_zone
    return share_of(period.starts_at, whole.ends_at, whole, grain=Grain.DAY, zone=zone)


def _rollover_end(period: BillingPeriod, version: VersionTerms, count: int) -> datetime:
    """Return when what comes into the period for so many expires."""
    subscription, ends_at = period.subscription, period.ends_at
    for _ in range(count - 1):
        ends_at = next_period(subscription.anchor, version.cadence, ends_at).ends_at
    return ends_at if subscription.ends_at is None else min(ends_at, subscription.ends_at)
