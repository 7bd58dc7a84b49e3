"""Recording events: each counted once, against the allowance of its time, in one transaction."""

from datetime import timedelta
from decimal import Decimal

import pytest

from metering.models import EventKey, LedgerEntry, UsageEvent
from tests.world import JUNE, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db


def statuses(report):
    return [outcome.status for outcome in report.outcomes]


def test_an_event_is_covered_by_the_allowance():
    world = make_world()
    report = world.use(1540)
    assert statuses(report) == ["accepted"]
    assert world.position() == ("1540", "1540", "0")
    [view] = report.balances
    assert (view.included, view.remaining, view.state) == (10000, 8460, "included")


def test_what_crosses_the_ceiling_is_split_into_covered_and_overage():
    world = make_world()
    world.use(9000)
    report = world.use(2000)
    assert world.position() == ("11000", "10000", "1000")
    assert report.balances[0].overage_amount_precise == Decimal("0.2")
    assert report.balances[0].state == "overage"


def test_a_repeat_is_a_duplicate_and_counts_nothing():
    world = make_world()
    event = world.event(100)
    first = world.record(event)
    again = world.record(event)
    assert statuses(again) == ["duplicate"]
    assert again.outcomes[0].event_id == first.outcomes[0].event_id
    assert world.position() == ("100", "100", "0")


def test_a_repeat_within_one_request_is_a_duplicate():
    world = make_world()
    event = world.event(100)
    assert statuses(world.record(event, event, world.event(5))) == ["accepted", "duplicate", "accepted"]
    assert world.position() == ("105", "105", "0")


def test_the_same_identity_with_other_content_is_a_conflict_that_names_the_field():
    world = make_world()
    world.record(world.event(100, id="x"))
    report = world.record(world.event(101, id="x"))
    assert statuses(report) == ["conflict"]
    assert report.outcomes[0].fields == ["data.total_tokens"]
    assert world.position() == ("100", "100", "0")


def test_the_same_quantity_written_otherwise_is_the_same_content():
    world = make_world()
    world.record(world.event("1", id="x"))
    assert statuses(world.record(world.event("1.0", id="x"))) == ["duplicate"]


def test_a_rejected_event_does_not_take_its_key():
    world = make_world()
    bad = world.event(-1, id="x")
    assert statuses(world.record(bad)) == ["rejected"]
    assert EventKey.objects.count() == 0
    assert statuses(world.record(world.event(1, id="x"))) == ["accepted"]


def test_a_rejected_event_leaves_its_identity_to_the_next_of_the_same_request():
    world = make_world()
    assert statuses(world.record(world.event(-1, id="x"), world.event(1, id="x"))) == ["rejected", "accepted"]


def test_an_event_of_an_unknown_tenant_is_stored_and_unmatched():
    world = make_world()
    event = world.event(5)
    event.subject = "nobody"
    report = world.record(event)
    assert (report.outcomes[0].status, report.outcomes[0].code) == ("unmatched", "unknown_tenant")
    assert UsageEvent.objects.get().unmatched_code == "unknown_tenant"


def test_an_event_without_the_measured_property_is_unmatched():
    world = make_world()
    report = world.record(world.event(None))
    assert (report.outcomes[0].status, report.outcomes[0].code) == ("unmatched", "property_missing")


def test_the_window_is_35_days_back_and_10_minutes_ahead_in_the_tenants_time():
    world = make_world(starts_at=JUNE, now=JUNE)
    early = world.event(1, time=JUNE - timedelta(days=35, seconds=1))
    late = world.event(1, time=JUNE + timedelta(minutes=10, seconds=1))
    ahead = world.event(1, time=JUNE + timedelta(minutes=10))
    report = world.record(early, late, ahead)
    assert [(one.status, one.code) for one in report.outcomes] == [
        ("rejected", "too_old"),
        ("rejected", "in_future"),
        ("accepted", ""),
    ]


def test_identity_is_checked_before_the_window():
    world = make_world()
    event = world.event(1, time=JUNE)
    world.record(event)
    world.clock.now = JUNE + timedelta(days=40)
    world.clock.save()
    assert statuses(world.record(event)) == ["duplicate"]


def test_before_the_first_period_there_is_no_period():
    world = make_world()
    report = world.use(1, time=JUNE - timedelta(seconds=1))
    assert (report.outcomes[0].status, report.outcomes[0].code) == ("unmatched", "no_period")


def test_ingestion_opens_the_period_that_has_begun():
    world = make_world()
    world.clock.now = at("2026-07-02 00:00")
    world.clock.save()
    assert statuses(world.use(7)) == ["accepted"]
    assert world.balance().period.sequence == 2
    assert world.position() == ("7", "7", "0")


def test_events_of_one_pool_fold_into_one_ledger_entry():
    world = make_world()
    world.record(*(world.event(10) for _ in range(50)))
    entry = LedgerEntry.objects.get(kind="usage")
    assert (entry.quantity, entry.events) == (500, 50)


def test_a_charge_with_its_own_allowance_is_a_pool_of_its_own():
    make_meter(dimensions=["model"])
    own = charge(dimensions={"model": "opus"}, included="100", price={"model": "per_unit", "unit_amount": "0.01"})
    world = make_world(version=publish(charges=[charge(), own]))
    report = world.record(world.event(150, model="opus"), world.event(20, model="haiku"))
    pools = {tuple(view.dimensions.items()): (view.used, view.overage_amount_precise) for view in report.balances}
    assert pools == {(): (20, 0), (("model", "opus"),): (150, Decimal("0.5"))}


def test_overage_in_a_shared_pool_is_spread_over_dimension_sets():
    make_meter(dimensions=["direction"])
    out = charge(dimensions={"direction": "output"}, included=None, price={"model": "per_unit", "unit_amount": "0.001"})
    world = make_world(version=publish(charges=[charge(), out]))
    report = world.record(world.event(6000, direction="input"), world.event(6000, direction="output"))
    assert report.balances[0].overage_amount_precise == Decimal("1.2")


def test_a_mixed_batch_serves_tenants_in_their_own_times():
    june = make_world()
    july = make_world(starts_at=at("2026-07-01 00:00"))
    report = june.record(june.event(1), july.event(2))
    assert statuses(report) == ["accepted", "accepted"]
    assert UsageEvent.objects.get(subject=july.tenant.code).occurred_at == at("2026-07-01 00:00")
