"""Publishing a version to the subscriptions that its tier has: at renewal or at once, in chunks, and undone until it takes effect."""

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from invoices.models import Invoice
from invoices.services import publishing
from invoices.services.advancing import advance
from invoices.services.changing import Asked, change_tier
from invoices.services.subscribing import cancel_subscription, start_subscription
from subscriptions.models import BillingPeriod, Publication, ScheduledChange, TierChange, TierVersion
from subscriptions.selectors.catalog import live_version, progress_of
from subscriptions.services import agreement, catalog, clocks, publications, tenants
from tests.races import together
from tests.world import ACTOR, JUNE, World, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
JULY = at("2026-07-01")
AUGUST = at("2026-08-01")
STATUS = ScheduledChange.Status


def newer(version: TierVersion, **terms) -> TierVersion:
    """Draft the tier's next version: $499 with 100,000 tokens, unless the terms say otherwise."""
    document = {"currency": "USD", "fee": "499.00", "charges": [charge(included="100000")]} | terms
    return catalog.create_version(tier=version.tier, actor=ACTOR, document=document)


def publish_to(version: TierVersion, cohort: str, *, effective_at: datetime, now: datetime = JUNE) -> Publication:
    catalog.publish(version_id=version.pk, cohort=cohort, effective_at=effective_at, now=now, actor="staff:ann")
    return Publication.objects.get(version=version, cohort=cohort, undone_at=None)


def planned(version: TierVersion, cohort: str, *, effective_at: datetime, now: datetime = JUNE) -> Publication:
    publication = publish_to(version, cohort, effective_at=effective_at, now=now)
    publishing.plan(now=now)
    publication.refresh_from_db()
    return publication


def travel(world: World, to: datetime) -> None:
    advance(clock_id=world.clock.pk, to=to, actor=ACTOR)
    world.subscription.refresh_from_db()


def versions_of(world: World) -> list[tuple[datetime, int]]:
    """Return which version number each period began on."""
    periods = BillingPeriod.objects.filter(subscription=world.subscription).order_by("sequence")
    return [(period.starts_at, period.version.number) for period in periods.select_related("version")]


def counts(publication: Publication, **expected: int) -> bool:
    progress = progress_of(publication)
    return progress == dict.fromkeys(progress, 0) | {"planned": sum(expected.values())} | expected


def fees_billed(world: World) -> list[str]:
    lines = [line for invoice in invoices(world) for line in invoice.lines.order_by("number")]
    return [str(line.amount.quantize(Decimal("0.01"))) for line in lines]


def invoices(world: World) -> list[Invoice]:
    return list(Invoice.objects.filter(subscription=world.subscription).order_by("pk"))


@pytest.fixture
def growth():
    make_meter()
    return publish("growth")


@pytest.fixture
def world(growth):
    return make_world(version=growth)


# Cohorts


def test_new_concerns_nobody_who_is_there(growth, world):
    version = newer(growth)
    publication = planned(version, "new", effective_at=at("2026-06-15"))
    travel(world, AUGUST)
    assert [number for _, number in versions_of(world)] == [1, 1, 1]
    assert publication.planned_at is not None
    assert counts(publication)


def test_renewal_comes_with_the_first_period_that_begins_then_or_later(growth, world):
    publication = planned(newer(growth), "renewal", effective_at=at("2026-06-15"))
    assert publication.planned_at == JUNE
    assert counts(publication, scheduled=1)
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 2)]
    assert counts(publication, done=1)
    assert fees_billed(world) == ["99.00", "499.00"]
    change = TierChange.objects.get()
    assert (change.from_version.number, change.to_version.number, change.effective_at) == (1, 2, JULY)


def test_a_renewal_at_the_very_boundary_is_in_time(growth, world):
    planned(newer(growth), "renewal", effective_at=JULY)
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 2)]


def test_a_renewal_a_moment_after_the_boundary_waits_for_the_next_one(growth, world):
    planned(newer(growth), "renewal", effective_at=JULY + timedelta(microseconds=1))
    travel(world, at("2026-08-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 1), (AUGUST, 2)]


def test_now_changes_at_that_instant_by_the_versions_terms(growth, world):
    """The golden change of 15 June, for everybody."""
    travel(world, at("2026-06-03"))
    world.use(20_000)
    publication = planned(newer(growth), "now", effective_at=at("2026-06-15"))
    travel(world, at("2026-06-16"))
    assert counts(publication, done=1)
    assert world.position() == ("20000", "20000", "0")
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 2)]
    assert [str(invoice.total.quantize(Decimal("0.01"))) for invoice in invoices(world)] == ["99.00", "712.33"]


def test_now_bills_at_once_where_the_version_says_so(growth, world):
    planned(newer(growth, change={"bill": "now"}), "now", effective_at=at("2026-06-15"))
    travel(world, at("2026-06-16"))
    assert [(one.reason, str(one.total.quantize(Decimal("0.01")))) for one in invoices(world)] == [
        ("opening", "99.00"),
        ("change", "213.33"),
    ]


def test_now_takes_a_tenant_whose_clock_is_ahead_in_its_own_time(growth, world):
    travel(world, at("2026-06-21"))
    planned(newer(growth), "now", effective_at=at("2026-06-15"))
    travel(world, at("2026-06-22"))
    assert TierChange.objects.get().effective_at == at("2026-06-21")


def test_a_subscription_that_starts_later_begins_on_the_version(growth, world):
    other = tenants.create_tenant(code="later", name="Later", actor=ACTOR, test_clock=world.clock.code)
    later = start_subscription(
        tenant=other, version=growth, starts_at=at("2026-06-20"), anchor_at=None, now=JUNE, actor=ACTOR
    )
    publication = planned(newer(growth), "now", effective_at=at("2026-06-15"))
    travel(world, at("2026-06-21"))
    assert later.periods.get().version.number == 2
    assert counts(publication, done=2)
    assert [str(one.total.quantize(Decimal("0.01"))) for one in Invoice.objects.filter(subscription=later)] == [
        "499.00"
    ]


def test_what_is_published_last_stays(growth, world):
    second, third = newer(growth), newer(growth, fee="10")
    planned(third, "renewal", effective_at=at("2026-06-20"))
    planned(second, "renewal", effective_at=at("2026-06-10"))
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 3)]
    assert fees_billed(world) == ["99.00", "10.00"]


def test_a_version_is_published_to_another_cohort_later(growth, world):
    version = newer(growth)
    planned(version, "new", effective_at=JUNE)
    publication = planned(version, "renewal", effective_at=JUNE)
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 2)]
    assert counts(publication, done=1)
    with pytest.raises(catalog.VersionPublished):
        publish_to(version, "renewal", effective_at=JUNE)


def test_whoever_is_on_the_version_when_it_comes_stays_as_it_is(growth, world):
    version = newer(growth)
    publication = planned(version, "renewal", effective_at=at("2026-06-15"))
    planned(version, "now", effective_at=at("2026-06-15"))
    travel(world, at("2026-07-02"))
    assert TierChange.objects.count() == 1
    assert counts(publication, dropped=1)


def test_an_older_version_is_published_to_go_back(growth, world):
    planned(newer(growth), "renewal", effective_at=at("2026-06-15"))
    travel(world, at("2026-07-02"))
    planned(growth, "renewal", effective_at=at("2026-07-15"))
    travel(world, at("2026-08-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 2), (AUGUST, 1)]
    assert live_version(growth.tier, at=AUGUST) == growth


# Live


@pytest.mark.parametrize("cohort", ["new", "renewal", "now"])
def test_every_cohort_is_live_for_who_subscribes_and_an_undone_one_for_nobody(growth, cohort):
    version = newer(growth)
    publish_to(version, cohort, effective_at=JULY)
    assert live_version(growth.tier, at=JULY) == version
    publications.undo_publication(version_id=version.pk, now=JUNE, actor=ACTOR)
    assert live_version(growth.tier, at=JULY) == growth


# Who is concerned


def test_who_has_left_the_tier_is_left_alone(growth, world):
    publication = planned(newer(growth), "renewal", effective_at=at("2026-06-15"))
    asked = Asked(to_version=publish("other", fee="10"), when="now", choices={})
    change_tier(subscription_id=world.subscription.pk, asked=asked, now=JUNE, actor=ACTOR, read=lambda change: None)
    travel(world, at("2026-07-02"))
    assert world.subscription.version == asked.to_version
    assert counts(publication, dropped=1)


@pytest.mark.parametrize(("cohort", "effective_at"), [("renewal", JULY), ("now", at("2026-06-15"))])
def test_who_subscribes_to_the_older_version_meanwhile_joins(growth, world, cohort, effective_at):
    version = newer(growth)
    publication = planned(version, cohort, effective_at=effective_at)
    joined = make_world(version=growth)
    assert counts(publication, scheduled=2)
    travel(joined, at("2026-07-02"))
    assert joined.subscription.version == version


@pytest.mark.parametrize("when", ["now", "period_end"])
def test_who_comes_from_another_tier_meanwhile_joins(growth, when):
    version = newer(growth)
    guest = make_world(version=publish("other"))
    planned(version, "renewal", effective_at=at("2026-07-15"))
    asked = Asked(to_version=growth, when=when, choices={})
    change_tier(subscription_id=guest.subscription.pk, asked=asked, now=JUNE, actor=ACTOR, read=lambda change: None)
    travel(guest, at("2026-08-02"))
    assert guest.subscription.version == version


def test_who_subscribes_to_the_older_version_after_it_took_effect_stays(growth, world):
    publication = planned(newer(growth), "renewal", effective_at=JUNE)
    stays = make_world(version=growth)
    travel(stays, at("2026-07-02"))
    assert stays.subscription.version == growth
    assert counts(publication, scheduled=1)


def test_who_is_paused_gets_it_when_it_is_resumed(growth, world):
    publication = planned(newer(growth), "now", effective_at=at("2026-06-15"))
    travel(world, at("2026-06-10"))
    agreement.pause(subscription=world.subscription, at=at("2026-06-10"), credit="none")
    travel(world, at("2026-06-20"))
    assert counts(publication, scheduled=1)
    agreement.resume(subscription=world.subscription, at=at("2026-06-20"))
    travel(world, at("2026-06-21"))
    assert versions_of(world) == [(JUNE, 1), (at("2026-06-20"), 2)]
    assert counts(publication, done=1)


def test_who_was_paused_before_gets_it_when_it_is_resumed(growth, world):
    travel(world, at("2026-06-10"))
    agreement.pause(subscription=world.subscription, at=at("2026-06-10"), credit="none")
    planned(newer(growth), "renewal", effective_at=at("2026-06-15"))
    travel(world, at("2026-06-20"))
    agreement.resume(subscription=world.subscription, at=at("2026-06-20"))
    travel(world, at("2026-06-21"))
    assert versions_of(world) == [(JUNE, 1), (at("2026-06-20"), 2)]


def test_who_is_to_end_is_concerned_until_then(growth, world):
    renewal = planned(newer(growth), "renewal", effective_at=at("2026-06-10"))
    cancel = {"when": "period_end", "credit": "none", "now": JUNE, "actor": ACTOR}
    cancel_subscription(subscription_id=world.subscription.pk, **cancel)
    now = planned(newer(growth), "now", effective_at=at("2026-06-15"))
    travel(world, at("2026-07-02"))
    assert (counts(now, done=1), counts(renewal, dropped=1)) == (True, True)
    assert versions_of(world) == [(JUNE, 1)]


def test_who_is_taken_up_again_is_concerned_again(growth, world):
    publication = planned(newer(growth), "renewal", effective_at=at("2026-06-15"))
    cancel_subscription(
        subscription_id=world.subscription.pk, when="now", credit="none", now=at("2026-06-10"), actor=ACTOR
    )
    assert counts(publication, dropped=1)
    travel(world, at("2026-06-20"))
    agreement.reactivate(subscription=world.subscription, at=at("2026-06-20"))
    travel(world, at("2026-06-21"))
    assert versions_of(world) == [(JUNE, 1), (at("2026-06-20"), 2)]
    assert counts(publication, done=1)


def test_who_takes_a_cancellation_back_is_concerned_again(growth, world):
    version = newer(growth)
    publication = planned(version, "renewal", effective_at=at("2026-06-15"))
    cancel = {"when": "period_end", "credit": "none", "now": JUNE, "actor": ACTOR}
    world.subscription = cancel_subscription(subscription_id=world.subscription.pk, **cancel)
    agreement.undo_end(subscription=world.subscription, now=at("2026-06-20"))
    assert counts(publication, scheduled=1)
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 2)]


def test_who_pays_in_another_currency_stays_and_is_counted(growth, world):
    publication = planned(newer(growth, currency="EUR"), "renewal", effective_at=at("2026-06-15"))
    assert counts(publication, dropped=1)
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 1)]


def test_who_has_ended_is_not_concerned(growth, world):
    cancel_subscription(subscription_id=world.subscription.pk, when="now", credit="none", now=JUNE, actor=ACTOR)
    travel(world, at("2026-06-02"))
    publication = planned(newer(growth), "renewal", effective_at=at("2026-06-15"))
    assert counts(publication)
    assert publication.planned_at is not None


# Planning


def test_planning_goes_on_where_it_stopped(growth):
    for _ in range(5):
        make_world(version=growth)
    publication = publish_to(newer(growth), "renewal", effective_at=JULY)
    assert publishing.plan(now=JUNE, seconds_max=0, chunk=2) == 2
    publication.refresh_from_db()
    assert publication.planned_at is None
    assert publishing.plan(now=JUNE, chunk=2) == 3
    assert publishing.plan(now=JUNE) == 0
    publication.refresh_from_db()
    assert publication.planned_at == JUNE
    assert counts(publication, scheduled=5)


@pytest.mark.django_db(transaction=True)
def test_workers_share_the_planning(growth):
    for _ in range(8):
        make_world(version=growth)
    publication = publish_to(newer(growth), "renewal", effective_at=JULY)
    results = together(*[lambda: publishing.plan(now=JUNE, chunk=2)] * 4)
    assert [one for one in results if isinstance(one, Exception)] == []
    publishing.plan(now=JUNE)
    publication.refresh_from_db()
    assert publication.planned_at is not None
    assert counts(publication, scheduled=8)


@pytest.mark.django_db(transaction=True)
def test_none_that_starts_while_it_is_published_is_missed(growth):
    worlds = [make_world(version=growth) for _ in range(2)]
    for round_number in range(5):
        version = newer(growth)
        clock = clocks.create_clock(code=f"round-{round_number}", now=JUNE, actor=ACTOR)
        tenant = tenants.create_tenant(code=f"guest-{round_number}", name="Guest", actor=ACTOR, test_clock=clock.code)
        start = {"tenant": tenant, "version": growth, "starts_at": JUNE, "anchor_at": None, "now": JUNE, "actor": ACTOR}
        results = together(
            lambda start=start: start_subscription(**start),
            lambda version=version: publish_to(version, "renewal", effective_at=JULY),
        )
        assert [one for one in results if isinstance(one, Exception)] == []
        publishing.plan(now=JUNE)
        assert counts(results[1], scheduled=len(worlds) + round_number + 1)


# Undoing


@pytest.mark.parametrize("cohort", ["renewal", "now"])
def test_a_publication_is_undone_until_it_takes_effect(growth, world, cohort):
    version = newer(growth)
    publication = planned(version, cohort, effective_at=at("2026-06-15"))
    undone = publications.undo_publication(version_id=version.pk, now=at("2026-06-14"), actor="staff:ann")
    assert (undone, undone.undone_at) == (publication, at("2026-06-14"))
    assert publishing.plan(now=at("2026-06-14")) == 1
    assert counts(publication, undone=1)
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 1)]
    version.refresh_from_db()
    assert version.is_published


@pytest.mark.parametrize("cohort", ["renewal", "now"])
def test_what_is_undone_is_not_carried_out_before_it_is_settled(growth, world, cohort):
    version = newer(growth)
    publication = planned(version, cohort, effective_at=at("2026-06-15"))
    publications.undo_publication(version_id=version.pk, now=JUNE, actor=ACTOR)
    travel(world, at("2026-07-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 1)]
    assert counts(publication, undone=1)


def test_an_undone_publication_is_published_again(growth, world):
    version = newer(growth)
    planned(version, "renewal", effective_at=at("2026-06-15"))
    publications.undo_publication(version_id=version.pk, now=JUNE, actor=ACTOR)
    planned(version, "renewal", effective_at=at("2026-07-15"))
    travel(world, at("2026-08-02"))
    assert versions_of(world) == [(JUNE, 1), (JULY, 1), (AUGUST, 2)]


def test_what_has_taken_effect_is_not_undone(growth, world):
    version = newer(growth)
    planned(version, "renewal", effective_at=at("2026-06-15"))
    with pytest.raises(publications.NoPublicationToUndo):
        publications.undo_publication(version_id=version.pk, now=at("2026-06-15"), actor=ACTOR)


def test_of_several_publications_the_cohort_is_named(growth, world):
    version = newer(growth)
    planned(version, "renewal", effective_at=JULY)
    now = planned(version, "now", effective_at=AUGUST)
    with pytest.raises(publications.PublicationAmbiguous):
        publications.undo_publication(version_id=version.pk, now=JUNE, actor=ACTOR)
    assert publications.undo_publication(version_id=version.pk, cohort="now", now=JUNE, actor=ACTOR) == now


def test_undone_in_chunks(growth):
    for _ in range(5):
        make_world(version=growth)
    version = newer(growth)
    publication = planned(version, "renewal", effective_at=JULY)
    publications.undo_publication(version_id=version.pk, now=JUNE, actor=ACTOR)
    assert publishing.plan(now=JUNE, seconds_max=0, chunk=2) == 2
    assert publishing.plan(now=JUNE, chunk=2) == 3
    assert counts(publication, undone=5)
