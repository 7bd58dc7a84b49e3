"""Test clocks: they move forward only, to one goal at a time, and an advance that was cut off can be resumed."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from subscriptions.models import AuditEntry, TestClock
from subscriptions.selectors.clock import now_for, wall_now
from subscriptions.services import clocks
from subscriptions.services.tenants import create_tenant
from subscriptions.services.uniqueness import AlreadyExists
from tests.world import JUNE

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture
def clock():
    return clocks.create_clock(code="future", now=JUNE, actor="staff:ann")


def stands(clock):
    clock.refresh_from_db()
    return clock.now, clock.status, clock.advancing_to


def test_a_clock_stands_where_it_was_put(clock):
    assert stands(clock) == (JUNE, "ready", None)
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.object_id) == ("staff:ann", "create", "future")


def test_a_code_is_taken_once(clock):
    with pytest.raises(AlreadyExists):
        clocks.create_clock(code="future", now=JUNE + DAY, actor="staff:ben")
    assert stands(clock)[0] == JUNE


def test_an_advance_goes_from_item_to_item_to_its_goal(clock):
    clocks.begin_advance(clock_id=clock.pk, to=JUNE + 3 * DAY, actor="staff:ann")
    assert stands(clock) == (JUNE, "advancing", JUNE + 3 * DAY)
    clocks.move(clock_id=clock.pk, now=JUNE + DAY)
    assert stands(clock) == (JUNE + DAY, "advancing", JUNE + 3 * DAY)
    clocks.finish_advance(clock_id=clock.pk)
    assert stands(clock) == (JUNE + 3 * DAY, "ready", None)
    entry = AuditEntry.objects.get(action="advance")
    assert (entry.actor, entry.before, entry.after) == (
        "staff:ann",
        {"now": "2026-06-01T00:00:00Z"},
        {"now": "2026-06-04T00:00:00Z"},
    )


def test_an_advance_that_was_cut_off_is_resumed_by_its_goal_and_by_no_other(clock):
    clocks.begin_advance(clock_id=clock.pk, to=JUNE + 3 * DAY)
    clocks.move(clock_id=clock.pk, now=JUNE + DAY)
    for other in (JUNE + 2 * DAY, JUNE + 4 * DAY):
        with pytest.raises(clocks.ClockAdvancing) as refusal:
            clocks.begin_advance(clock_id=clock.pk, to=other)
        assert refusal.value.headers == {"Retry-After": "1"}
    assert clocks.begin_advance(clock_id=clock.pk, to=JUNE + 3 * DAY).now == JUNE + DAY
    assert AuditEntry.objects.filter(action="advance").count() == 1


def test_a_clock_does_not_go_back(clock):
    with pytest.raises(clocks.ClockMovesForward):
        clocks.begin_advance(clock_id=clock.pk, to=JUNE - timedelta(microseconds=1))
    with pytest.raises(IntegrityError, match="only moves forward"), transaction.atomic():
        TestClock.objects.filter(pk=clock.pk).update(now=JUNE - DAY)
    assert stands(clock) == (JUNE, "ready", None)


def test_an_advance_to_the_present_time_is_allowed(clock):
    clocks.begin_advance(clock_id=clock.pk, to=JUNE)
    clocks.finish_advance(clock_id=clock.pk)
    assert stands(clock) == (JUNE, "ready", None)


def test_an_item_that_was_due_earlier_leaves_the_clock_where_it_is(clock):
    clocks.begin_advance(clock_id=clock.pk, to=JUNE + DAY)
    clocks.move(clock_id=clock.pk, now=JUNE - DAY)
    assert stands(clock)[0] == JUNE


def test_a_clock_moves_to_its_goal_and_no_further(clock):
    clocks.begin_advance(clock_id=clock.pk, to=JUNE + DAY)
    assert clocks.move(clock_id=clock.pk, now=JUNE + DAY).now == JUNE + DAY
    with pytest.raises(clocks.ClockMovesForward):
        clocks.move(clock_id=clock.pk, now=JUNE + DAY + timedelta(microseconds=1))


def test_a_clock_that_stands_is_not_moved_and_finishing_it_changes_nothing(clock):
    with pytest.raises(clocks.ClockNotAdvancing):
        clocks.move(clock_id=clock.pk, now=JUNE + DAY)
    clocks.finish_advance(clock_id=clock.pk)
    assert stands(clock) == (JUNE, "ready", None)


def test_a_clock_that_is_not_there_is_not_found():
    with pytest.raises(clocks.ClockNotFound):
        clocks.begin_advance(clock_id=0, to=JUNE)


def test_a_tenant_lives_in_the_time_that_its_clock_has_now(clock):
    tenant = create_tenant(code="acme", name="Acme", test_clock="future", actor="system")
    assert now_for(tenant) == JUNE
    clocks.begin_advance(clock_id=clock.pk, to=JUNE + DAY)
    clocks.move(clock_id=clock.pk, now=JUNE + DAY / 2)
    assert now_for(tenant) == JUNE + DAY / 2


def test_a_tenant_without_a_clock_lives_by_the_wall_clock():
    tenant = create_tenant(code="acme", name="Acme", actor="system")
    assert wall_now() - timedelta(seconds=5) < now_for(tenant) <= wall_now()
