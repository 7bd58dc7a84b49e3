"""Backtests: nothing changes under the same terms, and under others the figures are those of really being on them."""

from decimal import Decimal

import pytest

from invoices.models import BacktestResult, BacktestRun, Invoice, InvoiceLine
from invoices.services import backtesting
from invoices.services.advancing import advance
from metering.services.grants import GrantTerms, grant_credit
from metering.services.reversing import reverse_event
from subscriptions.models import Meter, TierVersion
from subscriptions.selectors.catalog import ANSWERED_MEMBERS, get_version, version_document
from subscriptions.services import catalog
from tests.world import ACTOR, JUNE, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


def draft_like(version: TierVersion, **terms) -> TierVersion:
    """Make a draft of the same tier: a copy of the version, with these members instead of its own."""
    whole = get_version(version.tier, version.number)
    document = {name: value for name, value in version_document(whole).items() if name not in ANSWERED_MEMBERS}
    return catalog.create_version(tier=version.tier, actor=ACTOR, document=document | terms)


def backtest(version, world, *, periods=12):
    run = backtesting.start_backtest(
        version=version,
        periods=periods,
        from_at=None,
        to_at=None,
        test_clock=world.clock,
        now=JUNE,
        actor=ACTOR,
    )
    backtesting.run_backtests()
    run.refresh_from_db()
    assert run.status == BacktestRun.Status.DONE, run.failure
    return run, BacktestResult.objects.get(run=run)


def invoiced(world):
    """Return what the tenant's closed periods were billed, fees included: Σ of the lines that name them."""
    lines = InvoiceLine.objects.filter(invoice__tenant=world.tenant, period__closed_at__isnull=False)
    return sum((line.amount for line in lines.exclude(invoice__status=Invoice.Status.VOID)), Decimal(0))


BANDED = {
    "model": "graduated",
    "bands": [
        {"up_to": "1000", "unit_amount": "0.003", "flat_amount": "0.1"},
        {"up_to": None, "unit_amount": "0.0007", "flat_amount": "0.7"},
    ],
}
RICH = [
    charge(
        included="5000", rollover_max="2000", price={"model": "per_unit", "unit_amount": "0.0002", "amount_min": "3"}
    ),
    charge(dimensions={"model": "opus"}, included=None, price=BANDED),
    charge(dimensions={"model": "haiku"}, included="700", price={"model": "package", "size": "300", "amount": "0.11"}),
    charge(meter="calls", included="2", price={"model": "per_unit", "unit_amount": "0.013"}),
    charge(
        meter="seats",
        included="1",
        price={"model": "volume", "bands": [{"up_to": "3", "unit_amount": "5"}, {"up_to": None, "unit_amount": "4"}]},
    ),
]


def rich_version(code="rich", **terms):
    """Publish a version with pools, dimensions, rollover, a minimum spend, and a meter that does not add up."""
    if not Meter.objects.filter(code="tokens").exists():
        make_meter(dimensions=["model"])
        make_meter("calls", aggregation="count", value_property=None)
        make_meter("seats", aggregation="max", value_property="seats")
    return publish(code, charges=RICH, **terms)


def live(world):
    """Use a rich version over four months: grants of two pools, rollover, late usage, late reversals, and a month with little usage."""
    grant(world, "1500", effective_at=at("2026-06-10 00:00"), expires_at=at("2026-07-20 00:00"))
    grant(world, "333.5", effective_at=at("2026-06-12 00:00"), expires_at=None, dimensions={"model": "haiku"})
    world.use(1_800, time=at("2026-06-05 00:00"), model="opus", seats=2)
    world.use(2_500, time=at("2026-06-11 00:00"), model="opus", seats=4)
    world.use(1_250, time=at("2026-06-12 01:00"), model="haiku", seats=1)
    world.use("411.25", time=at("2026-06-15 00:00"), seats=1)
    to(world, "2026-06-20 00:00")
    taken_back = world.use(901, time=at("2026-06-14 00:00"), model="opus", seats=9).outcomes[0].event_id
    to(world, "2026-07-03 00:00")
    world.use(77, time=at("2026-06-30 00:00"), model="haiku", seats=3)
    world.use(5_000, time=at("2026-06-30 01:00"), seats=3)
    reverse_event(event_id=taken_back, reason="test", actor=ACTOR)
    world.use(9_000, time=at("2026-07-02 00:00"), model="opus", seats=5)
    to(world, "2026-07-25 00:00")
    world.use(4_321, time=at("2026-07-24 00:00"), model="sonnet", seats=5)
    to(world, "2026-08-20 00:00")
    world.use(12, time=at("2026-08-19 00:00"), seats=0)
    to(world, "2026-09-03 00:00")
    to(world, "2026-09-20 00:00")
    world.use(20_000, time=at("2026-09-19 00:00"), model="opus", seats=2)
    to(world, "2026-10-02 00:00")


def grant(world, quantity, *, effective_at, expires_at, dimensions=None):
    terms = GrantTerms(
        meter=Meter.objects.get(code="tokens"),
        quantity=Decimal(quantity),
        kind="promotional",
        priority=0,
        key=f"g{quantity}",
        effective_at=effective_at,
        expires_at=expires_at,
        dimensions=dimensions or {},
    )
    return grant_credit(tenant=world.tenant, terms=terms, now=world.now, actor=ACTOR)


def to(world, text):
    advance(clock_id=world.clock.pk, to=at(text), actor=ACTOR)


def test_a_copy_of_the_live_version_changes_nothing_for_any_period():
    version = rich_version()
    world = make_world(version=version, now=at("2026-06-16 00:00"))
    live(world)
    run, result = backtest(draft_like(version), world)
    assert (result.periods, result.skipped, result.lines) == (4, [], [])
    assert (result.before, result.difference) == (invoiced(world), Decimal(0))
    assert result.before == Decimal("466.21")
