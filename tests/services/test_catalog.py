"""The catalogue: drafts are judged and saved whole, published versions are final, and others read them as terms."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from threading import Barrier

import pytest
from django.db import IntegrityError, connection, connections, transaction

from billing_site.http.problems import DomainError
from subscriptions.core.periods import Alignment, Cadence, Interval
from subscriptions.core.pricing import Band, PriceModel, rate
from subscriptions.models import AuditEntry, Charge, Feature, Meter, PriceBand, Publication, TierVersion
from subscriptions.selectors.catalog import (
    ANSWERED_MEMBERS,
    CatalogItemNotFound,
    get_tier,
    get_version,
    live_version,
    terms_of,
    tiers_with_live_number,
    version_document,
)
from subscriptions.services import catalog
from subscriptions.services.uniqueness import AlreadyExists
from subscriptions.services.version_documents import InvalidVersion, TermsNotAvailable
from tests.world import JUNE, charge, make_meter

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
PERCENTAGE = {"model": "percentage", "rate": "2.5"}

# The document of the HTTP contract, word for word, with a price of each shape.
CONTRACT = {
    "currency": "USD",
    "interval": "month",
    "interval_count": 1,
    "alignment": "anniversary",
    "fee": "99.00",
    "fee_timing": "advance",
    "fee_every": 1,
    "grace_hours": 1,
    "trial_days": 14,
    "trial_end": "convert",
    "trial_overage": "none",
    "change": {"fee": "prorate", "grain": "day", "allowance": "prorated", "bill": "next"},
    "charges": [
        {
            "kind": "usage",
            "meter": "tokens",
            "included": "10000",
            "trial_included": None,
            "rollover_max": "0",
            "rollover_periods": 1,
            "dimensions": {},
            "at_limit": "allow",
            "overage_quantity_max": None,
            "limits": [{"quantity": "1000000", "window": "PT5H"}],
            "thresholds": [{"percent": 80}, {"percent": 100}],
            "price": {"model": "per_unit", "unit_amount": "0.0002"},
        },
        {
            "kind": "usage",
            "meter": "tokens",
            "included": "500.5",
            "trial_included": "5",
            "rollover_max": "100",
            "rollover_periods": 3,
            "dimensions": {"model": "opus"},
            "at_limit": "degrade",
            "overage_quantity_max": "999999999999999999.000000000001",
            "limits": [],
            "thresholds": [],
            "price": {
                "model": "graduated",
                "bands": [
                    {"up_to": "10000", "unit_amount": "0", "flat_amount": "1"},
                    {"up_to": None, "unit_amount": "0.000000000001", "flat_amount": "0"},
                ],
                "zero_usage": "first_tier_flat",
                "transform": {"op": "divide", "by": "1000", "round": "up"},
                "free_units": "5",
                "percent_discount": "10",
                "amount_max": "1000",
                "amount_min": "3",
            },
        },
        {"kind": "licensed", "code": "seats", "unit_amount": "10.00", "included": "3"},
    ],
    "features": {"max_projects": 10, "sso": True, "support": "gold"},
}


@pytest.fixture
def tier():
    make_meter(dimensions=["model", "region"])
    return catalog.create_tier(code="growth", name="Growth", actor="staff:ann")


def draft(tier, *charges, **terms):
    document = {"currency": "USD", "charges": list(charges)} | terms
    return catalog.create_version(tier=tier, document=document, actor="staff:ann")


def save(version, revision, **terms):
    return catalog.save_draft(
        version_id=version.pk, document={"currency": "USD"} | terms, expected_revision=revision, actor="staff:ben"
    )


def publish(version, **terms):
    return catalog.publish(version_id=version.pk, **({"now": JUNE, "actor": "staff:ann"} | terms))


def own(version):
    """Return what a version's document says, without what the server adds to it."""
    return {name: value for name, value in version_document(version).items() if name not in ANSWERED_MEMBERS}


# Drafts


def test_the_document_of_the_contract_is_kept_whole(tier):
    version = catalog.create_version(tier=tier, document=CONTRACT, actor="staff:ann")
    assert own(get_version(tier, 1)) == CONTRACT
    again = catalog.save_draft(version_id=version.pk, document=own(version), expected_revision=1, actor="staff:ann")
    assert own(again) == CONTRACT
    assert again.revision == 2


@pytest.mark.parametrize(
    "price",
    [
        {"model": "flat", "amount": "5"},
        {"model": "package", "size": "1000", "amount": "0.2", "free_units": "10"},
        {"model": "volume", "bands": [{"up_to": None, "unit_amount": "0.00015", "flat_amount": "0"}]},
        PERCENTAGE | {"fixed_amount": "0.3", "free_value": "100", "free_events": 2},
        PERCENTAGE | {"minimum_per_event": "0.5", "maximum_per_event": "2"},
        {
            "model": "graduated_percentage",
            "bands": [
                {"up_to": "100", "rate": "3", "flat_amount": "0"},
                {"up_to": None, "rate": "2", "flat_amount": "1"},
            ],
        },
        {"model": "dynamic", "multiplier": "1.25"},
    ],
    ids=lambda price: price["model"],
)
def test_every_price_model_comes_back_as_it_went_in(tier, price):
    version = draft(tier, charge(included="0", price=price))
    assert version_document(version)["charges"][0]["price"] == price


def test_numbers_may_be_numbers_and_come_back_as_plain_texts(tier):
    version = draft(
        tier,
        charge(included=Decimal("1E+4"), price={"model": "per_unit", "unit_amount": Decimal("0.00020")}),
        fee=Decimal("99.0"),
        interval_count="3",
        grace_hours=Decimal("0"),
    )
    document = version_document(version)
    assert (document["fee"], document["interval_count"], document["grace_hours"]) == ("99.00", 3, 0)
    assert document["charges"][0]["included"] == "10000"
    assert document["charges"][0]["price"]["unit_amount"] == "0.0002"


def test_saving_replaces_a_draft_whole(tier):
    version = catalog.create_version(tier=tier, document=CONTRACT, actor="staff:ann")
    saved = save(version, 1, fee="1")
    assert (own(saved)["charges"], own(saved)["features"], own(saved)["trial_days"]) == ([], {}, 0)
    assert [model.objects.count() for model in (Charge, PriceBand, Feature)] == [0, 0, 0]


def test_a_new_version_starts_as_a_copy_of_the_newest(tier):
    draft(tier, fee="1")
    catalog.create_version(tier=tier, document=CONTRACT, actor="staff:ann")
    third = catalog.create_version(tier=tier, actor="staff:ann")
    assert (third.number, third.revision, own(third)) == (3, 1, CONTRACT)


def test_the_first_version_without_a_document_is_an_empty_page(tier):
    document = own(catalog.create_version(tier=tier, actor="staff:ann"))
    assert (document["currency"], document["fee"], document["charges"]) == ("USD", "0.00", [])


def test_a_stale_save_changes_nothing_and_says_where_the_draft_stands(tier):
    version = draft(tier, fee="1")
    save(version, 1, fee="2")
    with pytest.raises(catalog.StaleRevision, match="revision 2, not 1") as refusal:
        save(version, 1, fee="3")
    assert (refusal.value.status, refusal.value.code) == (412, "stale")
    assert own(get_version(tier, 1))["fee"] == "2.00"


def test_a_faulty_save_changes_nothing(tier):
    version = draft(tier, charge(), fee="1")
    with pytest.raises(InvalidVersion):
        save(version, 1, fee="-1")
    assert own(get_version(tier, 1))["fee"] == "1.00"
    assert get_version(tier, 1).revision == 1


def test_saves_note_what_was_and_what_is(tier):
    version = draft(tier, fee="1")
    save(version, 1, fee="2")
    entry = AuditEntry.objects.get(action="save_draft")
    assert (entry.actor, entry.object_id, entry.before, entry.after) == (
        "staff:ben",
        "growth/1",
        {"fee": "1.00"},
        {"fee": "2.00"},
    )


# Publishing


def test_a_published_version_is_final_and_live(tier):
    version = publish(draft(tier, charge(), fee="99.00"), actor="staff:cleo")
    assert (version.published_at, version_document(version)["effective_at"]) == (JUNE, JUNE)
    assert live_version(tier, at=JUNE) == version
    assert live_version(tier, at=JUNE - timedelta(microseconds=1)) is None
    entry = AuditEntry.objects.get(action="publish")
    assert (entry.actor, entry.object_id) == ("staff:cleo", "growth/1")
    assert entry.after == {"revision": 1, "cohort": "new", "effective_at": "2026-06-01T00:00:00Z"}
    for write in (lambda: save(version, 1), lambda: publish(version)):
        with pytest.raises(catalog.VersionPublished):
            write()


@pytest.mark.parametrize(
    "write",
    [
        lambda version: TierVersion.objects.filter(pk=version.pk).update(fee=0),
        lambda version: TierVersion.objects.filter(pk=version.pk).update(published_at=None),
        lambda version: Charge.objects.filter(version=version).update(included=1),
        lambda version: PriceBand.objects.filter(charge__version=version).update(unit_amount=0),
        lambda version: PriceBand.objects.filter(charge__version=version).delete(),
        lambda version: Charge.objects.create(
            version=version, position=9, meter=Meter.objects.get(), price_model="flat"
        ),
        lambda version: Feature.objects.filter(version=version).delete(),
        lambda version: Feature.objects.create(version=version, code="new", value=True),
        lambda version: Publication.objects.filter(version=version).delete(),
        lambda version: version.delete(),
    ],
)
def test_the_database_keeps_a_published_version_whoever_writes(tier, write):
    price = {"model": "graduated", "bands": [{"unit_amount": "1"}]}
    version = publish(draft(tier, charge(price=price), features={"sso": True}))
    with pytest.raises(IntegrityError), transaction.atomic():
        write(version)


@pytest.mark.parametrize(
    ("terms", "path"),
    [
        ({"charges": [{"kind": "licensed", "code": "seats", "unit_amount": "1"}]}, "charges.0.kind"),
    ],
)
def test_terms_that_are_not_built_yet_are_kept_and_not_published(tier, terms, path):
    version = draft(tier, **terms)
    with pytest.raises(TermsNotAvailable) as refusal:
        publish(version)
    assert [(error.path, error.code) for error in refusal.value.errors] == [(path, "terms_not_available")]
    assert not get_version(tier, 1).is_published


def test_thresholds_are_kept_in_one_form_and_published(tier):
    thresholds = [{"percent": 80, "once": "period"}, {"amount": "50.00", "once": "life"}, {"quantity": 1000}]
    version = publish(draft(tier, charge(thresholds=thresholds)))
    [stored] = version_document(version)["charges"]
    assert stored["thresholds"] == [{"percent": 80}, {"amount": "50", "once": "life"}, {"quantity": "1000"}]


def test_what_the_gate_and_trials_read_can_be_published(tier):
    assert publish(
        draft(tier, charge(at_limit="deny", overage_quantity_max="5"), trial_days=14, trial_end="cancel")
    ).is_published


def test_an_unknown_cohort_is_refused(tier):
    with pytest.raises(ValueError, match="everybody"):
        publish(draft(tier), cohort="everybody")


def test_exactly_what_was_read_is_published(tier):
    version = draft(tier, fee="1")
    save(version, 1, fee="2")
    with pytest.raises(catalog.StaleRevision):
        publish(version, expected_revision=1)
    assert publish(version, expected_revision=2).is_published


def test_the_version_that_took_effect_last_is_live_and_the_higher_number_of_two_at_once(tier):
    first, second, third = (draft(tier, fee=fee) for fee in ("1", "2", "3"))
    publish(first, effective_at=JUNE + DAY)
    publish(third, effective_at=JUNE)
    publish(second, effective_at=JUNE)
    assert live_version(tier, at=JUNE) == third
    assert live_version(tier, at=JUNE + DAY) == first
    other = catalog.create_tier(code="empty", name="Empty", actor="staff:ann")
    numbers = {each.code: each.live_number for each in tiers_with_live_number(at=JUNE + DAY)}
    assert numbers == {tier.code: 1, other.code: None}


# Terms


def test_a_version_is_read_as_values_to_calculate_with(tier):
    bands = [{"up_to": "10", "unit_amount": "2"}, {"unit_amount": "1", "flat_amount": "5"}]
    graduated = charge(
        dimensions={"region": "eu", "model": "opus"}, included=None, price={"model": "graduated", "bands": bands}
    )
    version = publish(
        draft(
            tier, charge(at_limit="deny"), graduated, interval="quarter", alignment="calendar", fee="99.00", fee_every=4
        )
    )
    terms = terms_of(version.pk)
    assert (terms.tier_code, terms.number, terms.currency, terms.fee) == ("growth", 1, "USD", 99)
    assert terms.cadence == Cadence(Interval.QUARTER, 1, Alignment.CALENDAR)
    assert (terms.fee_timing, terms.fee_every, terms.grace_hours, terms.change_terms["grain"]) == (
        "advance",
        4,
        1,
        "day",
    )
    plain, special = terms.charges
    assert (plain.meter_code, plain.dimensions, plain.included, plain.at_limit) == ("tokens", (), 10000, "deny")
    assert special.dimensions == (("model", "opus"), ("region", "eu"))
    assert special.included is None
    assert special.price.model is PriceModel.GRADUATED
    assert special.price.bands == (Band(Decimal(10), Decimal(2)), Band(None, Decimal(1), Decimal(5)))
    assert rate(special.price, 12).amount == 27


def test_a_published_version_is_read_once_and_a_draft_anew(tier, django_assert_num_queries):
    version = draft(tier, fee="1")
    assert terms_of(version.pk).fee == 1
    save(version, 1, fee="2")
    assert terms_of(version.pk).fee == 2
    publish(version)
    terms_of(version.pk)
    with django_assert_num_queries(0):
        assert terms_of(version.pk).fee == 2


def test_what_is_not_there_is_not_found(tier):
    for read in (
        lambda: terms_of(0),
        lambda: get_tier("none"),
        lambda: get_version(tier, 1),
        lambda: publish(TierVersion()),
    ):
        with pytest.raises(CatalogItemNotFound):
            read()


# Tiers
def test_a_tier_changes_its_name_and_not_its_code(tier):
    catalog.update_tier(tier_id=tier.pk, changes={"name": "Grow", "description": ""}, actor="staff:ben")
    entry = AuditEntry.objects.get(action="update")
    assert (entry.before, entry.after) == ({"name": "Growth"}, {"name": "Grow"})
    with pytest.raises(AssertionError):
        catalog.update_tier(tier_id=tier.pk, changes={"code": "other"}, actor="staff:ben")


def test_codes_are_taken_once(tier):
    with pytest.raises(AlreadyExists):
        catalog.create_tier(code="growth", name="Other", actor="staff:ann")
    with pytest.raises(AlreadyExists):
        make_meter()


# Races


def at_once(*actions):
    """Run the actions in threads that start together; return what each returned or raised."""
    barrier = Barrier(len(actions))

    def run(action):
        barrier.wait(10)
        try:
            return action()
        except DomainError as refusal:
            return refusal
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(actions)) as threads:
        return list(threads.map(run, actions))


@pytest.mark.django_db(transaction=True)
def test_of_two_editors_at_once_one_is_told_that_the_draft_has_changed(tier):
    version = draft(tier, charge(), fee="1")
    results = at_once(*[lambda fee=fee: save(version, 1, fee=fee, charges=[charge()]) for fee in ("2", "3", "4")])
    saved = [result for result in results if isinstance(result, TierVersion)]
    assert [type(result) for result in results if result not in saved] == [catalog.StaleRevision] * 2
    assert own(get_version(tier, 1))["fee"] == own(saved[0])["fee"]
    assert get_version(tier, 1).revision == 2


@pytest.mark.django_db(transaction=True)
def test_a_draft_is_saved_before_it_is_published_or_not_at_all(tier):
    version = draft(tier, fee="1")
    saved, published = at_once(lambda: save(version, 1, fee="2"), lambda: publish(version))
    assert isinstance(published, TierVersion)
    expected = "1.00" if isinstance(saved, catalog.VersionPublished) else "2.00"
    assert own(get_version(tier, 1))["fee"] == own(published)["fee"] == expected


@pytest.mark.django_db(transaction=True)
def test_versions_made_at_once_have_numbers_of_their_own(tier):
    at_once(*[lambda: draft(tier)] * 4)
    assert sorted(tier.versions.values_list("number", flat=True)) == [1, 2, 3, 4]


@pytest.mark.django_db(transaction=True)
def test_of_two_that_take_a_code_at_once_one_is_told():
    results = at_once(*[lambda: catalog.create_tier(code="same", name="Same", actor="staff:ann")] * 2)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists", "Tier"]


def test_the_price_terms_of_a_row_hold_no_float(tier):
    draft(tier, charge(price={"model": "package", "size": Decimal("1000.0"), "amount": Decimal("0.20")}))
    with connection.cursor() as cursor:
        cursor.execute("SELECT price_terms::text FROM subscriptions_charge")
        assert json.loads(cursor.fetchone()[0]) == {"size": "1000", "amount": "0.2"}
