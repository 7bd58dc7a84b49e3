"""The JSON form of a price: what is read, and how each fault is named."""

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from subscriptions.core.price_documents import PriceError, parse_price, price_document
from subscriptions.core.pricing import (
    Band,
    Operation,
    Price,
    PriceModel,
    Rounding,
    Transform,
    ZeroUsage,
)


def faults(document: Any) -> list[tuple[str, str]]:
    with pytest.raises(PriceError) as caught:
        parse_price(document)
    assert all(message for _, _, message in caught.value.errors)
    return [(path, code) for path, code, _ in caught.value.errors]


def unit_amount_faults(value: Any) -> list[tuple[str, str]]:
    return faults({"model": "per_unit", "unit_amount": value})


def bands_faults(*bands: Any) -> list[tuple[str, str]]:
    return faults({"model": "graduated", "bands": list(bands)})


@pytest.mark.parametrize(
    ("document", "price"),
    [
        ({"model": "flat", "amount": 20}, Price(PriceModel.FLAT, amount=Decimal(20))),
        (
            {"model": "per_unit", "unit_amount": Decimal("2E-4"), "free_units": 0, "percent_discount": None},
            Price(PriceModel.PER_UNIT, unit_amount=Decimal("0.0002")),
        ),
        (
            {"model": "package", "size": "1000", "amount": "0.20", "free_units": "5"},
            Price(PriceModel.PACKAGE, size=Decimal(1000), amount=Decimal("0.2"), free_units=Decimal(5)),
        ),
        (
            {
                "model": "volume",
                "bands": [{"up_to": "10", "unit_amount": "1"}, {"up_to": None, "unit_amount": "0", "flat_amount": "3"}],
                "zero_usage": "first_tier_flat",
                "transform": {"op": "divide", "by": 1000, "round": "up"},
                "amount_min": 0,
            },
            Price(
                PriceModel.VOLUME,
                bands=(Band(Decimal(10), Decimal(1)), Band(None, Decimal(0), Decimal(3))),
                zero_usage=ZeroUsage.FIRST_TIER_FLAT,
                transform=Transform(Operation.DIVIDE, Decimal(1000), Rounding.UP),
                amount_min=Decimal(0),
            ),
        ),
        (
            {"model": "percentage", "rate": "1.3", "fixed_amount": 2, "free_value": 250, "free_events": "3.0"},
            Price(
                PriceModel.PERCENTAGE,
                rate=Decimal("1.3"),
                fixed_amount=Decimal(2),
                free_value=Decimal(250),
                free_events=3,
            ),
        ),
        (
            {"model": "graduated_percentage", "bands": [{"rate": "2.5"}]},
            Price(PriceModel.GRADUATED_PERCENTAGE, bands=(Band(None, Decimal("2.5")),)),
        ),
        ({"model": "dynamic", "multiplier": "1.35"}, Price(PriceModel.DYNAMIC, multiplier=Decimal("1.35"))),
    ],
)
def test_a_document_of_each_model_is_read_and_written_again(document: dict[str, Any], price: Price) -> None:
    assert parse_price(document) == price
    written = json.loads(json.dumps(price_document(price)))
    assert parse_price(written) == price
    assert price_document(parse_price(written)) == written


def test_a_price_is_written_with_plain_strings_and_without_defaults() -> None:
    price = Price(
        PriceModel.GRADUATED,
        bands=(Band(Decimal("1E+4"), Decimal("2.00E-7")), Band(None, Decimal("0.10"), Decimal("5.00"))),
        zero_usage=ZeroUsage.FIRST_TIER_FLAT,
        transform=Transform(Operation.MULTIPLY, Decimal("1.50")),
        percent_discount=Decimal("10.0"),
        amount_max=Decimal(0),
    )
    assert price_document(price) == {
        "model": "graduated",
        "bands": [
            {"up_to": "10000", "unit_amount": "0.0000002", "flat_amount": "0"},
            {"up_to": None, "unit_amount": "0.1", "flat_amount": "5"},
        ],
        "zero_usage": "first_tier_flat",
        "transform": {"op": "multiply", "by": "1.5", "round": "none"},
        "percent_discount": "10",
        "amount_max": "0",
    }


def test_the_largest_and_the_finest_number_are_kept_to_the_last_digit() -> None:
    price = parse_price({"model": "per_unit", "unit_amount": "999999999999999999.999999999999"})
    assert price_document(price)["unit_amount"] == "999999999999999999.999999999999"
    assert parse_price({"model": "per_unit", "unit_amount": "1E-12"}).unit_amount == Decimal("0.000000000001")


def test_zeros_after_the_twelfth_decimal_are_no_digits() -> None:
    assert parse_price({"model": "per_unit", "unit_amount": "0.50000000000000000"}).unit_amount == Decimal("0.5")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0.5, "not_a_decimal"),
        (float("nan"), "not_a_decimal"),
        (True, "not_a_decimal"),
        ("", "not_a_decimal"),
        (" 1", "not_a_decimal"),
        ("1\n", "not_a_decimal"),
        ("1_000", "not_a_decimal"),
        ("1,5", "not_a_decimal"),
        ("+1", "not_a_decimal"),
        (".5", "not_a_decimal"),
        ("0x10", "not_a_decimal"),
        ("１", "not_a_decimal"),
        ("NaN", "not_a_decimal"),
        ("Infinity", "not_a_decimal"),
        (Decimal("NaN"), "not_a_decimal"),
        (Decimal("sNaN"), "not_a_decimal"),
        (Decimal("-Infinity"), "not_a_decimal"),
        ([], "not_a_decimal"),
        ({"amount": 1}, "not_a_decimal"),
        (b"1", "not_a_decimal"),
        ("-0.01", "negative"),
        (-1, "negative"),
        pytest.param(-(10**5000), "negative", id="-(10**5000)"),
        (10**18, "too_large"),
        ("1000000000000000000", "too_large"),
        pytest.param(10**5000, "too_large", id="10**5000"),
        ("0.0000000000001", "too_precise"),
        (Decimal("1.0000000000001"), "too_precise"),
    ],
)
def test_what_is_no_price_is_refused_by_name(value: Any, code: str) -> None:
    assert unit_amount_faults(value) == [("unit_amount", code)]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("1E+1000000", "too_large"),
        (Decimal("1E+1000000"), "too_large"),
        (Decimal("1E+999999999999"), "too_large"),
        ("1E-1000000", "too_precise"),
        (Decimal("1E-999999999999"), "too_precise"),
        ("1E+999999999999999999999", "not_a_decimal"),
        pytest.param("9" * 1_000_000, "too_large", id="a-million-digits"),
        pytest.param(1 << 10_000_000, "too_large", id="a-long-integer"),
        pytest.param("0." + "3" * 1_000_000, "too_precise", id="a-million-decimals"),
    ],
)
def test_a_number_that_would_explode_is_refused_at_once(value: Any, code: str) -> None:
    started = time.process_time()
    assert unit_amount_faults(value) == [("unit_amount", code)]
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("zero", ["-0", "0E+99999999", Decimal("0E-999999999999"), "0.000000000000000"])
def test_every_zero_is_the_same_zero(zero: Any) -> None:
    assert price_document(parse_price({"model": "flat", "amount": zero})) == {"model": "flat", "amount": "0"}


@pytest.mark.parametrize("document", [None, [], "flat", 3, 0.5])
def test_a_document_is_an_object(document: Any) -> None:
    assert faults(document) == [("", "not_an_object")]


@pytest.mark.parametrize(
    ("model", "missing"),
    [
        ("flat", ["amount"]),
        ("per_unit", ["unit_amount"]),
        ("package", ["size", "amount"]),
        ("graduated", ["bands"]),
        ("volume", ["bands"]),
        ("percentage", ["rate"]),
        ("graduated_percentage", ["bands"]),
        ("dynamic", ["multiplier"]),
    ],
)
def test_each_model_says_what_it_needs(model: str, missing: list[str]) -> None:
    assert faults({"model": model}) == [(name, "required") for name in missing]
    assert faults({"model": model, **dict.fromkeys(missing)}) == [(name, "required") for name in missing]


def test_an_unknown_or_missing_model_is_named_beside_the_other_faults() -> None:
    assert faults({}) == [("model", "required")]
    assert faults({"model": "per-unit", "unit_amount": "x", "unitamount": 1}) == [
        ("unitamount", "unknown_field"),
        ("model", "unknown_choice"),
        ("unit_amount", "not_a_decimal"),
    ]
    assert faults({"model": ["flat"], "amount": 1}) == [("model", "unknown_choice")]


def test_fields_of_another_model_are_refused() -> None:
    foreign = {"bands": [{"unit_amount": 1}], "zero_usage": "zero", "free_units": 1, "rate": 1, "transform": {}}
    codes = faults({"model": "flat", "amount": 1, **foreign})
    assert [code for code in codes if code[1] == "not_allowed"] == [
        ("bands", "not_allowed"),
        ("zero_usage", "not_allowed"),
        ("transform", "not_allowed"),
        ("rate", "not_allowed"),
        ("free_units", "not_allowed"),
    ]
    assert faults({"model": "dynamic", "multiplier": 1, "free_units": 1}) == [("free_units", "not_allowed")]
    assert faults({"model": "per_unit", "unit_amount": 1, "zero_usage": "zero"}) == [("zero_usage", "not_allowed")]


def test_bands_ascend_from_above_0_and_the_last_alone_is_open() -> None:
    assert bands_faults() == [("bands", "required")]
    assert bands_faults({"up_to": 10, "unit_amount": 1}) == [("bands.0.up_to", "last_band_open")]
    assert bands_faults({"unit_amount": 1}, {"unit_amount": 1}) == [("bands.0.up_to", "last_band_open")]
    assert bands_faults({"up_to": 0, "unit_amount": 1}, {"unit_amount": 1}) == [("bands.0.up_to", "not_positive")]
    assert bands_faults(
        {"up_to": 10, "unit_amount": 1},
        {"up_to": 10, "unit_amount": 1},
        {"up_to": "9.99", "unit_amount": 1},
        {"up_to": 11, "unit_amount": 1},
        {"unit_amount": 1},
    ) == [("bands.1.up_to", "not_ascending"), ("bands.2.up_to", "not_ascending")]


def test_a_malformed_limit_does_not_hide_that_a_later_one_falls() -> None:
    assert bands_faults(
        {"up_to": 10, "unit_amount": 1},
        {"up_to": "x", "unit_amount": 1},
        {"up_to": 9, "unit_amount": 1},
        {"unit_amount": 1},
    ) == [("bands.1.up_to", "not_a_decimal"), ("bands.2.up_to", "not_ascending")]


def test_every_fault_of_every_band_is_named() -> None:
    assert bands_faults(
        {"up_to": "ten", "unit_amount": -1, "flat_amount": "0.0000000000001"},
        "band",
        {"up_to": 5, "unit_ammount": 1},
        {"rate": 1, "unit_amount": 0.5},
    ) == [
        ("bands.0.up_to", "not_a_decimal"),
        ("bands.0.unit_amount", "negative"),
        ("bands.0.flat_amount", "too_precise"),
        ("bands.1", "not_an_object"),
        ("bands.2.unit_ammount", "unknown_field"),
        ("bands.2.unit_amount", "required"),
        ("bands.3.rate", "unknown_field"),
        ("bands.3.unit_amount", "not_a_decimal"),
    ]


def test_bands_are_a_list_of_at_most_100() -> None:
    assert faults({"model": "volume", "bands": {"0": {}}}) == [("bands", "not_a_list")]
    assert faults({"model": "volume", "bands": "[]"}) == [("bands", "not_a_list")]
    bands = [{"up_to": limit, "unit_amount": 1} for limit in range(1, 100)]
    assert len(parse_price({"model": "volume", "bands": [*bands, {"unit_amount": 1}]}).bands) == 100
    assert bands_faults(*bands, *bands) == [("bands", "too_many")]


def test_a_transform_is_judged_in_all_its_parts() -> None:
    def transform_faults(transform: Any) -> list[tuple[str, str]]:
        return faults({"model": "per_unit", "unit_amount": 1, "transform": transform})

    assert transform_faults({}) == [("transform.op", "required"), ("transform.by", "required")]
    assert transform_faults({"op": "add", "by": 0, "round": "even", "places": 2}) == [
        ("transform.places", "unknown_field"),
        ("transform.op", "unknown_choice"),
        ("transform.by", "not_positive"),
        ("transform.round", "unknown_choice"),
    ]
    assert transform_faults("divide") == [("transform", "not_an_object")]


def test_values_that_are_wrong_only_together_are_refused() -> None:
    assert faults({"model": "flat", "amount": 1, "amount_min": 10, "amount_max": "9.99"}) == [
        ("amount_min", "above_maximum")
    ]
    percentage = {"model": "percentage", "rate": 1, "minimum_per_event": 2, "maximum_per_event": 1}
    transform = {"op": "divide", "by": 100}
    assert faults(percentage | {"free_value": 1, "free_events": 1, "transform": transform}) == [
        ("minimum_per_event", "above_maximum"),
        ("free_value", "not_allowed"),
        ("free_events", "not_allowed"),
        ("transform", "not_allowed"),
    ]
    equal = percentage | {"minimum_per_event": 1, "free_value": 0, "free_events": 0}
    assert parse_price(equal).clamps_events


def test_a_discount_is_at_most_the_whole_and_free_events_are_whole() -> None:
    assert faults({"model": "flat", "amount": 1, "percent_discount": "100.01"}) == [("percent_discount", "too_large")]
    assert parse_price({"model": "flat", "amount": 1, "percent_discount": 100}).percent_discount == 100
    assert faults({"model": "percentage", "rate": 1, "free_events": "1.5"}) == [("free_events", "not_whole")]


def test_the_message_says_where_and_what() -> None:
    with pytest.raises(PriceError) as caught:
        parse_price({"model": "per_unit", "unit_amount": "-1", "x": 1})
    assert "unit_amount: must not be negative" in str(caught.value)
    assert "x: is no field here" in str(caught.value)


def test_a_hostile_document_gets_no_endless_answer() -> None:
    names = {f"{'x' * 200}{number}": None for number in range(2_000)}
    with pytest.raises(PriceError) as caught:
        parse_price({10**5000: 1, **names})
    assert len(caught.value.errors) == 500
    assert max(len(path) for path, _, _ in caught.value.errors) == 100
