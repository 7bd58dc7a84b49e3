"""Backtests: nothing changes under the same terms, and under others the figures are those of really being on them."""

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from billing_site.http.problems import Invalid
from billing_site.http.wire import timestamp
from invoices.models import BacktestChunk, BacktestResult, BacktestRun, Invoice, InvoiceLine
from invoices.selectors.backtests import GuardFigures, guard_figures
from invoices.services import backtesting
from invoices.services.advancing import advance
from invoices.services.changing import NOW, Asked, change_tier
from invoices.services.subscribing import cancel_subscription
from metering.services.grants import GrantTerms, grant_credit
from metering.services.reversing import reverse_event
from subscriptions.models import Meter, Tenant, TierVersion
from subscriptions.selectors.catalog import ANSWERED_MEMBERS, get_version, version_document
from subscriptions.services import catalog
from tests.races import together
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


CHEAPER = [
    charge(
        included="3000",
        rollover_max="900",
        rollover_periods=2,
        price={"model": "per_unit", "unit_amount": "0.0004", "amount_min": "2.5"},
    ),
    charge(dimensions={"model": "opus"}, included="1000", price=BANDED),
    charge(dimensions={"model": "haiku"}, included="700", price={"model": "package", "size": "200", "amount": "0.10"}),
    charge(meter="calls", included="1", price={"model": "per_unit", "unit_amount": "0.02"}),
    charge(meter="seats", included="0", price={"model": "per_unit", "unit_amount": "4.5"}),
]


def lines_of(world):
    """Return the twin's figures: what each of its closed periods was billed, by kind, meter and dimensions; fees without a meter."""
    found = {}
    lines = InvoiceLine.objects.filter(invoice__tenant=world.tenant, period__closed_at__isnull=False)
    for line in lines.select_related("charge__meter", "period"):
        meter, dimensions = (line.charge.meter.code, line.charge.dimensions) if line.charge else (None, {})
        key = (
            timestamp(line.period.starts_at),
            line.kind if meter else "fee",
            meter,
            tuple(sorted(dimensions.items())),
        )
        found[key] = found.get(key, Decimal(0)) + line.amount
    return {key: amount for key, amount in found.items() if amount}


def test_what_would_have_been_is_what_a_twin_on_the_draft_was_really_billed():
    version = rich_version()
    world = make_world(version=version, now=at("2026-06-16 00:00"))
    live(world)
    was = lines_of(world)
    draft = draft_like(version, charges=CHEAPER, fee="89.00")
    run, result = backtest(draft, world)
    catalog.publish(version_id=draft.pk, now=JUNE, actor=ACTOR)
    draft.refresh_from_db()
    twin = make_world(version=draft, now=at("2026-06-16 00:00"))
    live(twin)
    really = lines_of(twin)
    assert (result.before, result.after) == (invoiced(world), invoiced(twin))
    assert result.difference == Decimal("-17.88")
    compared = {
        (line["period"]["starts_at"], line["kind"], line["meter"], tuple(sorted(line["dimensions"].items()))): (
            Decimal(line["before"]),
            Decimal(line["after"]),
        )
        for line in result.lines
    }
    both = {key: (was.get(key, Decimal(0)), really.get(key, Decimal(0))) for key in {*was, *really}}
    assert compared == {key: pair for key, pair in both.items() if pair[0] != pair[1]}
    assert {key[1] for key in compared} == {"fee", "overage", "minimum"}


def simple(code="simple", **terms):
    if not Meter.objects.filter(code="tokens").exists():
        make_meter(dimensions=["model"])
    return publish(code, **terms)


def change(world, version, **choices):
    asked = Asked(to_version=version, when=NOW, choices=choices)
    change_tier(subscription_id=world.subscription.pk, asked=asked, now=world.now, actor=ACTOR, read=lambda one: None)


def test_a_change_between_versions_of_the_tier_is_replayed_as_one_version_throughout():
    old = simple(fee="30.00")
    new = draft_like(old, fee="60.00")
    catalog.publish(version_id=new.pk, now=JUNE, actor=ACTOR)
    new.refresh_from_db()
    world = make_world(version=old, now=at("2026-06-16 00:00"))
    world.use(25_000, time=at("2026-06-02 00:00"))
    change(world, new)
    to(world, "2026-07-03 00:00")
    _, result = backtest(draft_like(new, fee="90.00"), world)
    # 30.00 − 15.00 + 30.00 for the halves of June, and 15,000 tokens at $0.0002.
    assert (result.before, result.after, result.skipped) == (Decimal("48"), Decimal("93"), [])


def test_a_period_with_a_change_to_another_tier_is_left_out_with_its_reason():
    here, elsewhere = simple(), simple("elsewhere", fee="20.00")
    world = make_world(version=here)
    to(world, "2026-07-11 00:00")
    change(world, elsewhere)
    to(world, "2026-08-03 00:00")
    run, result = backtest(draft_like(here, fee="100.00"), world)
    assert [(skipped["period"]["starts_at"], skipped["reason"]) for skipped in result.skipped] == [
        ("2026-07-01T00:00:00Z", "other_tier")
    ]
    assert (result.before, result.after, run.summary["skipped"]) == (Decimal("99"), Decimal("100"), 1)


def test_what_another_period_burned_of_a_grant_stays_burned():
    here, elsewhere = simple(charges=[charge(included="100")]), simple("elsewhere", charges=[charge(included="0")])
    world = make_world(version=here)
    grant(world, "1000", effective_at=JUNE, expires_at=None)
    world.use(500)
    to(world, "2026-07-01 12:00")
    change(world, elsewhere)
    world.use(300)
    to(world, "2026-08-01 12:00")
    change(world, here)
    to(world, "2026-09-01 12:00")
    world.use(800)
    to(world, "2026-10-03 00:00")
    # In June 400 were burned of the grant, in July and August 300: of September's 800 the allowance and 300 of it cover half.
    _, result = backtest(
        draft_like(here, charges=[charge(included="0", price={"model": "per_unit", "unit_amount": "1"})]), world
    )
    september = [line for line in result.lines if line["period"]["starts_at"] == "2026-09-01T00:00:00Z"]
    assert [(line["before"], line["after"]) for line in september] == [("0.08", "600.00")]


def test_a_trial_is_replayed_on_the_terms_for_trials():
    version = simple(trial_days=10, trial_overage="bill", charges=[charge(included="100", trial_included="50")])
    world = make_world(version=version)
    world.use(1_050)
    to(world, "2026-07-13 00:00")
    _, same = backtest(draft_like(version), world)
    dearer = charge(included="100", trial_included="250", price={"model": "per_unit", "unit_amount": "0.01"})
    _, result = backtest(draft_like(version, charges=[dearer]), world)
    assert (same.lines, same.before) == ([], Decimal("99.20"))
    assert (result.before, result.after) == (Decimal("99.20"), Decimal("107.00"))


def test_a_cancelled_period_gives_back_its_share_of_the_other_fee():
    version = simple()
    world = make_world(version=version, now=at("2026-06-10 12:00"))
    cancel_subscription(subscription_id=world.subscription.pk, when="now", credit="unused", now=world.now, actor=ACTOR)
    to(world, "2026-06-12 00:00")
    _, same = backtest(draft_like(version), world)
    _, result = backtest(draft_like(version, fee="300.00"), world)
    assert (same.lines, same.before) == ([], Decimal("33"))
    assert (result.before, result.after) == (Decimal("33"), Decimal("100"))


def test_a_free_tier_that_is_given_a_fee_pays_it_in_every_period():
    version = simple(fee="0.00")
    world = make_world(version=version)
    to(world, "2026-08-03 00:00")
    _, result = backtest(draft_like(version, fee="5.00"), world)
    assert (result.before, result.after) == (Decimal("0"), Decimal("10"))


CLAMPED = {"model": "percentage", "rate": "2.9", "minimum_per_event": "1.75", "maximum_per_event": "20"}
OTHER = {"model": "percentage", "rate": "2.9", "minimum_per_event": "2", "maximum_per_event": "20"}


@pytest.mark.parametrize(
    ("terms", "reasons"),
    [
        ({}, set()),
        ({"charges": [charge(included="0", price=OTHER)]}, {"bounds_per_event"}),
        (
            {"charges": [charge(included="0", price=CLAMPED), charge(meter="calls", included="0")]},
            {"meter_not_counted"},
        ),
        ({"interval": "year"}, {"other_cadence"}),
        ({"fee_every": 3}, {"other_cadence"}),
    ],
)
def test_what_the_aggregates_cannot_answer_is_left_out(terms, reasons):
    make_meter("calls", aggregation="count", value_property=None)
    version = simple(charges=[charge(included="0", price=CLAMPED)])
    world = make_world(version=version, now=at("2026-06-05 00:00"))
    world.use(10, time=at("2026-06-02 00:00"))
    world.use(1_000, time=at("2026-06-03 00:00"))
    to(world, "2026-07-03 00:00")
    _, result = backtest(draft_like(version, **terms), world)
    assert {skipped["reason"] for skipped in result.skipped} == reasons
    assert (result.before, result.difference) == (Decimal(0) if reasons else Decimal("120.75"), Decimal(0))


def test_usage_does_not_move_to_grants_of_a_pool_from_which_it_was_not_told_apart():
    own = charge(dimensions={"model": "opus"}, included="10")
    version = simple(charges=[charge(), own])
    world = make_world(version=version, now=at("2026-06-20 00:00"))
    grant(world, "500", effective_at=at("2026-06-10 00:00"), expires_at=None)
    world.use(700, time=at("2026-06-05 00:00"), model="opus")
    to(world, "2026-07-03 00:00")
    _, result = backtest(draft_like(version, charges=[charge()]), world)
    assert [skipped["reason"] for skipped in result.skipped] == ["pools_cut_otherwise"]


def test_a_draft_that_is_edited_meanwhile_fails_the_run():
    version = simple()
    world = make_world(version=version)
    to(world, "2026-07-03 00:00")
    draft = draft_like(version)
    run = backtesting.start_backtest(
        version=draft, periods=1, from_at=None, to_at=None, test_clock=world.clock, now=JUNE, actor=ACTOR
    )
    document = {"currency": "USD", "interval": "month", "fee": "1.00", "charges": [charge()]}
    catalog.save_draft(version_id=draft.pk, expected_revision=draft.revision, document=document, actor=ACTOR)
    backtesting.run_backtests()
    run.refresh_from_db()
    assert (run.status, run.failure) == (
        "failed",
        "The draft was edited while the backtest ran; ask for another.",
    )


def several(number, version):
    """Return this many worlds on one clock whose June has closed, with 1,000 tokens beyond the allowance."""
    worlds = [make_world(version=version) for _ in range(number)]
    Tenant.objects.filter(pk__in=[world.tenant.pk for world in worlds]).update(test_clock=worlds[0].clock)
    for world in worlds:
        world.clock = worlds[0].clock
        world.use(11_000)
    to(worlds[0], "2026-07-03 00:00")
    return worlds


def start(version, clock=None, **terms):
    return backtesting.start_backtest(version=version, periods=1, test_clock=clock, now=JUNE, actor=ACTOR, **terms)


@pytest.fixture
def one_by_one(monkeypatch):
    monkeypatch.setattr(backtesting, "CHUNK_TENANTS", 1)


def test_a_run_that_was_cut_off_goes_on_where_it_was(monkeypatch, one_by_one):
    version = simple()
    worlds = several(2, version)
    run = start(draft_like(version, fee="100.00"), worlds[0].clock)
    replayed = backtesting._replayed
    calls = []

    def dies_at_the_second(*given):
        calls.append(given)
        if len(calls) == 2:
            raise SystemExit
        return replayed(*given)

    monkeypatch.setattr(backtesting, "_replayed", dies_at_the_second)
    with pytest.raises(SystemExit):
        backtesting.run_backtests()
    assert BacktestResult.objects.filter(run=run).count() == 1
    assert backtesting.run_backtests() == 0, "its lease still runs"
    BacktestChunk.objects.update(leased_until=None)
    backtesting.run_backtests()
    run.refresh_from_db()
    assert (run.status, run.tenants_done, run.summary["difference"]) == ("done", 2, "2.00")


def test_several_workers_share_a_run_and_each_tenant_is_compared_once(one_by_one):
    version = simple()
    worlds = several(6, version)
    run = start(draft_like(version, fee="100.00"), worlds[0].clock)
    done = together(*[backtesting.run_backtests] * 3)
    run.refresh_from_db()
    assert (sum(done), run.status, run.tenants_done) == (6, "done", 6)
    assert (run.summary["tenants"], run.summary["difference"]) == (6, "6.00")
    assert not BacktestChunk.objects.exists()


def test_a_worker_that_was_too_slow_writes_nothing_twice(monkeypatch):
    version = simple()
    worlds = several(1, version)
    run = start(draft_like(version, fee="100.00"), worlds[0].clock)
    replayed = backtesting._replayed

    def overtaken(*given):
        monkeypatch.setattr(backtesting, "_replayed", replayed)
        BacktestChunk.objects.update(leased_until=None)
        [others] = together(backtesting.run_backtests)
        assert others == 1
        return replayed(*given)

    def slow(*given):
        # In its own transaction nothing can be written; the other worker has one of its own.
        return together(lambda: overtaken(*given))[0]

    monkeypatch.setattr(backtesting, "_replayed", slow)
    backtesting.run_backtests()
    run.refresh_from_db()
    assert (run.status, run.tenants_done, run.results.count()) == ("done", 1, 1)


def test_no_more_workers_than_allowed_are_at_it(monkeypatch, one_by_one):
    version = simple()
    worlds = several(3, version)
    start(draft_like(version), worlds[0].clock)
    monkeypatch.setattr(backtesting, "WORKERS_MAX", 2)
    chunks = BacktestChunk.objects.order_by("pk")
    chunks.filter(pk__in=[one.pk for one in chunks[:2]]).update(leased_until=Now() + timedelta(minutes=1))
    assert backtesting.run_backtests() == 0
    BacktestChunk.objects.update(leased_until=None)
    assert backtesting.run_backtests() == 3


def test_a_chunk_that_cannot_be_computed_fails_the_run_at_the_third_try(monkeypatch, caplog):
    version = simple()
    worlds = several(1, version)
    run = start(draft_like(version), worlds[0].clock)

    def broken(*given):
        raise ZeroDivisionError

    monkeypatch.setattr(backtesting, "_replayed", broken)
    for tries in (1, 2, 3):
        BacktestChunk.objects.update(leased_until=None)
        assert backtesting.run_backtests() == 1
        run.refresh_from_db()
        assert run.status == ("running" if tries < 3 else "failed")
    assert run.failure == "It could not be computed; the log has the reason."
    assert (run.finished_at is not None, BacktestChunk.objects.count()) == (True, 0)


def test_after_its_time_a_worker_leaves_the_rest_to_the_next_one(one_by_one):
    version = simple()
    worlds = several(3, version)
    start(draft_like(version), worlds[0].clock)
    assert [backtesting.run_backtests(seconds_max=0) for _ in range(4)] == [1, 1, 1, 0]


def test_where_there_is_nobody_to_compare_it_is_done_at_once():
    run = start(draft_like(simple()))
    assert (run.status, run.summary["tenants"], run.summary["worst"]) == ("done", 0, None)
    assert (run.summary["histogram"], run.summary["change_percent"]) == ([], None)


def test_chosen_tenants_are_compared_alone_in_whatever_time_they_live():
    version = simple()
    chosen, other, third = several(3, version)
    Tenant.objects.filter(pk=other.tenant.pk).update(test_clock=None)
    draft = draft_like(version, fee="100.00")
    run = start(draft, tenants=[other.tenant.code, chosen.tenant.code])
    backtesting.run_backtests()
    codes = {result.tenant.code for result in run.results.select_related("tenant")}
    assert codes == {chosen.tenant.code, other.tenant.code}
    with pytest.raises(Invalid) as refused:
        start(draft, tenants=[chosen.tenant.code, "nobody"])
    assert [(error.path, error.message) for error in refused.value.errors] == [
        ("tenants", "There is no tenant nobody.")
    ]
    with pytest.raises(Invalid):
        start(draft, chosen.clock, tenants=[chosen.tenant.code])


def test_tenants_are_chosen_by_what_stands_with_them():
    version = simple()
    first, second = several(2, version)
    Tenant.objects.filter(pk=second.tenant.pk).update(metadata={"plan": "old", "seats": 3})
    draft = draft_like(version)
    found = [
        start(draft, first.clock, metadata=metadata).tenants
        for metadata in ({"plan": "old"}, {"seats": 3}, {"seats": "3"}, {"plan": "old", "vip": True}, {})
    ]
    assert found == [1, 1, 0, 0, 2]


def test_what_a_run_says_to_guards_is_of_whole_bills():
    version = simple()
    worlds = several(2, version)
    worlds[1].use(40_000, time=at("2026-06-20 00:00"))
    run = start(draft_like(version, fee="109.00"), worlds[0].clock)
    backtesting.run_backtests()
    run.refresh_from_db()
    # 99.20 becomes 109.20, a rise of 10.08064… %; 107.20, with what came late, becomes 117.20. Together 206.40 rise by 9.68992… %.
    assert guard_figures(run) == GuardFigures(Decimal("10.0807"), Decimal("9.6899"))


def test_only_a_run_over_everybody_in_wall_time_speaks_for_a_tier_that_has_anybody_there():
    version = simple()
    worlds = several(2, version)
    draft = draft_like(version)
    runs = {
        "on a clock": start(draft, worlds[0].clock),
        "chosen": start(draft, tenants=[worlds[0].tenant.code]),
        "by notes": start(draft, worlds[0].clock, metadata={"a": "b"}),
    }
    assert guard_figures(runs["on a clock"]) is None, "it is not done"
    backtesting.run_backtests()
    speaking = {}
    for moment in ("nobody in wall time", "somebody in wall time"):
        for name, run in runs.items():
            run.refresh_from_db()
            speaking[moment, name] = guard_figures(run) is not None
        Tenant.objects.filter(pk=worlds[1].tenant.pk).update(test_clock=None)
    assert [key for key, speaks in speaking.items() if speaks] == [("nobody in wall time", "on a clock")]
    whole = start(draft)
    backtesting.run_backtests()
    whole.refresh_from_db()
    assert guard_figures(whole) == GuardFigures(Decimal(0), Decimal(0))


def test_nothing_but_its_own_rows_and_its_verdict_is_written_and_all_is_read_and_computed_where_nothing_can_be(
    monkeypatch,
):
    version = rich_version()
    world = make_world(version=version, now=at("2026-06-16 00:00"))
    live(world)
    statements, rights = [], []

    def see(execute, sql, params, many, context):
        statements.append(sql)
        return execute(sql, params, many, context)

    def rights_now():
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user, current_setting('transaction_read_only')")
            rights.append(cursor.fetchone())

    def watched(name):
        real = getattr(backtesting, name)

        def between(*given, **named):
            rights_now()
            answer = real(*given, **named)
            rights_now()
            return answer

        monkeypatch.setattr(backtesting, name, between)

    watched("pasts")
    watched("replay")
    draft = draft_like(version, charges=CHEAPER)
    run = backtesting.start_backtest(version=draft, periods=4, test_clock=world.clock, now=JUNE, actor=ACTOR)
    with connection.execute_wrapper(see):
        backtesting.run_backtests()
    run.refresh_from_db()
    assert run.status == "done"
    tables = [re.match(r'\s*(?:INSERT INTO|UPDATE|DELETE FROM) "?(\w+)', sql) for sql in statements]
    assert {found.group(1) for found in tables if found} == {
        "invoices_backtestrun",
        "invoices_backtestchunk",
        "invoices_backtestresult",
        # What the run says to its tier's guards.
        "subscriptions_backtestverdict",
    }
    role = settings.DATABASE_READER_ROLE or settings.DATABASES["default"]["USER"]
    assert rights == [(role, "on")] * 4
