"""What keeps a version from its customers: guards of its tier, backtests that broke one, and a second person who has not agreed."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction

from billing_site.http.problems import Invalid
from subscriptions.models import Approval, AuditEntry, BacktestVerdict, PriceGuard, Publication
from subscriptions.selectors.guards import clearance_of
from subscriptions.services import catalog, guards, publications
from subscriptions.services.approvals import OwnVersion, approve
from subscriptions.services.catalog_text import InvalidCatalog, import_catalog
from tests.world import ACTOR, JUNE, charge, make_meter, publish

pytestmark = pytest.mark.django_db

ANN, BEN, CAT = "staff:ann", "staff:ben", "staff:cat"
HOUR = timedelta(hours=1)
TWENTY = {"rise_percent_max": Decimal(20)}


@pytest.fixture
def growth():
    make_meter()
    return publish("growth")


@pytest.fixture
def draft(growth):
    """The next version, saved by Ann."""
    return catalog.create_version(tier=growth.tier, actor=ANN)


def guard(version, **limits):
    guards.set_guards(tier_id=version.tier_id, limits=limits or TWENTY, actor=BEN)


def found(version, rise="5", change="1", *, source="backtest 1", at=JUNE, revision=None):
    return guards.record_verdict(
        version.pk,
        version.revision if revision is None else revision,
        None if rise is None else Decimal(rise),
        None if change is None else Decimal(change),
        source,
        at,
    )


def say_yes(version, actor=BEN, *, at=JUNE, note=""):
    return approve(version_id=version.pk, expected_revision=version.revision, now=at, actor=actor, note=note)


def go_live(version, actor=ANN, **terms):
    return catalog.publish(version_id=version.pk, now=JUNE + HOUR, actor=actor, **terms)


def save(version, actor=ANN, fee="120"):
    document = {"currency": "USD", "fee": fee, "charges": [charge()]}
    return catalog.save_draft(version_id=version.pk, document=document, expected_revision=version.revision, actor=actor)


# Guards


def test_without_guards_anybody_publishes_alone(draft):
    assert go_live(draft).is_published


def test_a_guard_wants_a_backtest_of_this_very_revision(draft):
    guard(draft)
    with pytest.raises(guards.BacktestNeeded):
        go_live(draft)
    found(draft)
    changed = save(draft)
    with pytest.raises(guards.BacktestNeeded):
        go_live(changed)
    found(changed, source="backtest 2")
    assert go_live(changed).is_published


@pytest.mark.parametrize(
    ("limits", "figures", "broken"),
    [
        (TWENTY, ("20.1", "5"), "rise_percent_max"),
        (TWENTY, ("Infinity", "5"), "rise_percent_max"),
        ({"revenue_fall_percent_max": Decimal(2)}, ("1", "-2.1"), "revenue_fall_percent_max"),
    ],
)
def test_what_breaks_a_guard_waits_for_somebody_else(draft, limits, figures, broken):
    guard(draft, **limits)
    found(draft, *figures)
    with pytest.raises(guards.GuardBroken) as refusal:
        go_live(draft)
    assert [error.path for error in refusal.value.errors] == [f"guards.{broken}"]
    say_yes(draft)
    assert go_live(draft).is_published


@pytest.mark.parametrize("figures", [("20", "-2"), ("-3", "9"), (None, None)])
def test_what_keeps_within_the_guards_needs_nobody(draft, figures):
    guard(draft, rise_percent_max=Decimal(20), revenue_fall_percent_max=Decimal(2))
    found(draft, *figures)
    assert go_live(draft).is_published


def test_a_backtest_that_looks_elsewhere_hides_nothing(draft):
    guard(draft)
    found(draft, "30")
    found(draft, "1", source="backtest 2")
    with pytest.raises(guards.GuardBroken):
        go_live(draft)


def test_who_agreed_before_the_guard_was_broken_has_not_seen_it(draft):
    guard(draft)
    say_yes(draft, at=JUNE)
    found(draft, "30", at=JUNE + HOUR / 2)
    with pytest.raises(guards.GuardBroken):
        go_live(draft)
    say_yes(draft, at=JUNE + HOUR)
    assert go_live(draft).is_published
    assert Approval.objects.count() == 2


def test_guards_are_asked_for_every_cohort_and_of_a_published_version_too(draft):
    go_live(draft)
    guard(draft)
    for cohort in ("renewal", "now"):
        with pytest.raises(guards.BacktestNeeded):
            go_live(draft, cohort=cohort)
    found(draft, "30")
    with pytest.raises(guards.GuardBroken):
        go_live(draft, cohort="renewal")
    say_yes(draft)
    go_live(draft, cohort="renewal")
    assert Publication.objects.filter(version=draft).count() == 2


def test_an_undone_publication_is_published_again_on_the_same_approval(draft):
    guard(draft)
    found(draft, "30")
    say_yes(draft)
    go_live(draft, effective_at=JUNE + 5 * HOUR)
    publications.undo_publication(version_id=draft.pk, now=JUNE + 2 * HOUR, actor=ANN)
    go_live(draft, effective_at=JUNE + 6 * HOUR)
    assert Publication.objects.filter(version=draft, undone_at=None).count() == 1


def test_guards_are_set_and_taken_away_with_an_entry_each(draft):
    guard(draft)
    guard(draft)
    guard(draft, revenue_fall_percent_max=Decimal("2.5"))
    guard(draft, rise_percent_max=None, revenue_fall_percent_max=None)
    entries = AuditEntry.objects.filter(action="set_guards", object_id="growth").order_by("pk")
    assert [(entry.actor, entry.after) for entry in entries] == [
        (BEN, {"rise_percent_max": "20"}),
        (BEN, {"revenue_fall_percent_max": "2.5"}),
        (BEN, {"rise_percent_max": None, "revenue_fall_percent_max": None}),
    ]
    assert go_live(draft).is_published


@pytest.mark.parametrize(
    "limits",
    [
        {"rise_percent_max": Decimal("-1")},
        {"rise_percent_max": Decimal("1.001")},
        {"rise_percent_max": Decimal("1E+30")},
        {"revenue_fall_percent_max": Decimal("100.01")},
        {"revenue_fall_percent_max": Decimal("NaN")},
    ],
)
def test_what_is_no_percentage_is_no_guard(draft, limits):
    with pytest.raises(Invalid) as refusal:
        guard(draft, **limits)
    assert [error.path for error in refusal.value.errors] == [f"guards.{name}" for name in limits]
    assert not PriceGuard.objects.exists()


def test_a_verdict_is_kept_once_and_for_ever(draft):
    assert found(draft, "1") == found(draft, "2")
    assert BacktestVerdict.objects.get().largest_rise_percent == 1
    for table in ("subscriptions_backtestverdict", "subscriptions_approval"):
        say_yes(draft)
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET revision = 9")


# A second person


def test_nobody_approves_what_they_saved_last(draft):
    with pytest.raises(OwnVersion):
        say_yes(draft, ANN)
    taken_over = save(draft, BEN)
    with pytest.raises(OwnVersion):
        say_yes(taken_over, BEN)
    assert say_yes(taken_over, ANN).approved_by == ANN


def test_an_approval_is_of_what_was_read(draft):
    save(draft)
    with pytest.raises(catalog.StaleRevision):
        say_yes(draft)


@pytest.fixture
def four_eyes(growth, settings):
    settings.PUBLISHING_NEEDS_APPROVAL = True


@pytest.mark.usefixtures("four_eyes")
def test_as_a_setting_every_version_is_approved(draft):
    with pytest.raises(guards.ApprovalNeeded):
        go_live(draft)
    say_yes(draft)
    assert go_live(draft).is_published


@pytest.mark.usefixtures("four_eyes")
def test_nobody_publishes_on_their_own_approval(draft):
    say_yes(draft, BEN)
    with pytest.raises(guards.ApprovalNeeded, match="cannot be the one who approves"):
        go_live(draft, BEN)
    say_yes(draft, CAT)
    assert go_live(draft, BEN).is_published


@pytest.mark.usefixtures("four_eyes")
def test_what_is_saved_again_is_approved_again(draft):
    say_yes(draft)
    changed = save(draft)
    with pytest.raises(guards.ApprovalNeeded):
        go_live(changed)


@pytest.mark.usefixtures("four_eyes")
def test_prices_are_mended_before_anybody_is_asked(growth):
    """A draft that cannot be published is refused for that, whoever has agreed."""
    nothing_ends = {"model": "volume", "bands": [{"up_to": "10", "unit_amount": "1"}, {"unit_amount": "0"}]}
    document = {"currency": "USD", "fee": "1", "charges": [charge(price=nothing_ends)]}
    draft = catalog.create_version(tier=growth.tier, actor=ANN, document=document)
    with pytest.raises(Invalid):
        go_live(draft)


@pytest.mark.usefixtures("four_eyes")
def test_a_text_brings_no_published_version_past_the_second_person(growth):
    text = """
        tiers:
          - code: new
            name: New
            versions:
              - {number: 1, currency: USD, publications: [{cohort: new, effective_at: "2026-06-01T00:00:00Z"}]}
        """
    with pytest.raises(InvalidCatalog) as refusal:
        import_catalog(text=text, now=JUNE, actor=ACTOR)
    assert [(error.path, error.code) for error in refusal.value.errors] == [("tiers.0.versions.0", "approval_needed")]


def test_approving_twice_is_approving_once_and_is_audited(draft):
    assert say_yes(draft, note="Looks right.") == say_yes(draft)
    [entry] = AuditEntry.objects.filter(action="approve")
    assert (entry.actor, entry.object_id, entry.after, entry.reason) == (
        BEN,
        "growth/2",
        {"revision": 1},
        "Looks right.",
    )


def test_what_somebody_may_do_is_known_before(draft):
    guard(draft)
    assert clearance_of(draft).needs_backtest
    found(draft, "30")
    clearance = clearance_of(draft)
    assert (clearance.needs_backtest, clearance.needs_approval) == (False, True)
    assert (clearance.may_be_approved_by(ANN), clearance.may_be_approved_by(BEN)) == (False, True)
    say_yes(draft)
    clearance = clearance_of(draft)
    assert (clearance.is_approved_for(ANN), clearance.is_approved_for(BEN)) == (True, False)


# Why


def test_why_a_version_was_published_stays_with_it(draft):
    go_live(draft, reason="Competitors did.")
    publication = Publication.objects.get(version=draft)
    assert publication.reason == "Competitors did."
    assert AuditEntry.objects.get(action="publish", object_id="growth/2").reason == "Competitors did."
    with pytest.raises(IntegrityError), transaction.atomic():
        Publication.objects.filter(pk=publication.pk).update(reason="Because.")
