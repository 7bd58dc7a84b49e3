"""What is shown before publishing is what the planner does then: the same subscriptions, in the same groups."""

from datetime import timedelta

import pytest

from invoices.services import publishing
from invoices.services.subscribing import cancel_subscription, start_subscription
from subscriptions.models import Publication, ScheduledChange
from subscriptions.selectors.affected import Affected, affected_by, next_renewals
from subscriptions.services import agreement, tenants
from tests.services.test_publishing import newer, publish_to, travel
from tests.world import ACTOR, JUNE, at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

MIDDLE, JULY = at("2026-06-15"), at("2026-07-01")


@pytest.fixture
def growth():
    make_meter()
    return publish("growth")


def planned(version, cohort, effective_at, now=JUNE):
    return Publication(version=version, cohort=cohort, effective_at=effective_at, created_at=now)


def counts(version, cohort, effective_at, now=JUNE):
    found = affected_by(planned(version, cohort, effective_at, now), now=now)
    return {name: number for name in Affected.__slots__ if (number := getattr(found, name))}


def ending(world):
    cancel_subscription(subscription_id=world.subscription.pk, when="period_end", credit="none", now=JUNE, actor=ACTOR)


@pytest.fixture
def everybody(growth):
    """Somebody of every kind; the names say what becomes of them."""
    people = {name: make_world(version=growth, code=name) for name in ("plain", "other", "ahead", "paused", "ends")}
    travel(people["ahead"], at("2026-06-20"))
    travel(people["paused"], at("2026-06-10"))
    agreement.pause(subscription=people["paused"].subscription, at=at("2026-06-10"), credit="none")
    ending(people["ends"])
    people["elsewhere"] = make_world(version=publish("elsewhere"))
    people["later"] = make_world(version=growth, code="later", starts_at=at("2026-06-25"))
    return people


def test_of_new_subscribers_nobody_changes(growth, everybody):
    assert counts(newer(growth), "new", MIDDLE) == {}


def test_at_renewal_most_change_when_their_period_ends(growth, everybody):
    version = newer(growth)
    assert counts(version, "renewal", MIDDLE) == {
        "subscriptions": 6,
        "at_once": 4,
        "paused": 1,
        "ending": 1,
        "on_test_clocks": 6,
    }
    assert counts(version, "renewal", JULY + timedelta(days=10)) == {
        "subscriptions": 6,
        "at_once": 1,
        "later": 3,
        "paused": 1,
        "ending": 1,
        "on_test_clocks": 6,
    }


def test_in_the_middle_of_a_period_some_are_later_in_their_own_time(growth, everybody):
    assert counts(newer(growth), "now", MIDDLE) == {
        "subscriptions": 6,
        "at_once": 3,
        "later": 2,
        "paused": 1,
        "on_test_clocks": 6,
    }


def test_who_ends_before_the_date_stays(growth, everybody):
    assert counts(newer(growth), "now", JULY)["ending"] == 1


def test_who_pays_in_another_currency_stays(growth, everybody):
    assert counts(newer(growth, currency="EUR"), "now", MIDDLE) == {
        "subscriptions": 6,
        "other_currency": 6,
        "on_test_clocks": 6,
    }


def test_who_has_ended_or_has_the_version_is_not_concerned(growth):
    over, has_it = make_world(version=growth), make_world(version=growth)
    version = newer(growth)
    cancel_subscription(subscription_id=over.subscription.pk, when="now", credit="none", now=JUNE, actor=ACTOR)
    travel(over, at("2026-06-02"))
    has_it.subscription.version = version
    has_it.subscription.save(update_fields=["version"])
    assert counts(version, "renewal", MIDDLE) == {}


def test_who_lives_in_wall_time_is_no_test(growth):
    tenant = tenants.create_tenant(code="real", name="Real", actor=ACTOR)
    start_subscription(tenant=tenant, version=growth, starts_at=JUNE, anchor_at=JUNE, now=JUNE, actor=ACTOR)
    assert counts(newer(growth), "now", MIDDLE) == {"subscriptions": 1, "at_once": 1}
    # Dated back, it comes when it is published.
    assert counts(newer(growth), "now", at("2026-05-01"), now=at("2026-06-03")) == {"subscriptions": 1, "at_once": 1}


@pytest.mark.parametrize("cohort", ["renewal", "now"])
@pytest.mark.parametrize("effective_at", [JUNE, MIDDLE, JULY, at("2026-09-10")])
@pytest.mark.parametrize("currency", ["USD", "EUR"])
def test_the_planner_schedules_and_drops_as_many_as_was_said(growth, everybody, cohort, effective_at, currency):
    version = newer(growth, currency=currency)
    said = affected_by(planned(version, cohort, effective_at), now=JUNE)
    publication = publish_to(version, cohort, effective_at=effective_at)
    publishing.plan(now=JUNE)
    changes = ScheduledChange.objects.filter(publication=publication)
    status = ScheduledChange.Status
    assert changes.count() == said.subscriptions
    assert changes.filter(status=status.DROPPED).count() == said.ending + said.other_currency
    assert changes.filter(status=status.SCHEDULED).count() == said.at_once + said.later + said.paused


def test_the_next_renewals_are_named_with_their_dates(growth):
    first = make_world(version=growth, code="first")
    second = make_world(version=growth, code="second", anchor_at=at("2026-06-10"))
    found = next_renewals(planned(newer(growth), "renewal", MIDDLE), now=JUNE, limit=5)
    assert [(one.subscription.tenant.code, one.at) for one in found] == [
        (first.tenant.code, JULY),
        (second.tenant.code, at("2026-07-10")),
    ]
    [only] = next_renewals(planned(newer(growth), "renewal", at("2026-07-05")), now=JUNE, limit=1)
    assert only.at in (at("2026-07-10"), at("2026-08-01"))


def test_what_is_shown_takes_one_query(growth, everybody, django_assert_num_queries):
    version = newer(growth)
    for cohort in ("renewal", "now"):
        with django_assert_num_queries(1):
            affected_by(planned(version, cohort, MIDDLE), now=JUNE)
