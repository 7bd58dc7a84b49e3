"""The one validator of version documents: every fault is named by its path, and only what prices one way is accepted."""

from decimal import Decimal

import pytest

from subscriptions.services import catalog
from subscriptions.services.version_documents import InvalidVersion
from tests.world import JUNE, PER_TOKEN, charge, make_meter

pytestmark = pytest.mark.django_db

PERCENTAGE = {"model": "percentage", "rate": "2.5"}


@pytest.fixture
def tier():
    make_meter(dimensions=["model", "region"])
    return catalog.create_tier(code="growth", name="Growth", actor="staff:ann")


def draft(tier, *charges):
    document = {"currency": "USD", "charges": list(charges)}
    return catalog.create_version(tier=tier, document=document, actor="staff:ann")


def faults_of(tier, document):
    with pytest.raises(InvalidVersion) as refusal:
        catalog.create_version(tier=tier, document=document, actor="staff:ann")
    return [(error.path, error.code) for error in refusal.value.errors]


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        ({"currency": None}, ("currency", "required")),
        ({"currency": "usd"}, ("currency", "unknown_currency")),
        ({"currency": ["USD"]}, ("currency", "unknown_currency")),
        ({"currency": "JPY", "fee": "99.50"}, ("fee", "too_fine")),
        ({"fee": "0.001"}, ("fee", "too_fine")),
        ({"fee": 99.0}, ("fee", "not_a_decimal")),
        ({"fee": "1_000"}, ("fee", "not_a_decimal")),
        ({"fee": "１２"}, ("fee", "not_a_decimal")),
        ({"fee": True}, ("fee", "not_a_decimal")),
        ({"fee": Decimal("NaN")}, ("fee", "not_a_decimal")),
        ({"fee": "-1"}, ("fee", "negative")),
        ({"fee": Decimal("1E+1000000")}, ("fee", "too_large")),
        ({"fee": "1" + "0" * 18}, ("fee", "too_large")),
        ({"interval": "fortnight"}, ("interval", "unknown_choice")),
        ({"interval": 1}, ("interval", "unknown_choice")),
        ({"interval_count": 0}, ("interval_count", "not_positive")),
        ({"interval_count": 367}, ("interval_count", "too_large")),
        ({"interval_count": "1.5"}, ("interval_count", "not_whole")),
        ({"fee_every": 0}, ("fee_every", "not_positive")),
        ({"alignment": "lunar"}, ("alignment", "unknown_choice")),
        ({"fee_timing": "late"}, ("fee_timing", "unknown_choice")),
        ({"grace_hours": 721}, ("grace_hours", "too_large")),
        ({"trial_days": -1}, ("trial_days", "negative")),
        ({"trial_end": "explode"}, ("trial_end", "unknown_choice")),
        ({"change": {"grain": "hour"}}, ("change.grain", "unknown_choice")),
        ({"change": {"grian": "day"}}, ("change.grian", "unknown_field")),
        ({"change": "prorate"}, ("change", "not_an_object")),
        ({"chrages": []}, ("chrages", "unknown_field")),
        ({"number": 1}, ("number", "unknown_field")),
        ({"charges": {}}, ("charges", "not_a_list")),
        ({"charges": [{}] * 201}, ("charges", "too_many")),
        ({"charges": ["tokens"]}, ("charges.0", "not_an_object")),
        ({"features": []}, ("features", "not_an_object")),
        ({"features": {"a b": 1}}, ("features.a b", "invalid_code")),
        ({"features": {"rate": Decimal("1.5")}}, ("features.rate", "not_a_value")),
        ({"features": {"rate": {"a": 1}}}, ("features.rate", "not_a_value")),
        ({"features": {"n": 10**18}}, ("features.n", "not_a_value")),
        ({"features": {"text": "x" * 201}}, ("features.text", "not_a_value")),
    ],
    ids=repr,
)
def test_a_fault_of_the_terms_is_named_by_its_path(tier, terms, fault):
    assert faults_of(tier, {"currency": "USD"} | terms) == [fault]


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        ({"meter": None}, ("charges.0.meter", "required")),
        ({"meter": "nothing"}, ("charges.0.meter", "does_not_exist")),
        ({"meter": ["tokens"]}, ("charges.0.meter", "does_not_exist")),
        ({"kind": "free"}, ("charges.0.kind", "unknown_choice")),
        ({"price": None}, ("charges.0.price", "required")),
        ({"price": "0.0002"}, ("charges.0.price", "not_an_object")),
        ({"price": {"model": "per_unit"}}, ("charges.0.price.unit_amount", "required")),
        ({"price": PER_TOKEN | {"unit_amount": 0.0002}}, ("charges.0.price.unit_amount", "not_a_decimal")),
        ({"price": PER_TOKEN | {"unitamount": "1"}}, ("charges.0.price.unitamount", "unknown_field")),
        ({"price": PER_TOKEN | {"unit_amount": "0.0000000000001"}}, ("charges.0.price.unit_amount", "too_precise")),
        ({"included": "-1"}, ("charges.0.included", "negative")),
        ({"included": 0.5}, ("charges.0.included", "not_a_decimal")),
        ({"inculded": "1"}, ("charges.0.inculded", "unknown_field")),
        ({"trial_included": "x"}, ("charges.0.trial_included", "not_a_decimal")),
        ({"rollover_periods": 0}, ("charges.0.rollover_periods", "not_positive")),
        ({"at_limit": "explode"}, ("charges.0.at_limit", "unknown_choice")),
        ({"overage_quantity_max": "-1"}, ("charges.0.overage_quantity_max", "negative")),
        ({"dimensions": ["model"]}, ("charges.0.dimensions", "not_an_object")),
        ({"dimensions": {"colour": "red"}}, ("charges.0.dimensions.colour", "not_a_dimension")),
        ({"dimensions": {"model": 4}}, ("charges.0.dimensions.model", "not_text")),
        ({"dimensions": {"model": None}}, ("charges.0.dimensions.model", "not_text")),
        ({"dimensions": {"model": "x" * 201}}, ("charges.0.dimensions.model", "too_long")),
        ({"limits": [{"quantity": "1", "window": "5h"}]}, ("charges.0.limits.0.window", "not_a_window")),
        ({"limits": [{"quantity": "1", "window": "PT0H"}]}, ("charges.0.limits.0.window", "not_a_window")),
        ({"limits": [{"quantity": "1", "window": "P"}]}, ("charges.0.limits.0.window", "not_a_window")),
        ({"limits": [{"quantity": "1", "window": "P1DT"}]}, ("charges.0.limits.0.window", "not_a_window")),
        ({"limits": [{"window": "PT5H"}]}, ("charges.0.limits.0.quantity", "required")),
        ({"thresholds": [{"percent": 0}]}, ("charges.0.thresholds.0.percent", "not_positive")),
        ({"thresholds": [80]}, ("charges.0.thresholds.0", "not_an_object")),
        ({"thresholds": [{"percent": 1001}]}, ("charges.0.thresholds.0.percent", "too_large")),
        ({"thresholds": [{"percent": "80.5"}]}, ("charges.0.thresholds.0.percent", "not_whole")),
        ({"thresholds": [{"quantity": 0}]}, ("charges.0.thresholds.0.quantity", "not_positive")),
        ({"thresholds": [{"amount": "-1"}]}, ("charges.0.thresholds.0.amount", "negative")),
        ({"thresholds": [{"once": "life"}]}, ("charges.0.thresholds.0", "required")),
        ({"thresholds": [{"percent": 80, "amount": 5}]}, ("charges.0.thresholds.0", "exclusive")),
        ({"thresholds": [{"percent": 80, "once": "ever"}]}, ("charges.0.thresholds.0.once", "unknown_choice")),
        ({"thresholds": [{"percent": 80, "once": ["life"]}]}, ("charges.0.thresholds.0.once", "unknown_choice")),
        ({"thresholds": [{"percent": 80, "every": 1}]}, ("charges.0.thresholds.0.every", "unknown_field")),
        (
            {"thresholds": [{"amount": 5}, {"amount": "5.00", "once": "period"}]},
            ("charges.0.thresholds.1", "duplicate"),
        ),
        ({"thresholds": [{"percent": 1}] * 21}, ("charges.0.thresholds", "too_many")),
    ],
    ids=repr,
)
def test_a_fault_of_a_charge_is_named_by_its_path(tier, terms, fault):
    assert faults_of(tier, {"currency": "USD", "charges": [charge(**terms)]}) == [fault]


@pytest.mark.parametrize("aggregation", ["max", "latest", "unique_count"])
def test_what_needs_a_meter_that_adds_up_is_refused_for_one_that_does_not(tier, aggregation):
    make_meter("seats", aggregation=aggregation)
    price = {"model": "percentage", "rate": "1", "minimum_per_event": "1"}
    terms = {"rollover_max": "5", "limits": [{"quantity": "1", "window": "PT5H"}], "price": price}
    faults = [("rollover_max", "not_additive"), ("limits", "not_additive"), ("price", "not_additive")]
    clamped = charge(meter="seats", included="0", **terms)
    assert faults_of(tier, {"currency": "USD", "charges": [clamped]}) == [
        (f"charges.0.{name}", code) for name, code in faults
    ]
    assert draft(tier, charge(included="0", **terms)).charges.count() == 1


def test_a_fault_deep_in_a_price_is_named_by_its_path(tier):
    bands = [{"up_to": "10", "unit_amount": "1"}, {"up_to": "5", "unit_amount": "1"}, {"unit_amount": "1"}]
    broken = charge(price={"model": "graduated", "bands": bands})
    assert faults_of(tier, {"currency": "USD", "charges": [charge(dimensions={"model": "opus"}), broken]}) == [
        ("charges.1.price.bands.1.up_to", "not_ascending")
    ]


def test_all_faults_are_named_at_once(tier):
    document = {"fee": "x", "charges": [{"meter": "nothing"}, {"kind": "licensed"}], "features": {"": None}}
    assert faults_of(tier, document) == [
        ("currency", "required"),
        ("fee", "not_a_decimal"),
        ("charges.0.meter", "does_not_exist"),
        ("charges.0.price", "required"),
        ("charges.1.code", "invalid_code"),
        ("charges.1.unit_amount", "required"),
        ("features.", "invalid_code"),
        ("features.", "not_a_value"),
    ]


@pytest.mark.parametrize("document", [[], "USD", 1, Decimal(1), None])
def test_what_is_no_object_is_no_version(tier, document):
    version = draft(tier)
    with pytest.raises(InvalidVersion):
        catalog.save_draft(version_id=version.pk, document=document, expected_revision=1, actor="staff:ann")


def test_a_hostile_document_gets_a_short_answer(tier):
    assert len(faults_of(tier, {"currency": "USD"} | {f"x{number}": 1 for number in range(5000)})) == 500


def test_a_licence_is_named_once(tier):
    seats = {"kind": "licensed", "code": "seats", "unit_amount": "1"}
    assert faults_of(tier, {"currency": "USD", "charges": [seats, seats]}) == [("charges.1.code", "duplicate")]


@pytest.mark.parametrize(
    ("sets", "fault"),
    [
        ([{}, {}], ("charges.1.dimensions", "duplicate")),
        ([{"model": "opus"}, {"model": "opus"}], ("charges.1.dimensions", "duplicate")),
        ([{"model": "opus"}, {"region": "eu"}], ("charges.1.dimensions", "ambiguous")),
    ],
)
def test_charges_that_could_tie_are_refused(tier, sets, fault):
    charges = [charge(dimensions=dimensions) for dimensions in sets]
    assert faults_of(tier, {"currency": "USD", "charges": charges}) == [fault]


@pytest.mark.parametrize(
    "sets",
    [
        [{}, {"model": "opus"}, {"model": "haiku"}],
        [{"model": "opus"}, {"model": "opus", "region": "eu"}],
        [{"model": "opus", "region": "eu"}, {"model": "haiku", "region": "eu"}],
        # The third comes before both wherever they meet.
        [{"model": "opus"}, {"region": "eu"}, {"model": "opus", "region": "eu"}],
    ],
)
def test_charges_of_which_one_is_always_the_most_specific_are_accepted(tier, sets):
    assert draft(tier, *[charge(dimensions=dimensions) for dimensions in sets]).charges.count() == len(sets)


def test_charges_of_two_meters_never_tie(tier):
    make_meter("requests", aggregation="count", value_property=None)
    assert draft(tier, charge(), charge(meter="requests")).charges.count() == 2


@pytest.mark.parametrize(
    "terms",
    [
        {"included": "10000"},
        {"included": "1", "dimensions": {"model": "opus"}},
        {"included": None, "dimensions": {"model": "opus"}},
    ],
)
@pytest.mark.parametrize(
    "price",
    [PERCENTAGE, {"model": "graduated_percentage", "bands": [{"rate": "1"}]}, {"model": "dynamic", "multiplier": "1"}],
    ids=lambda price: price["model"],
)
def test_a_price_of_the_whole_value_includes_nothing(tier, price, terms):
    charges = [charge(price=price, **terms)]
    assert faults_of(tier, {"currency": "USD", "charges": charges}) == [("charges.0.included", "included_not_zero")]


@pytest.mark.parametrize(
    "terms",
    [
        {"included": None},
        {"included": "0"},
        {"included": "0", "dimensions": {"model": "opus"}},
        {"included": None, "overage_quantity_max": "5", "dimensions": {"model": "opus"}},
    ],
)
def test_a_price_of_the_whole_value_has_a_pool_in_which_nothing_is_included(tier, terms):
    version = draft(tier, charge(price=PERCENTAGE, **terms))
    assert catalog.publish(version_id=version.pk, now=JUNE, actor="staff:ann").is_published
