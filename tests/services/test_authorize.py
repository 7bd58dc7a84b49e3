"""Holds are exact: no two calls are granted the same room, however many ask at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest

from billing_site.database import uuid7
from invoices.services.advancing import advance
from metering.models import Authorization, UsageEvent
from metering.services import committer
from metering.services.checking import check_call
from metering.services.gate import perform
from metering.services.requests import Authorize, Extend, Release, Settle
from tests.races import together
from tests.services.test_grants import give, move
from tests.world import charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

_keys = count(1)


def asking(world, quantity, *, key=None, meter="tokens", ttl_seconds=300, **dimensions):
    return Authorize(
        world.tenant.code,
        meter,
        Decimal(quantity),
        key or f"call-{next(_keys)}",
        dimensions,
        ttl_seconds,
        datetime.now(tz=UTC),
    )


def denying(**terms):
    make_meter()
    return make_world(version=publish("strict", charges=[charge(at_limit="deny", **terms)]))


def test_five_hundred_concurrent_calls_are_granted_exactly_what_is_left():
    world = denying(included="13750")
    requests = [asking(world, 100) for _ in range(500)]
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(committer.submit, requests))
    allowed = [answer for answer in answers if answer.decision.decision == "allow"]
    assert len(allowed) == 137
    assert {answer.decision.reason for answer in answers if answer not in allowed} == {"limit_reached"}
    assert world.balance().held == 13_700
    assert Authorization.objects.filter(status="held").count() == 137


def settling(answer, quantity):
    return Settle(answer.authorization, Decimal(quantity), None, datetime.now(tz=UTC))


def releasing(answer):
    return Release(answer.authorization, datetime.now(tz=UTC))


def extending(answer, quantity):
    return Extend(answer.authorization, Decimal(quantity), None, datetime.now(tz=UTC))


def one(request):
    [answer] = perform([request])
    return answer


def outcome(answer):
    return answer.decision.decision.value


def hold_of(answer):
    return Authorization.objects.get(pk=answer.authorization)


def go_on(world, **by):
    """Advance the tenant's clock, and return what was run."""
    return [entry.what for entry in advance(clock_id=world.clock.pk, to=world.now + timedelta(**by), actor="system")]


def test_a_group_decides_in_turn_and_what_ends_makes_room_first():
    world = denying(included="1000")
    first, second = perform([asking(world, 600), asking(world, 600)])
    assert (outcome(first), outcome(second)) == ("allow", "deny")
    third, _ = perform([asking(world, 600), settling(first, 100)])
    assert outcome(third) == "allow"
    assert perform([asking(world, 900), releasing(third)])[0].decision.decision == "allow"
    balance = world.balance()
    assert (balance.used, balance.held) == (100, 900)


def test_requests_for_one_authorization_that_meet_are_done_one_after_the_other():
    world = denying(included="1000")
    held = one(asking(world, 100))
    grown, settled, again, late = perform(
        [extending(held, 200), settling(held, 250), settling(held, 250), settling(held, 251)]
    )
    assert (grown.quantity, settled.found.hold.status, again.found.hold.settled_quantity) == (300, "settled", 250)
    assert late.code == "conflict"
    assert (world.balance().used, world.balance().held) == (250, 0)
    assert UsageEvent.objects.count() == 1


def test_what_nobody_settles_expires_with_its_time():
    world = denying(included="1000")
    held = one(asking(world, 600, ttl_seconds=60))
    assert go_on(world, seconds=59) == []
    assert world.balance().held == 600
    assert go_on(world, seconds=1) == ["expire_hold"]
    assert (hold_of(held).status, world.balance().held) == ("expired", 0)
    # An expired hold is settled all the same, in full.
    assert one(settling(held, 700)).found.hold.freed_by == "expired"
    assert (world.balance().used, world.balance().held) == (700, 0)


def test_closing_expires_holds_and_settling_afterwards_is_late_usage():
    world = denying(included="1000")
    go_on(world, days=30, seconds=-10)
    held = one(asking(world, 600, ttl_seconds=86_400))
    go_on(world, hours=2)
    old = world.balance(period__sequence=1)
    assert (old.closed_at is not None, old.held, hold_of(held).status) == (True, 0, "expired")
    settled = one(settling(held, 80))
    assert settled.found.hold.freed_by == "expired"
    old.refresh_from_db()
    assert (old.used, old.covered, world.balance(period__sequence=2).used) == (80, 0, 0)


def test_late_usage_is_not_refused_when_it_settles():
    make_meter(late_policy="reject")
    world = make_world(version=publish("strict", charges=[charge(at_limit="deny")]))
    held = one(asking(world, 600))
    go_on(world, days=31)
    assert one(settling(held, 80)).found.hold.settled_quantity == 80
    assert world.balance(period__sequence=1).used == 80


def test_a_hold_of_a_period_that_has_ended_does_not_grow():
    world = denying(included="1000")
    go_on(world, days=30, seconds=-10)
    held = one(asking(world, 600))
    go_on(world, seconds=20)
    denied = one(extending(held, 1))
    assert (outcome(denied), denied.decision.reason) == ("deny", "period_ended")
    assert one(Extend(held.authorization, None, 600, datetime.now(tz=UTC))).expires_at == world.now + timedelta(
        seconds=600
    )
    assert outcome(one(asking(world, 1000))) == "allow"
    assert one(settling(held, 500)).found.hold.freed_by == "settled"
    assert (world.balance(period__sequence=1).used, world.balance().used, world.balance().held) == (500, 0, 1000)


def test_racing_repeats_of_a_key_hold_once():
    world = denying(included="1000")
    request = asking(world, 10, key="same")
    answers = together(*[lambda: one(request) for _ in range(20)])
    assert len({answer.authorization for answer in answers}) == 1
    assert sum(answer.is_new for answer in answers) == 1
    assert world.balance().held == 10


def test_racing_ends_of_a_hold_end_it_once():
    world = denying(included="1000")
    for quantity in range(1, 11):
        held = one(asking(world, 50))
        results = together(
            lambda held=held, quantity=quantity: one(settling(held, quantity)),
            lambda held=held: one(releasing(held)),
            lambda held=held: one(extending(held, 5)),
            lambda held=held, quantity=quantity: one(settling(held, quantity)),
        )
        assert not [result for result in results if isinstance(result, Exception) and not hasattr(result, "code")]
    assert (world.balance().used, world.balance().held) == (55, 0)
    assert UsageEvent.objects.count() == 10


def test_holds_of_different_pools_do_not_touch_each_other():
    make_meter(dimensions=["model"])
    charges = [
        charge(included="100", at_limit="deny"),
        charge(included="10", at_limit="deny", dimensions={"model": "opus"}),
    ]
    world = make_world(version=publish("pools", charges=charges))
    assert outcome(one(asking(world, 11, model="opus"))) == "deny"
    held = one(asking(world, 10, model="opus"))
    assert outcome(held) == "allow"
    assert outcome(one(asking(world, 100, model="haiku"))) == "allow"
    one(settling(held, 7))
    opus, shared = world.balance(pool__contains="opus"), world.balance(pool="")
    assert (opus.used, opus.held, shared.used, shared.held) == (7, 0, 0, 100)


def test_after_an_ambiguous_commit_a_hold_is_its_own():
    world = denying(included="1000")
    request, group_id = asking(world, 600), uuid7()
    [first] = perform([request], group_id=group_id)
    [again] = perform([request], group_id=group_id)
    assert (first.is_new, again.is_new, again.authorization) == (True, True, first.authorization)
    more, other = extending(first, 100), uuid7()
    perform([more], group_id=other)
    perform([more], group_id=other)
    assert world.balance().held == 700
    settlement, third = settling(first, 50), uuid7()
    perform([settlement], group_id=third)
    [settled] = perform([settlement], group_id=third)
    assert settled.found.hold.settled_quantity == 50
    assert (world.balance().used, world.balance().held) == (50, 0)


def test_what_the_last_period_holds_of_a_grant_is_not_promised_again_in_the_next():
    make_meter()
    version = publish("strict", charges=[charge(at_limit="deny", included="100")], grace_hours=24)
    world = make_world(version=version)
    give(world, 100)
    move(world, "2026-06-30 23:59")
    june = perform([asking(world, 150, ttl_seconds=7200)])[0]
    assert june.decision.decision == "allow"
    move(world, "2026-07-01 00:01")
    # July's own 100, and of the grant's 100 none that June's hold may still burn.
    assert check_call(asking(world, 101)).decision.decision == "deny"
    assert perform([asking(world, 101)])[0].decision.decision == "deny"
    assert perform([asking(world, 100)])[0].decision.decision == "allow"
    perform([releasing(june)])
    assert check_call(asking(world, 100)).decision.decision == "allow"
    assert perform([asking(world, 100)])[0].decision.decision == "allow"
    assert perform([asking(world, 1)])[0].decision.decision == "deny"
