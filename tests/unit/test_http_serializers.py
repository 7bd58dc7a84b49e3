"""Strict fields: what DRF's own would let through is refused."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from billing_site.http.problems import flattened
from billing_site.http.serializers import CodeField, DecimalStringField, StrictSerializer, TextField, TimestampField


def faults(serializer):
    assert not serializer.is_valid()
    return [(error.path, error.code) for error in flattened(serializer.errors)]


def refused_with(field, data):
    with pytest.raises(ValidationError) as caught:
        field.run_validation(data)
    return flattened(caught.value.detail)[0].code


class Price(StrictSerializer):
    unit_amount = DecimalStringField(minimum=0)
    number = serializers.IntegerField(read_only=True)


class Draft(StrictSerializer):
    name = TextField()
    prices = Price(many=True, required=False)


def test_an_unknown_member_is_refused_with_the_nearest_known_name():
    draft = Draft(data={"name": "Growth", "prices": [{"unit_amount": "1", "unit_amuont": "2"}]})
    assert not draft.is_valid()
    (error,) = flattened(draft.errors)
    assert error == ("prices.0.unit_amuont", "unknown_field", "This field is not known here. Did you mean unit_amount?")


def test_unknown_members_are_reported_together_with_other_faults():
    assert faults(Draft(data={"nmae": "x", "zzz": 1})) == [
        ("name", "required"),
        ("nmae", "unknown_field"),
        ("zzz", "unknown_field"),
    ]


def test_a_member_that_only_stands_in_answers_is_refused():
    assert faults(Price(data={"unit_amount": "1", "number": 3})) == [("number", "unknown_field")]


@pytest.mark.parametrize("data", [None, [], "x", 1])
def test_what_is_no_object_is_invalid(data):
    assert faults(Draft(data=data))[0][0] == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0.0002", "0.0002"),
        ("0", "0"),
        ("-0", "0"),
        ("100", "100"),
        ("1.50", "1.5"),
        ("-12.5", "-12.5"),
        ("999999999999999999.999999999999", "999999999999999999.999999999999"),
        (12, "12"),
        (9007199254740993, "9007199254740993"),
        (Decimal("0.1"), "0.1"),
        (Decimal("1E+3"), "1000"),
        (Decimal("1.0000000000000"), "1"),
        (Decimal("1E-12"), "0.000000000001"),
    ],
)
def test_decimals_are_read_exactly_and_written_plainly(given, expected):
    field = DecimalStringField()
    number = field.run_validation(given)
    assert type(number) is Decimal
    assert format(number, "f") == expected
    assert field.to_representation(number) == expected


@pytest.mark.parametrize(
    "given",
    [
        0.1,
        True,
        None,
        "",
        " 1 ",
        "+5",
        "01",
        ".5",
        "5.",
        "1e3",
        "1_000",
        "1,5",
        "1.000,00",
        "NaN",
        "sNaN",
        "Infinity",
        "１２",
        "٣",
        "1\n",
        "--1",
        "0x1",
        "1e400",
        "1E+1000000",
        Decimal("NaN"),
        Decimal("Infinity"),
        [],
        {},
    ],
)
def test_other_numbers_are_invalid(given):
    assert refused_with(DecimalStringField(), given) in ("invalid", "null")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("1" + "0" * 18, "too_large"),
        ("9" * 2000, "too_large"),
        (10**18, "too_large"),
        (10**4000, "too_large"),
        (Decimal("1E+18"), "too_large"),
        (Decimal("1E+999999"), "too_large"),
        (Decimal("1E-999999"), "too_fine"),
        (Decimal("0.30000000000000004"), "too_fine"),
        ("0.0000000000001", "too_fine"),
        ("1.0000000000000", "too_fine"),
        (Decimal("1E-13"), "too_fine"),
        ("-0.01", "too_small"),
        (-1, "too_small"),
    ],
)
def test_decimals_are_bounded(given, code):
    assert refused_with(DecimalStringField(minimum=0), given) == code


def test_the_bounds_of_a_decimal_can_be_set():
    field = DecimalStringField(max_integer_digits=2, max_decimals=1, minimum=Decimal("0.5"))
    assert field.run_validation("99.9") == Decimal("99.9")
    assert [refused_with(field, given) for given in ("100", "9.99", "0.4")] == ["too_large", "too_fine", "too_small"]


@pytest.mark.parametrize("value", [0.1, True])
def test_a_float_never_leaves(value):
    with pytest.raises(TypeError):
        DecimalStringField().to_representation(value)


def test_times_are_read_with_an_offset_and_written_in_utc():
    field = TimestampField()
    assert field.run_validation("2026-06-01T02:00:00+02:00") == datetime(2026, 6, 1, tzinfo=UTC)
    assert field.to_representation(datetime(2026, 6, 1, tzinfo=UTC)) == "2026-06-01T00:00:00Z"
    for given in ["2026-06-01T00:00:00", "2026-06-01", 1767225600, True, [], "infinity"]:
        assert refused_with(field, given) == "invalid"


@pytest.mark.parametrize("code", ["org_7890", "A.b:c@d-e", "0", "x" * 100])
def test_codes_are_kept_as_they_are(code):
    assert CodeField().run_validation(code) == code


@pytest.mark.parametrize("code", ["", " ", "a b", "a/b", "a\n", "é", "x" * 101, "a\x00", 7, True, "../x", "a%2f"])
def test_other_codes_are_refused(code):
    assert refused_with(CodeField(), code) in ("code", "blank")


@pytest.mark.parametrize("text", ["Growth", " kept ", "Žluťoučký 😀 ₿", "<b>'\"--"])
def test_texts_are_kept_as_they_are(text):
    assert TextField().run_validation(text) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "blank"),
        ("x" * 201, "max_length"),
        ("a\nb", "characters"),
        ("a\x00b", "characters"),
        ("a\x7fb", "characters"),
        ("a\x85b", "characters"),
        ("a\u2028b", "characters"),
        ("\ud800", "characters"),
        ("a\u202eb", "characters"),
        (7, "invalid"),
        (True, "invalid"),
        (None, "null"),
    ],
)
def test_other_texts_are_refused(text, code):
    assert refused_with(TextField(), text) == code


def test_a_multiline_text_may_have_new_lines_and_no_other_control_characters():
    field = TextField(max_length=10, multiline=True)
    assert field.run_validation("a\r\n\tb") == "a\r\n\tb"
    assert refused_with(field, "a\x0bb") == "characters"


def test_the_schema_knows_the_fields():
    schema = AutoSchema()
    assert schema._map_serializer_field(DecimalStringField(), "response")["format"] == "decimal"
    assert schema._map_serializer_field(TimestampField(), "response")["format"] == "date-time"
    assert schema._map_serializer_field(CodeField(), "response")["maxLength"] == 100
