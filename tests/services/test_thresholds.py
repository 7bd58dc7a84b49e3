"""Thresholds: each is told of once, in the transaction that reaches it, whatever reaches it and however many come at once."""

import json
import logging
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import pytest
from django.db import IntegrityError, connection, transaction

from billing_site.database import uuid7
from invoices.services.advancing import advance
from invoices.services.due import run_due
from invoices.services.subscribing import start_subscription
from metering.models import (
    CreditGrant,
    MeterBalance,
    SegmentTotal,
    ThresholdCrossing,
    ThresholdWatch,
    UsageEvent,
)
from metering.selectors.balances import balances_of_tenants
from metering.selectors.placement import forget_placements, remembered_placement
from metering.services import watching
from metering.services.grants import GrantTerms, grant_credit, void_grant
from metering.services.ingest import record_events
from metering.services.locking import lock_pools
from metering.services.opening import open_due_periods
from metering.services.requests import NewEvent, Record
from metering.services.reversing import reverse_event
from metering.services.tenant_thresholds import set_thresholds
from subscriptions.models import Meter, OutboxMessage, Subscription
from subscriptions.services import tenants
from subscriptions.services.tenants import update_tenant
from tests.races import together
from tests.world import ACTOR, JUNE, PER_TOKEN, World, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


def told(world: World) -> list[tuple[str, str, str]]:
    """Return what was told: threshold, what had come to it, and where its line lay. The outbox says the same."""
    crossings = list(ThresholdCrossing.objects.filter(tenant=world.tenant).order_by("pk"))
    messages = OutboxMessage.objects.filter(tenant=world.tenant, type="usage.threshold_reached")
    assert sorted(message.payload["id"] for message in messages) == sorted(str(one.public_id) for one in crossings)
    return [(one.threshold, f"{one.value.normalize():f}", f"{one.line.normalize():f}") for one in crossings]


def world_with(*thresholds, tenant=(), **terms) -> World:
    make_meter()
    version = publish("growth", charges=[charge(thresholds=list(thresholds), **terms)])
    return make_world(version=version, thresholds=tenant)


def test_a_percentage_is_told_of_by_the_event_that_reaches_it_and_by_no_later_one():
    world = world_with({"percent": 80}, {"percent": 100})
    world.use(7999)
    assert told(world) == []
    world.use(1)
    assert told(world) == [("percent:80:period", "8000", "8000")]
    world.use(500)
    assert len(told(world)) == 1
    world.use(4000)
    assert told(world)[1:] == [("percent:100:period", "12500", "10000")]


def test_one_event_may_reach_several():
    world = world_with({"percent": 50}, {"quantity": "10000"}, {"amount": "1"}, {"amount": "1.0002"})
    world.use(15000)
    assert told(world) == [
        ("amount:1:period", "1", "1"),
        ("percent:50:period", "15000", "5000"),
        ("quantity:10000:period", "15000", "10000"),
    ]


def test_the_message_says_what_was_reached(caplog):
    world = world_with({"percent": 80})
    with caplog.at_level(logging.INFO, logger="metering.services.thresholds"):
        world.use(8100)
    period = world.subscription.periods.get()
    payload = OutboxMessage.objects.get(type="usage.threshold_reached").payload
    assert payload == {
        "id": str(ThresholdCrossing.objects.get().public_id),
        "meter": "tokens",
        "dimensions": {},
        "period": str(period.public_id),
        "threshold": {"percent": "80", "once": "period"},
        "line": "8000",
        "value": "8100",
        "at": "2026-06-01T00:00:00+00:00",
    }
    [line] = [record.getMessage() for record in caplog.records if record.name == "metering.services.thresholds"]
    assert "has reached a threshold" in line
    assert payload["id"] in line


def test_the_worked_example_of_the_documentation_is_what_happens():
    page = (Path(__file__).parents[2] / "docs/thresholds.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| 2026-")
    ]
    thresholds = [{"percent": 80}, {"percent": 100}, {"quantity": "25000", "once": "life"}, {"amount": "1"}]
    assert f'"thresholds": {json.dumps(thresholds)}' in page
    world = world_with(*thresholds, tenant=[{"amount": "2"}])
    assert len(rows) == 6
    for day, tokens, used, costs, expected in rows:
        before = len(told(world))
        run_advance(world, day)
        world.use(tokens)
        names = [
            one.replace(":period", "").replace(":life", " for life").replace(":", " ") for one, _, _ in told(world)
        ]
        assert ", ".join(names[before:]) == expected, day
        [view] = balances_of_tenants([world.tenant.code], wall=world.now)[world.tenant.code].views
        assert (view.used, view.overage_amount_precise) == (Decimal(used), Decimal(costs)), day


def test_nothing_is_told_of_what_is_rolled_back():
    world = world_with({"percent": 80})
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        world.use(9000)
        assert len(told(world)) == 1
        raise ZeroDivisionError
    assert told(world) == []
    world.use(9000)
    assert len(told(world)) == 1


def test_what_falls_below_and_comes_back_is_told_once():
    world = world_with({"percent": 80}, {"amount": "0.5"})
    world.use(15000)
    reverse_event(event_id=UsageEvent.objects.get().pk, reason="sent in error", actor=ACTOR)
    world.use(15000)
    assert [threshold for threshold, _, _ in told(world)] == ["amount:0.5:period", "percent:80:period"]


def test_a_repeat_and_an_ambiguous_commit_tell_nothing_twice():
    world = world_with({"percent": 80})
    request = Record([world.event(9000, id="once")], datetime.fromisoformat("2026-06-02T00:00:00Z"))
    posting_id = uuid7()
    assert record_events([request], posting_id=posting_id)[0].outcomes[0].status == "accepted"
    assert record_events([request], posting_id=posting_id)[0].outcomes[0].status == "accepted"
    assert record_events([request])[0].outcomes[0].status == "duplicate"
    assert len(told(world)) == 1


def test_a_period_begins_anew_and_a_life_does_not():
    world = world_with({"percent": 80}, {"percent": 90, "once": "life"})
    world.use(9500)
    advance(clock_id=world.clock.pk, to=at("2026-07-02"), actor=ACTOR)
    world.use(9500)
    assert [threshold for threshold, _, _ in told(world)] == [
        "percent:80:period",
        "percent:90:life",
        "percent:80:period",
    ]


def test_over_a_life_quantities_and_amounts_add_up():
    world = world_with({"quantity": "25000", "once": "life"}, {"amount": "1", "once": "life"})
    world.use(13000)
    advance(clock_id=world.clock.pk, to=at("2026-07-02"), actor=ACTOR)
    world.use(11999)
    assert told(world) == []
    world.use(1)
    assert told(world) == [("amount:1:life", "1", "1"), ("quantity:25000:life", "25000", "25000")]
    advance(clock_id=world.clock.pk, to=at("2026-08-02"), actor=ACTOR)
    world.use(50000)
    assert len(told(world)) == 2


def test_with_nothing_included_the_first_unit_reaches_every_percentage():
    world = world_with({"percent": 80}, {"percent": 1000}, included="0")
    assert told(world) == []
    world.use(1)
    assert told(world) == [("percent:1000:period", "1", "0"), ("percent:80:period", "1", "0")]


def test_pools_are_told_apart():
    make_meter(dimensions=["model"])
    charges = [
        charge(thresholds=[{"percent": 50}]),
        charge(dimensions={"model": "opus"}, included="100", thresholds=[{"percent": 50}]),
    ]
    world = make_world(version=publish("pools", charges=charges))
    world.use(60, model="opus")
    assert told(world) == [("percent:50:period", "60", "50")]
    assert OutboxMessage.objects.get(type="usage.threshold_reached").payload["dimensions"] == {"model": "opus"}
    world.use(5000, model="haiku")
    assert told(world)[1:] == [("percent:50:period", "5000", "5000")]


def test_a_price_of_several_bands_reaches_an_amount_too():
    graduated = {"model": "graduated", "bands": [{"up_to": 10, "unit_amount": "1"}, {"unit_amount": "0.5"}]}
    world = world_with({"amount": "12"}, included="100", price=graduated)
    world.use(113)
    assert told(world) == []
    world.use(1)
    assert told(world) == [("amount:12:period", "12", "12")]


# Tenants


def two_meters(*thresholds) -> World:
    make_meter()
    make_meter("calls", event_type="api.call", value_property="number")
    charges = [charge(included="0"), {"kind": "usage", "meter": "calls", "included": "0", "price": PER_TOKEN}]
    return make_world(version=publish("two", charges=charges), thresholds=thresholds)


def call(world: World, number: int):
    event = NewEvent(world.tenant.code, "test", f"c{uuid7()}", "api.call", None, {"number": number})
    return world.record(event)


def test_a_tenant_s_amount_is_over_all_meters():
    world = two_meters({"amount": "2.00"})
    world.use(5000)
    call(world, 4999)
    assert told(world) == []
    call(world, 1)
    assert told(world) == [("amount:2:period", "2", "2")]
    assert OutboxMessage.objects.get(type="usage.threshold_reached").payload["meter"] is None
    advance(clock_id=world.clock.pk, to=at("2026-07-02"), actor=ACTOR)
    call(world, 10000)
    assert len(told(world)) == 2


def test_a_tenant_s_percentage_is_of_its_spend_cap_as_it_then_is():
    world = two_meters({"percent": 50}, {"percent": 100})
    world.use(5000)
    assert told(world) == []  # without a cap there is nothing to reach
    update_tenant(tenant_id=world.tenant.pk, changes={"spend_cap": Decimal("4.00")}, actor=ACTOR)
    call(world, 4999)
    assert told(world) == []
    call(world, 1)
    assert told(world) == [("percent:50:period", "2", "2")]
    update_tenant(tenant_id=world.tenant.pk, changes={"spend_cap": Decimal("2.50")}, actor=ACTOR)
    call(world, 2500)
    assert told(world)[1:] == [("percent:100:period", "2.5", "2.5")]


def test_a_tenant_s_life_goes_on_over_periods():
    world = two_meters({"amount": "2", "once": "life"})
    world.use(5000)
    advance(clock_id=world.clock.pk, to=at("2026-07-02"), actor=ACTOR)
    call(world, 6000)
    assert told(world) == [("amount:2:life", "2.2", "2")]


def test_a_threshold_that_is_already_passed_when_it_is_set_is_told_of_by_the_next_movement():
    world = two_meters()
    world.use(20000)
    set_thresholds(tenant=world.tenant, thresholds=[{"amount": "2"}], actor=ACTOR)
    assert told(world) == []
    world.use(1)
    assert told(world) == [("amount:2:period", "4.0002", "2")]


def test_a_reversal_is_a_movement_too():
    world = two_meters()
    world.use(20000)
    call(world, 1)
    set_thresholds(tenant=world.tenant, thresholds=[{"amount": "2"}], actor=ACTOR)
    reverse_event(event_id=UsageEvent.objects.get(type="api.call").pk, reason="sent in error", actor=ACTOR)
    assert told(world) == [("amount:2:period", "4", "2")]


def test_what_cannot_be_priced_reaches_no_amount_and_holds_up_neither_its_usage_nor_other_tenants():
    package = {"model": "package", "size": "10", "amount": "1"}
    broken = world_with({"amount": "45"}, {"percent": 110}, tenant=[{"amount": "45"}], price=package)
    broken.use(10400)
    healthy = make_world(version=broken.subscription.version)
    totals = SegmentTotal.objects.filter(balance=broken.balance())
    totals.update(quantity=1)
    [report] = record_events(
        [Record([broken.event(600), healthy.event(11000)], datetime.fromisoformat("2026-06-01T00:00:00Z"))]
    )
    assert [outcome.status for outcome in report.outcomes] == ["accepted", "accepted"]
    assert [threshold for threshold, _, _ in told(broken)] == ["percent:110:period"]
    assert [threshold for threshold, _, _ in told(healthy)] == ["amount:45:period", "percent:110:period"]
    totals.update(quantity=11000)
    broken.use(1)
    assert sorted(threshold for threshold, _, _ in told(broken)) == [*["amount:45:period"] * 2, "percent:110:period"]


# At once


def test_of_many_that_reach_it_at_once_one_tells():
    world = world_with({"percent": 80}, tenant=[{"amount": "0.1"}])
    results = together(*[lambda: world.use(1500)] * 8)
    assert [result.outcomes[0].status for result in results] == ["accepted"] * 8
    assert sorted(threshold for threshold, _, _ in told(world)) == ["amount:0.1:period", "percent:80:period"]


def while_uncommitted(first, second):
    """Begin `second` while the transaction of `first` is open, let it wait for that, and then commit."""
    thread = Thread(target=lambda: (second(), connection.close()))
    with transaction.atomic():
        first()
        thread.start()
        until = monotonic() + 10
        while not is_somebody_waiting() and monotonic() < until:
            sleep(0.02)
        assert is_somebody_waiting(), "the second does not wait for the first"
    thread.join(timeout=20)
    assert not thread.is_alive()


def is_somebody_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE NOT l.granted AND a.datname = current_database())"
        )
        return cursor.fetchone()[0]


def test_two_meters_that_reach_a_tenant_s_amount_only_together_see_each_other():
    world = two_meters({"amount": "2"})
    while_uncommitted(lambda: world.use(6000), lambda: call(world, 6000))
    assert told(world) == [("amount:2:period", "2.4", "2")]


def test_what_opens_while_a_tenant_s_thresholds_change_waits_and_so_is_remembered_with_the_new_ones(wall_tenant):
    tenant = wall_tenant("wall-4", with_thresholds=False)
    subscription = Subscription.objects.get(tenant=tenant)
    july = at("2026-07-01 00:00")
    while_uncommitted(
        lambda: set_thresholds(tenant=tenant, thresholds=[{"amount": "1"}], actor=ACTOR),
        lambda: open_due_periods(subscription_id=subscription.pk, now=july),
    )
    record_events([Record([tokens_of(tenant, 20000)], july)])
    assert ThresholdCrossing.objects.get().threshold == "amount:1:period"


def test_who_subscribes_while_a_tenant_s_thresholds_change_waits_too(wall_tenant):
    wall_tenant("wall-5", with_thresholds=True)
    version = Subscription.objects.get().version
    tenant = tenants.create_tenant(code="wall-6", name="Wall", actor=ACTOR)
    terms = {"starts_at": JUNE, "anchor_at": JUNE, "now": JUNE, "actor": ACTOR}
    while_uncommitted(
        lambda: set_thresholds(tenant=tenant, thresholds=[{"amount": "1"}], actor=ACTOR),
        lambda: start_subscription(tenant=tenant, version=version, **terms),
    )
    use(tenant, 20000)
    assert ThresholdCrossing.objects.filter(meter=None).get().threshold == "amount:1:period"


def test_two_periods_that_reach_a_percentage_for_life_at_once_tell_of_it_once():
    world = world_with({"percent": 80, "once": "life"})
    run_advance(world, "2026-07-01 00:30")
    while_uncommitted(
        lambda: world.use(9000, time=at("2026-07-01 00:10")), lambda: world.use(8500, time=at("2026-06-20"))
    )
    assert told(world) == [("percent:80:life", "9000", "8000")]


def run_advance(world: World, to: str):
    return advance(clock_id=world.clock.pk, to=at(to), actor=ACTOR)


# Grants and time


def grant(world: World, quantity: int, *, expires_at: datetime) -> CreditGrant:
    """Give the pool a grant that covers what the running period has used until then."""
    terms = GrantTerms(
        meter=Meter.objects.get(),
        dimensions={},
        kind="promotional",
        quantity=Decimal(quantity),
        priority=0,
        effective_at=world.balance().period.starts_at,
        expires_at=expires_at,
        key="",
    )
    made, _ = grant_credit(tenant=world.tenant, terms=terms, now=world.now, actor=ACTOR)
    return made


def look(world: World):
    """Look again as a grant's maker has done, in a transaction."""
    with transaction.atomic():
        locked = lock_pools([world.balance().pk])
        return watching.look(locked, now_of=dict.fromkeys(locked, world.now))


def test_a_grant_that_ends_unused_reaches_what_its_units_kept_away():
    world = world_with({"percent": 80}, {"percent": 100}, included="0")
    grant(world, 100, expires_at=at("2026-06-15"))
    assert look(world) == []
    world.use(50)
    assert told(world) == []
    journal = run_advance(world, "2026-06-20")
    assert [(entry.at, entry.what) for entry in journal if entry.what == "look_at_thresholds"] == [
        (at("2026-06-15"), "look_at_thresholds")
    ]
    assert told(world) == [("percent:100:period", "50", "50"), ("percent:80:period", "50", "40")]
    assert {(one.cause, one.crossed_at) for one in ThresholdCrossing.objects.all()} == {("time", at("2026-06-15"))}
    assert ThresholdWatch.objects.get().due_at is None
    world.use(50)
    assert len(told(world)) == 2


def test_an_event_after_a_grant_s_end_may_come_before_the_look_and_the_look_tells_nothing_again():
    world = world_with({"percent": 80}, included="0")
    grant(world, 100, expires_at=at("2026-06-15"))
    look(world)
    world.use(50)
    type(world.clock).objects.update(now=at("2026-06-15 00:00"))
    world.use(1)
    assert [threshold for threshold, _, _ in told(world)] == ["percent:80:period"]
    run_due(until=at("2026-06-15"), clock=type(world.clock).objects.get())
    assert len(told(world)) == 1


def test_a_grant_that_is_taken_back_reaches_at_once():
    world = world_with({"percent": 80}, included="0")
    made = grant(world, 100, expires_at=at("2026-06-25"))
    world.use(50)
    type(world.clock).objects.update(now=world.now + timedelta(seconds=1))
    void_grant(grant=made, reason="why", now=world.now, actor=ACTOR)
    assert look(world) == []
    assert told(world) == [("percent:80:period", "50", "40")]
    assert ThresholdCrossing.objects.get().cause == "grant"


def test_a_percentage_that_a_grant_puts_out_of_reach_can_be_reached_again():
    world = world_with({"percent": 80}, {"percent": 50, "once": "life"}, included="0")
    grant(world, 100, expires_at=at("2026-06-15"))
    world.use(50)
    run_advance(world, "2026-06-16")
    assert told(world) == [("percent:50:life", "50", "50"), ("percent:80:period", "50", "40")]
    grant(world, 50, expires_at=at("2026-06-25"))
    assert look(world) == []
    world.use(29)
    assert len(told(world)) == 2
    world.use(1)
    assert told(world)[2:] == [("percent:80:period", "80", "80")]
    assert look(world) == []


def test_the_looks_of_a_tenant_come_in_order_and_end_with_the_grants():
    world = world_with({"percent": 80}, included="0")
    grant(world, 100, expires_at=at("2026-06-15"))
    look(world)
    with transaction.atomic():
        watching.look_later({world.tenant.pk: at("2026-06-10")})
        watching.look_later({world.tenant.pk: at("2026-06-12")})
    journal = run_advance(world, "2026-06-30")
    assert [entry.at for entry in journal if entry.what == "look_at_thresholds"] == [at("2026-06-10"), at("2026-06-15")]
    assert told(world) == []


def test_usage_in_the_grace_is_judged_by_what_the_period_included():
    world = world_with({"percent": 80})
    run_advance(world, "2026-07-01 00:30")
    world.use(10, time=at("2026-06-20"))
    assert told(world) == []
    world.use(7990, time=at("2026-06-20"))
    assert told(world) == [("percent:80:period", "8000", "8000")]


def test_late_usage_reaches_quantities_and_amounts_and_no_percentage():
    world = world_with({"percent": 80}, {"quantity": "100"}, {"amount": "0.01"}, tenant=[{"amount": "0.02"}])
    run_advance(world, "2026-07-03")
    world.use(100, time=at("2026-06-20"))
    assert sorted(told(world)) == [
        ("amount:0.01:period", "0.02", "0.01"),
        ("amount:0.02:period", "0.02", "0.02"),
        ("quantity:100:period", "100", "100"),
    ]
    assert {one.period.sequence for one in ThresholdCrossing.objects.select_related("period")} == {1}


# What is remembered, and what is kept


@pytest.fixture
def wall_tenant():
    forget_placements()
    make_meter()
    make_meter("calls", event_type="api.call", value_property="number")
    calls = {"kind": "usage", "meter": "calls", "included": "0", "price": PER_TOKEN}
    version = publish("wall", charges=[charge(thresholds=[{"percent": 80}]), calls])
    plain = publish("plain")

    def make(code, *, with_thresholds):
        tenant = tenants.create_tenant(code=code, name="Wall", actor=ACTOR)
        terms = {"starts_at": JUNE, "anchor_at": JUNE, "now": JUNE, "actor": ACTOR}
        start_subscription(tenant=tenant, version=version if with_thresholds else plain, **terms)
        return tenant

    yield make
    forget_placements()


def tokens_of(tenant, tokens):
    return NewEvent(tenant.code, "wall", str(uuid7()), "llm.completion", None, {"total_tokens": tokens})


def use(tenant, tokens):
    record_events([Record([tokens_of(tenant, tokens)], JUNE + timedelta(days=1))])


def watch_of(tenant):
    placement = remembered_placement(tenant.code)
    assert placement is not None
    [balance] = [
        one for one in placement.periods[0].balances.values() if one.meter_id == Meter.objects.get(code="tokens").pk
    ]
    return balance.watch


def test_who_has_no_thresholds_has_nothing_to_look_at_until_some_are_set(wall_tenant):
    tenant = wall_tenant("wall-1", with_thresholds=False)
    use(tenant, 20000)
    assert watch_of(tenant) is None
    set_thresholds(tenant=tenant, thresholds=[{"amount": "1"}], actor=ACTOR)
    use(tenant, 1)
    assert ThresholdCrossing.objects.get().threshold == "amount:1:period"
    set_thresholds(tenant=tenant, thresholds=[], actor=ACTOR)
    use(tenant, 1)
    assert watch_of(tenant) is None


def test_what_was_told_is_remembered_once_it_is_stored_for_good(wall_tenant):
    tenant = wall_tenant("wall-2", with_thresholds=True)
    use(tenant, 8000)
    assert watch_of(tenant).told_of_pool == set()
    use(tenant, 1)
    assert watch_of(tenant).told_of_pool == {"percent:80:period"}
    use(tenant, 1)
    assert ThresholdCrossing.objects.count() == 1


def test_what_two_meters_reach_in_one_request_is_not_remembered_before_it_is_stored(wall_tenant):
    tenant = wall_tenant("wall-3", with_thresholds=True)
    set_thresholds(tenant=tenant, thresholds=[{"amount": "1"}], actor=ACTOR)

    def use_both():
        events = [
            NewEvent(tenant.code, "wall", str(uuid7()), type, None, {"total_tokens": 15000, "number": 5000})
            for type in ("llm.completion", "api.call")
        ]
        record_events([Record(events, JUNE + timedelta(days=1))])

    use(tenant, 1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        use_both()
        assert ThresholdCrossing.objects.filter(meter=None).count() == 1
        raise ZeroDivisionError
    use_both()
    assert ThresholdCrossing.objects.filter(meter=None).count() == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda: ThresholdCrossing.objects.update(value=1),
        lambda: ThresholdCrossing.objects.all().delete(),
        lambda: ThresholdCrossing.objects.bulk_create(
            [
                ThresholdCrossing(
                    **{
                        name: getattr(one, name)
                        for name in (
                            "tenant",
                            "meter",
                            "period",
                            "threshold",
                            "once",
                            "cause",
                            "line",
                            "value",
                            "crossed_at",
                        )
                    }
                )
                for one in ThresholdCrossing.objects.all()
            ]
        ),
    ],
)
def test_the_database_keeps_a_crossing_and_takes_it_once_whoever_writes(write):
    world = world_with({"percent": 80})
    world.use(8000)
    with pytest.raises(IntegrityError), transaction.atomic():
        write()


def test_the_epochs_of_a_tenant_s_balances_rise_with_its_thresholds():
    world = two_meters()
    set_thresholds(tenant=world.tenant, thresholds=[{"amount": "2"}], actor=ACTOR)
    set_thresholds(tenant=world.tenant, thresholds=[{"amount": "2.0"}], actor=ACTOR)
    assert set(MeterBalance.objects.values_list("epoch", flat=True)) == {1}
