"""Grants that come again: one at each boundary, by the same schedule as everything that falls due."""

import pytest

from metering.models import CreditGrant, GrantSchedule
from metering.services.grant_schedules import Recurrence, make_due_grants, schedule_grants, void_schedule
from metering.services.grants import InvalidGrant, KeyTaken
from subscriptions.core.periods import Interval
from tests.services.test_grants import figures, give, move, terms
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db


def yearly():
    make_meter()
    return publish(charges=[charge(included="0")], interval="year")


def schedule(world, quantity, *, interval=Interval.MONTH, count=1, until=None, expires_after=1, **how):
    made, _ = schedule_grants(
        tenant=world.tenant,
        terms=terms(quantity, **how),
        every=Recurrence(interval=interval, count=count, until=until, expires_after=expires_after),
        now=world.now,
        actor=ACTOR,
    )
    return made


def spans():
    grants = CreditGrant.objects.filter(schedule__isnull=False).order_by("effective_at")
    return [(one.effective_at.isoformat()[:13], one.expires_at and one.expires_at.isoformat()[:13]) for one in grants]


def test_monthly_credits_on_a_yearly_tier():
    world = make_world(version=yearly())
    schedule(world, 100)
    assert spans() == [("2026-06-01T00", "2026-07-01T00")]
    world.use(30)
    journal = move(world, "2026-08-15 00:00")
    assert [(entry.at.isoformat()[:10], entry.what) for entry in journal if entry.what == "make_grants"] == [
        ("2026-07-01", "make_grants"),
        ("2026-08-01", "make_grants"),
    ]
    assert spans()[1:] == [("2026-07-01T00", "2026-08-01T00"), ("2026-08-01T00", "2026-09-01T00")]
    [view] = world.use(120).balances
    # June left 70, and July 100: both are gone with their months.
    assert (view.used, view.overage, view.included, view.remaining) == (150, 20, 100, 0)


def test_boundaries_are_counted_from_the_first_in_the_tenants_zone():
    make_meter()
    world = make_world(version=publish(interval="year"), now=at("2026-10-31 23:30"), timezone="Europe/Berlin")
    schedule(world, 100)
    move(world, "2027-01-02 00:00")
    # 1 November, 00:30 in Berlin, and the same wall time of each month.
    assert [start for start, _ in spans()] == ["2026-10-31T23", "2026-11-30T23", "2026-12-31T23"]


def test_it_ends_before_until_and_what_never_expires_adds_up():
    world = make_world(version=yearly())
    made = schedule(world, 100, interval=Interval.WEEK, until=at("2026-06-15 00:00"), expires_after=None)
    move(world, "2026-07-15 00:00")
    assert spans() == [("2026-06-01T00", None), ("2026-06-08T00", None)]
    made.refresh_from_db()
    assert (made.made, made.due_at) == (2, None)
    [view] = world.use(150).balances
    assert (view.overage, view.remaining) == (0, 50)


def test_one_that_begins_in_the_past_makes_what_is_due_at_once():
    world = make_world(version=yearly(), now=at("2026-08-15 00:00"), starts_at=at("2026-06-01 00:00"))
    world.use(150, time=at("2026-07-20 00:00"))
    schedule(world, 100, since=at("2026-07-01 00:00"))
    assert spans() == [("2026-07-01T00", "2026-08-01T00"), ("2026-08-01T00", "2026-09-01T00")]
    assert world.position() == ("150", "100", "50")


def test_making_what_is_due_twice_makes_it_once():
    world = make_world(version=yearly())
    made = schedule(world, 100)
    assert make_due_grants(schedule_id=made.pk, now=at("2026-06-30 00:00")) == []
    assert len(make_due_grants(schedule_id=made.pk, now=at("2026-07-01 00:00"))) == 1
    assert make_due_grants(schedule_id=made.pk, now=at("2026-07-01 00:00")) == []


def test_a_boundary_in_a_period_that_has_closed_covers_what_is_open_still():
    make_meter()
    world = make_world(version=publish(charges=[charge(included="0")]))
    made = schedule(world, 100, since=at("2026-06-20 00:00"))
    GrantSchedule.objects.update(due_at=None)  # its worker is away
    move(world, "2026-07-05 00:00")
    GrantSchedule.objects.update(due_at=at("2026-06-20 00:00"))
    make_due_grants(schedule_id=made.pk, now=world.now)
    assert spans() == [("2026-07-01T00", "2026-07-20T00")]


def test_a_voided_schedule_makes_no_more_and_leaves_what_it_made():
    world = make_world(version=yearly())
    made = schedule(world, 100)
    void_schedule(schedule=made, reason="why", now=world.now, actor=ACTOR)
    move(world, "2026-07-15 00:00")
    assert len(spans()) == 1
    assert figures(CreditGrant.objects.get(schedule=made))[-1] == 100
    again = void_schedule(schedule=made, reason="again", now=world.now, actor=ACTOR)
    assert again.voided_at == at("2026-06-01 00:00")


def test_the_same_key_is_the_same_schedule_and_never_a_grant():
    world = make_world(version=yearly())
    first = schedule(world, 100, key="a")
    assert schedule(world, 100, key="a").pk == first.pk
    for again in (lambda: schedule(world, 100, key="a", count=2), lambda: give(world, 100, key="a")):
        with pytest.raises(KeyTaken):
            again()


@pytest.mark.parametrize(
    ("how", "path"),
    [
        ({"until": at("2026-06-01 00:00")}, "every.until"),
        ({"since": at("2020-06-01 00:00"), "interval": Interval.DAY}, "effective_at"),
    ],
)
def test_what_would_make_nothing_or_too_much_is_refused(how, path):
    world = make_world(version=yearly())
    with pytest.raises(InvalidGrant) as refused:
        schedule(world, 100, **how)
    assert [one.path for one in refused.value.errors] == [path]
