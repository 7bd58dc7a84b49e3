"""Rolling windows as they are kept: with the posting, over periods, through reversal and replay, and filled where they are new."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest

from invoices.services.advancing import advance
from invoices.services.subscribing import cancel_subscription, start_subscription
from metering.models import UsageEvent, WindowBucket
from metering.services.gate import perform
from metering.services.replaying import replay_events
from metering.services.requests import Authorize, Settle
from metering.services.reversing import reverse_event
from subscriptions.models import Subscription
from subscriptions.selectors.clock import wall_now
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

NOW = at("2026-06-20 12:00")
_keys = count(1)


def limited(*limits, now=NOW, **terms):
    """Subscribe a tenant to windows given as (quantity, length)."""
    make_meter(dimensions=["model"])
    documents = [{"quantity": quantity, "window": window} for quantity, window in limits]
    return make_world(version=publish("windows", charges=[charge(limits=documents, **terms)]), now=now)


def ask(world, quantity, *, ttl_seconds=300, **dimensions):
    key, now = f"w{next(_keys)}", datetime.now(tz=UTC)
    [answer] = perform([Authorize(world.tenant.code, "tokens", Decimal(quantity), key, dimensions, ttl_seconds, now)])
    return answer


def said(answer):
    limit = answer.decision.binding_limit
    return answer.decision.decision.value, limit and (limit.window, int(limit.left), limit.frees_at)


def go_on(world, **by):
    advance(clock_id=world.clock.pk, to=world.now + timedelta(**by), actor="system")


def test_usage_of_the_last_hours_and_holds_bound_what_is_granted():
    world = limited(("1000", "PT5H"))
    world.use(300, time=at("2026-06-20 08:00"))
    world.use(500, time=at("2026-06-20 11:00"))
    # Buckets of five minutes: what was used at 08:00 has left by 13:05.
    assert said(ask(world, 201)) == ("deny", ("PT5H", 200, at("2026-06-20 13:05")))
    assert said(ask(world, 150)) == ("allow", ("PT5H", 200, at("2026-06-20 13:05")))
    assert said(ask(world, 51)) == ("deny", ("PT5H", 50, at("2026-06-20 13:05")))
    go_on(world, minutes=64, seconds=59)
    assert said(ask(world, 501))[0] == "deny"
    go_on(world, seconds=1)
    assert said(ask(world, 500))[0] == "allow"


def test_the_tightest_of_several_windows_is_named():
    world = limited(("1000", "PT5H"), ("1200", "P1D"))
    world.use(1000, time=at("2026-06-20 01:00"))
    assert said(ask(world, 300)) == ("deny", ("P1D", 200, at("2026-06-21 01:12")))
    world.use(900)
    assert said(ask(world, 150))[1][:2] == ("P1D", 0)


def test_a_settled_call_stands_where_it_occurred_and_late_usage_where_it_belongs():
    world = limited(("1000", "PT5H"))
    held = ask(world, 800)
    go_on(world, minutes=30)
    perform([Settle(held.authorization, Decimal(700), None, datetime.now(tz=UTC))])
    assert dict(WindowBucket.objects.values_list("bucket_at", "quantity")) == {NOW: 700}
    world.use(200, time=at("2026-06-20 10:02"))
    assert said(ask(world, 101)) == ("deny", ("PT5H", 100, at("2026-06-20 15:05")))


def test_usage_and_holds_reach_over_the_periods_boundary():
    world = limited(("1000", "P1D"), now=at("2026-06-30 23:00"))
    world.use(400)
    held = ask(world, 300, ttl_seconds=86_400)
    go_on(world, hours=1, minutes=2)
    assert world.balance().period.starts_at == at("2026-07-01 00:00")
    assert said(ask(world, 301)) == ("deny", ("P1D", 300, at("2026-07-01 23:12")))
    perform([Settle(held.authorization, Decimal(200), None, datetime.now(tz=UTC))])
    assert said(ask(world, 400))[0] == "allow"
    # Late usage of the old period stands in the window, too.
    world.use(1, time=at("2026-06-30 23:59"))
    assert said(ask(world, 1)) == ("deny", ("P1D", 0, at("2026-07-01 23:12")))


def test_a_reversal_makes_room():
    world = limited(("1000", "PT5H"))
    world.use(900)
    assert said(ask(world, 200))[0] == "deny"
    reverse_event(event_id=UsageEvent.objects.get().pk, reason="a mistake", actor=ACTOR)
    assert list(WindowBucket.objects.values_list("quantity", flat=True)) == [0]
    assert said(ask(world, 1000))[0] == "allow"


def test_a_replayed_event_counts_at_its_own_time():
    make_meter()
    documents = [{"quantity": "1000", "window": "PT5H"}]
    world = make_world(
        version=publish("windows", charges=[charge(limits=documents)]), starts_at=at("2026-06-20 13:00"), now=NOW
    )
    world.use(900)
    assert UsageEvent.objects.get().unmatched_code == "no_period"
    Subscription.objects.filter(pk=world.subscription.pk).update(starts_at=NOW, run_starts_at=NOW)
    go_on(world, hours=3)
    assert replay_events(now=wall_now()).counted == 1
    assert dict(WindowBucket.objects.values_list("bucket_at", "quantity")) == {NOW: 900}
    assert said(ask(world, 101)) == ("deny", ("PT5H", 100, at("2026-06-20 17:05")))


def test_windows_are_of_their_pool():
    make_meter(dimensions=["model"])
    own = charge(included="5000", dimensions={"model": "opus"}, limits=[{"quantity": "100", "window": "PT1H"}])
    world = make_world(version=publish("pools", charges=[charge(), own]), now=NOW)
    world.use(90, model="opus")
    world.use(5000, model="haiku")
    assert said(ask(world, 11, model="opus"))[0] == "deny"
    assert said(ask(world, 3000, model="haiku"))[0] == "allow"
    assert WindowBucket.objects.count() == 1


def test_a_window_of_a_charge_makes_a_pool_of_its_own():
    make_meter(dimensions=["model"])
    own = charge(included=None, dimensions={"model": "opus"}, limits=[{"quantity": "100", "window": "PT1H"}])
    world = make_world(version=publish("pools", charges=[charge(), own]), now=NOW)
    world.use(60, model="haiku")
    world.use(60, model="opus")
    assert said(ask(world, 41, model="opus"))[0] == "deny"
    assert said(ask(world, 41, model="haiku"))[0] == "allow"


def test_buckets_that_do_not_count_any_more_go():
    world = limited(("1000", "PT1H"))
    world.use(100)
    go_on(world, minutes=61)
    world.use(1)
    assert list(WindowBucket.objects.values_list("quantity", flat=True)) == [1]
    # Usage that is too old for the window is not kept at all.
    world.use(5, time=NOW)
    assert list(WindowBucket.objects.values_list("quantity", flat=True)) == [1]


def test_a_tenant_without_windows_keeps_no_buckets():
    world = make_world(now=NOW)
    world.use(100)
    assert not WindowBucket.objects.exists()


def test_a_window_that_is_new_with_a_period_is_filled_from_what_was_used_before():
    make_meter(dimensions=["model"])
    world = make_world(version=publish("before"), starts_at=at("2026-06-01 00:00"), now=NOW)
    world.use(300, model="opus", time=at("2026-06-20 08:00"))
    world.use(1, time=at("2026-06-19 11:00"))
    reversed_one = world.event(50)
    world.record(reversed_one)
    [taken_back] = UsageEvent.objects.filter(event_id=reversed_one.id)
    reverse_event(event_id=taken_back.pk, reason="a mistake", actor=ACTOR)
    assert not WindowBucket.objects.exists()
    cancel_subscription(subscription_id=world.subscription.pk, when="now", credit="none", now=NOW, actor=ACTOR)
    go_on(world, minutes=30)
    version = publish("after", charges=[charge(limits=[{"quantity": "1000", "window": "P1D"}])])
    start_subscription(
        tenant=world.tenant, version=version, starts_at=world.now, anchor_at=world.now, now=world.now, actor=ACTOR
    )
    assert dict(WindowBucket.objects.values_list("bucket_at", "quantity")) == {at("2026-06-20 08:00"): 300}
    assert said(ask(world, 701)) == ("deny", ("P1D", 700, at("2026-06-21 08:24")))
    # Late usage of the old period, whose version has no window, stands in it, too.
    world.use(100, time=at("2026-06-20 10:00"))
    assert said(ask(world, 601))[0] == "deny"
