"""What an event counts: digits, weights, filters and dimensions, with the hostile spellings of numbers."""

import doctest
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from metering.core import measuring, quantities
from metering.core.measuring import (
    Aggregation,
    Measured,
    MeterDefinition,
    Missing,
    NotMatched,
    Reading,
    Refused,
    WeightedProperty,
    dimension_key,
    dimension_set,
    fold,
    measure,
    weighted_properties,
)

TEN = datetime(2026, 11, 23, 10, tzinfo=UTC)


def meter(aggregation=Aggregation.SUM, value_property="quantity", **fields):
    return MeterDefinition(
        "tokens", "llm.completion", aggregation, properties=weighted_properties(value_property), **fields
    )


def quantity_of(value, **property_fields):
    """Measure one value, and return the quantity, or the reason for which it is refused."""
    result = measure(meter(value_property=[{"property": "quantity", **property_fields}]), {"quantity": value})
    return result.quantity if isinstance(result, Measured) else result.reason


@pytest.mark.parametrize("module", [measuring, quantities])
def test_examples_in_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        ("0", "0"),
        ("-0", "0"),
        (Decimal("-0.0"), "0"),
        (Decimal("0E+1000000"), "0"),
        (Decimal("0E-1000000"), "0"),
        (1200, "1200"),
        ("1200", "1200"),
        (Decimal("1.2E+3"), "1200"),
        (Decimal("0.1"), "0.1"),
        (Decimal("12345678901234567.123456"), "12345678901234567.123456"),
        (9007199254740993, "9007199254740993"),
        (Decimal("0.1000000000000000000"), "0.1"),
        (999_999_999_999_999_999, "999999999999999999"),
        ("999999999999999999.999999999999", "999999999999999999.999999999999"),
        (Decimal("999999999999999999.999999999999"), "999999999999999999.999999999999"),
        (Decimal("1E-12"), "0.000000000001"),
    ],
)
def test_a_quantity_is_taken_exactly(value, expected):
    quantity = quantity_of(value)
    assert quantity == Decimal(expected)
    assert not quantity.is_signed()
    assert quantity.as_tuple().exponent == -12


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("sNaN", "not_a_number"),
        ("NaN", "not_a_number"),
        (Decimal("NaN"), "not_a_number"),
        (Decimal("sNaN"), "not_a_number"),
        (Decimal("Infinity"), "not_a_number"),
        ("Infinity", "not_a_number"),
        ("1e400", "not_a_number"),
        (Decimal("1E+400"), "too_large"),
        ("1E+1000000", "not_a_number"),
        (Decimal("1E+1000000"), "too_large"),
        (Decimal("1E-1000000"), "too_fine"),
        (Decimal("-1E+1000000"), "negative"),
        (-1, "negative"),
        ("-1", "negative"),
        (Decimal("-0.5"), "negative"),
        (True, "not_a_number"),
        (False, "not_a_number"),
        ("", "not_a_number"),
        (" 1 ", "not_a_number"),
        ("1\n", "not_a_number"),
        ("\uff11\uff12", "not_a_number"),
        ("\u0663", "not_a_number"),
        ("1,5", "not_a_number"),
        ("1.000,00", "not_a_number"),
        ("1_000", "not_a_number"),
        ("+5", "not_a_number"),
        ("007", "not_a_number"),
        (".5", "not_a_number"),
        ("5.", "not_a_number"),
        ("0x10", "not_a_number"),
        ([], "not_a_number"),
        ({}, "not_a_number"),
        (0.1, "not_a_number"),
        (Decimal("0.30000000000000004"), "too_fine"),
        ("0.30000000000000004", "too_fine"),
        ("999999999999999999.9999999999999", "too_fine"),
        pytest.param("9" * 2000, "too_large", id="a string of 2,000 digits"),
        (10**18, "too_large"),
        pytest.param(10**5000, "too_large", id="an integer of 5,001 digits"),
        ("1000000000000000000", "too_large"),
        (Decimal("1E+18"), "too_large"),
        pytest.param(Decimal("0." + "3" * 5000), "too_fine", id="5,000 decimals"),
    ],
)
def test_what_is_no_quantity_is_refused_with_the_reason(value, reason):
    assert quantity_of(value) == reason


def test_a_refusal_says_what_to_do():
    refused = measure(meter(), {"quantity": Decimal("0.30000000000000004")})
    assert refused == Refused("quantity", "too_fine")
    assert refused.detail == (
        "quantity has more than 12 decimals; binary floats that were added up look like this, send exact decimals"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("0.30000000000000004"), "0.3"),
        ("0.30000000000000004", "0.3"),
        (Decimal("1.23E-5"), "0.0000123"),
        (Decimal("0.0000000000005"), "0"),  # halves go to the even neighbour
        (Decimal("0.0000000000015"), "0.000000000002"),
        (Decimal("0.000000000000500001"), "0.000000000001"),
        (Decimal("1E-1000000"), "0"),
        pytest.param(Decimal("0." + "3" * 5000), "0.333333333333", id="5,000 decimals"),
    ],
)
def test_money_is_rounded_half_even_instead_of_refused(value, expected):
    assert quantity_of(value, money=True) == Decimal(expected)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Decimal("-0.01"), "negative"),
        ("-0.01", "negative"),
        (10**18, "too_large"),
        (Decimal("999999999999999999.9999999999999"), "too_large"),
        (Decimal("1E+1000000"), "too_large"),
        ("1e-5", "not_a_number"),
        (True, "not_a_number"),
    ],
)
def test_money_is_refused_where_rounding_does_not_help(value, reason):
    assert quantity_of(value, money=True) == reason


def test_a_sum_of_weighted_properties():
    tokens = meter(value_property=[{"property": "input_tokens"}, {"property": "output_tokens", "weight": "4"}])
    assert measure(tokens, {"input_tokens": 1200, "output_tokens": "340"}) == Measured(Decimal(2560), ())
    assert measure(tokens, {"output_tokens": 340}) == Measured(Decimal(1360), ())
    assert measure(tokens, {"input_tokens": 1200, "output_tokens": None}) == Measured(Decimal(1200), ())
    assert measure(tokens, {"other": 1}) == Missing("input_tokens")
    assert measure(tokens, {"input_tokens": 1, "output_tokens": "x"}) == Refused("output_tokens", "not_a_number")


def test_a_weighted_sum_fits_the_digits_of_a_quantity_or_is_refused():
    half = meter(value_property=[{"property": "a", "weight": "0.5"}, {"property": "b", "weight": "2"}])
    assert measure(half, {"a": Decimal("0.000000000002")}) == Measured(Decimal("0.000000000001"), ())
    assert measure(half, {"a": Decimal("0.000000000001"), "b": 0}) == Refused("a + b", "too_fine")
    assert measure(half, {"b": "500000000000000000"}) == Refused("a + b", "too_large")
    both = {"a": Decimal("0.000000000001"), "b": "499999999999999999"}
    assert measure(half, both) == Refused("a + b", "too_fine")


def test_weighted_money_is_rounded_after_the_sum():
    cost = meter(value_property=[{"property": "cost", "weight": "1.2", "money": True}])
    assert measure(cost, {"cost": Decimal("0.000000000001234")}) == Measured(Decimal("0.000000000001"), ())
    assert measure(cost, {"cost": Decimal("0.0000000000013")}) == Measured(Decimal("0.000000000002"), ())


def test_paths_reach_into_objects_only():
    nested = meter(value_property="usage.total.tokens")
    assert measure(nested, {"usage": {"total": {"tokens": 7}}}) == Measured(Decimal(7), ())
    for data in ({"usage": {"total": 7}}, {"usage": [{"total": 7}]}, {"usage": None}, {"usage.total.tokens": 7}, {}):
        assert measure(nested, data) == Missing("usage.total.tokens")


def test_a_count_needs_no_property():
    calls = meter(Aggregation.COUNT, None, filters={"model": "opus"})
    assert measure(calls, {"model": "opus"}) == Measured(Decimal(1), ())
    assert measure(calls, {"model": "haiku"}) == NotMatched()


def test_an_event_of_another_type_does_not_match():
    assert measure(meter(), {"quantity": 1}, event_type="llm.embedding") == NotMatched()
    assert measure(meter(), {"quantity": 1}, event_type="llm.completion") == Measured(Decimal(1), ())


@pytest.mark.parametrize(
    ("wanted", "value", "matches"),
    [
        ("opus", "opus", True),
        ("opus", "Opus", False),
        (["opus", "haiku"], "haiku", True),
        ([], "haiku", False),
        (1, "1.0", True),
        ("1.0", 1, True),
        (True, True, True),
        (True, "true", False),
        (True, 1, False),
        (None, None, True),
        (None, "", False),
        ("opus", None, False),
        ("opus", ["opus"], False),
        ("opus", {"opus": 1}, False),
    ],
)
def test_a_filter_compares_values(wanted, value, matches):
    result = measure(meter(filters={"request.model": wanted}), {"quantity": 1, "request": {"model": value}})
    assert isinstance(result, Measured) is matches


def test_a_filter_treats_an_absent_property_as_null():
    assert measure(meter(filters={"model": None}), {"quantity": 1}) == Measured(Decimal(1), ())
    assert measure(meter(filters={"model": "opus"}), {"quantity": 1}) == NotMatched()


def test_dimensions_are_sorted_and_only_the_declared_ones():
    result = measure(
        meter(dimensions=("model", "direction", "usage.tier", "batch")),
        {"quantity": 1, "model": "opus", "usage": {"tier": Decimal("2.0")}, "batch": False, "undeclared": "x"},
    )
    assert result.dimensions == (("batch", "false"), ("direction", ""), ("model", "opus"), ("usage.tier", "2"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "not_scalar"),
        (["opus"], "not_scalar"),
        ("x" * 201, "too_long"),
        (Decimal("1." + "1" * 300), "too_long"),
    ],
)
def test_a_dimension_is_one_short_value(value, reason):
    assert measure(meter(dimensions=("model",)), {"quantity": 1, "model": value}) == Refused("model", reason)


def test_a_dimension_may_have_200_characters():
    result = measure(meter(dimensions=("model",)), {"quantity": 1, "model": "é" * 200})
    assert result.dimensions == (("model", "é" * 200),)


def test_a_huge_exponent_in_a_dimension_is_not_written_out():
    result = measure(meter(dimensions=("model",)), {"quantity": 1, "model": Decimal("1E+1000000")})
    assert result.dimensions == (("model", "1e1000000"),)


def test_a_unique_count_remembers_the_value():
    users = meter(Aggregation.UNIQUE_COUNT, "user")
    assert measure(users, {"user": "a"}) == Measured(Decimal(1), (), '"a"')
    assert measure(users, {"user": 1}) == measure(users, {"user": "1.0"}) == Measured(Decimal(1), (), "1")
    assert measure(users, {}) == Missing("user")
    assert measure(users, {"user": []}) == Refused("user", "not_scalar")
    assert measure(users, {"user": "x" * 201}) == Refused("user", "too_long")


def test_keys_of_dimension_sets_are_canonical_json_both_ways():
    dimensions = (("a", 'quo"te'), ("model", "opus é"), ("z", ""))
    assert dimension_key(dimensions) == '{"a":"quo\\"te","model":"opus é","z":""}'
    assert dimension_set(dimension_key(dimensions)) == dimensions
    assert dimension_key(()) == "{}"
    assert dimension_set("{}") == ()


def test_value_properties_are_a_path_or_a_weighted_list():
    assert weighted_properties("total_tokens") == (WeightedProperty("total_tokens"),)
    assert weighted_properties([{"property": "in"}, {"property": "out", "weight": "4.5"}]) == (
        WeightedProperty("in"),
        WeightedProperty("out", Decimal("4.5")),
    )
    assert weighted_properties([{"property": "cost", "money": True}]) == (WeightedProperty("cost", money=True),)
    assert weighted_properties(None) == ()


@pytest.mark.parametrize(
    "value_property",
    [
        "",
        "a..b",
        ".a",
        7,
        {"property": "a"},
        ["a"],
        [{"weight": "1"}],
        [{"property": "a", "wieght": "2"}],
        [{"property": "a", "weight": 2}],
        [{"property": "a", "weight": "0"}],
        [{"property": "a", "weight": "-1"}],
        [{"property": "a", "weight": "1e3"}],
        [{"property": "a", "weight": "0.0000000000001"}],
        [{"property": "a", "money": "yes"}],
    ],
)
def test_other_value_properties_are_refused(value_property):
    with pytest.raises(ValueError, match=r"path|property|weight"):
        weighted_properties(value_property)


@pytest.mark.parametrize("weight", ["NaN", "Infinity", "0", "-1", "1E-13", "1E+18", "1E-1000000", "1E+1000000"])
def test_a_weight_has_the_digits_of_a_quantity(weight):
    with pytest.raises(ValueError, match="weight"):
        WeightedProperty("tokens", Decimal(weight))


@pytest.mark.parametrize(
    "arguments",
    [
        {"aggregation": Aggregation.COUNT},
        {"value_property": None},
        {"aggregation": Aggregation.MAX, "value_property": []},
        {"aggregation": Aggregation.UNIQUE_COUNT, "value_property": [{"property": "a"}, {"property": "b"}]},
        {"value_property": [{"property": "a", "money": True}, {"property": "b"}]},
        {"value_property": [{"property": "a"}, {"property": "a", "weight": "2"}]},
        {"dimensions": ("model", "model")},
        {"dimensions": ("a..b",)},
        {"filters": {"": "x"}},
        {"filters": {"model": {"not": "opus"}}},
        {"filters": {"model": [["opus"]]}},
    ],
)
def test_meters_that_cannot_measure_are_refused(arguments):
    with pytest.raises(ValueError, match=r".+"):
        meter(**arguments)


READINGS = [
    Reading(TEN, "a", "2", Decimal(5), '"x"'),
    Reading(TEN, "b", "1", Decimal(3), '"y"'),
    Reading(TEN.replace(hour=9), "z", "9", Decimal(8), '"x"'),
]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("sum", 16), ("max", 8), ("latest", 3), ("unique_count", 2)],
)
def test_a_period_is_counted_again_from_its_events(aggregation, expected):
    assert fold(Aggregation(aggregation), READINGS) == expected
    assert fold(Aggregation(aggregation), reversed(READINGS)) == expected
    assert fold(Aggregation(aggregation), []) == 0


def test_a_recount_of_a_count_adds_its_ones():
    assert fold(Aggregation.COUNT, [reading._replace(quantity=Decimal(1)) for reading in READINGS]) == 3


def test_a_sum_is_exact_beyond_28_digits():
    large = Decimal("999999999999999999.999999999999")
    assert fold(Aggregation.SUM, [READINGS[0]._replace(quantity=large)] * 10) == Decimal(
        "9999999999999999999.999999999990"
    )
