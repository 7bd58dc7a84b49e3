"""What a body may be, and how values look in answers."""

import gzip
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from billing_site.http import wire
from billing_site.http.problems import BodyTooLarge, DomainError, MalformedJson, UnsupportedMediaType


def refusal(body):
    with pytest.raises(DomainError) as caught:
        wire.decode(body)
    return caught.value.status, caught.value.code


def test_numbers_are_read_exactly_as_written():
    document = wire.decode(b"[0.1, 12345678901234567.123456, 9007199254740993, 1e3, 0.30000000000000004, -0]")
    assert document == [
        Decimal("0.1"),
        Decimal("12345678901234567.123456"),
        9007199254740993,
        Decimal("1000"),
        Decimal("0.30000000000000004"),
        0,
    ]
    assert not any(isinstance(number, float) for number in document)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b'{"a":1,}',
        b'{/*c*/"a":1}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b"{'a':1}",
        b'{"a":1} x',
        b'{"a":1}{"a":1}',
        b'{"a":"\x00"}',
        b'{"a":"tab\there"}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xed\xa0\x80"}',
        b'{"a',
        b"]",
        b"}" * 10_000,
        b"[" * 20,
    ],
)
def test_what_is_not_one_json_document_in_utf8_is_malformed(body):
    assert refusal(body) == (400, "malformed_json")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 7_000 + b"1" + b"}" * 7_000,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b"[{}," + b"[" * 32 + b"]" * 32 + b",{}]",
    ],
)
def test_more_than_32_levels_are_too_deep(body):
    assert refusal(body) == (400, "too_deep")


def test_32_levels_are_read_and_brackets_in_strings_are_no_levels():
    assert wire.decode(b"[" * 32 + b"]" * 32)
    assert wire.decode(b"[" * 31 + b'{"a":1}' + b"]" * 31)
    text = "[" * 1000 + '\\"{' * 1000
    assert wire.decode(json.dumps({"a": text}).encode()) == {"a": text}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"quantity":1,"quantity":1000}', "quantity"),
        (b'{"a":{"b":1,"c":2,"b":1}}', "b"),
        (b'[{"a":1},{"a":1,"\\u0061":2}]', "a"),
        (b'{"a\\"b":1,"a\\"b":2}', 'a"b'),
        (b'{"\\\\":1,"\\\\":2}', "\\"),
        (b'{"":1,"":2}', ""),
    ],
)
def test_a_member_that_stands_twice_is_refused_and_named(body, name):
    with pytest.raises(MalformedJson) as caught:
        wire.decode(body)
    assert caught.value.status == 400
    assert [(error.path, error.code) for error in caught.value.errors] == [(name, "duplicate_member")]


def test_the_same_member_in_two_objects_is_no_duplicate():
    body = b'[{"a":1,"b":{"a":1}},{"a":":","c":"\\":\\\\"}]'
    assert wire.decode(body) == [{"a": 1, "b": {"a": 1}}, {"a": ":", "c": '":\\'}]


@pytest.mark.parametrize("body", [b'{"a":"x\\u0000y"}', b'{"a\\u0000":1}', b'["\\\\\\u0000"]'])
def test_nul_in_a_string_is_invalid(body):
    assert refusal(body) == (422, "validation")


def test_a_backslash_before_u0000_is_only_text():
    assert wire.decode(b'["\\\\u0000"]') == ["\\u0000"]


@pytest.mark.parametrize("text", ["\\ud800", "\\udc00", "a\\ud800b", "\\ud800\\ud800", "\\uDFFF\\uD800"])
def test_half_a_surrogate_pair_is_invalid(text):
    assert refusal(b'{"a":"' + text.encode() + b'"}') == (422, "validation")


def test_a_whole_surrogate_pair_is_a_character():
    assert wire.decode(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    "number",
    [
        "1e401",
        "1E+1000000",
        "1E-1000000",
        "-1e999999999999999999999",
        "1e-401",
        "0." + "0" * 400 + "1",
        "1" * 401,
        "1" * 5000,
        "0." + "1" * 401,
    ],
)
def test_numbers_of_silly_size_are_refused_before_anything_expands_them(number):
    assert refusal(f'{{"a":{number}}}'.encode()) == (422, "validation")


def test_numbers_within_400_powers_of_ten_are_read():
    assert wire.decode(b"[1e400, 1e-400, 0e5, 0.000e-300]") == [Decimal("1e400"), Decimal("1e-400"), 0, 0]


def test_a_number_may_have_400_digits_and_a_text_any_number_of_them():
    assert wire.decode(b"[" + b"9" * 400 + b', "' + b"9" * 5000 + b'"]') == [10**400 - 1, "9" * 5000]


def test_zero_with_an_exponent_stays_small():
    assert str(wire.decode(b"0e99999")) == "0"


def test_an_object_of_200_000_members_is_too_large():
    body = ("{" + ",".join(f'"k{index}":1' for index in range(200_000)) + "}").encode()
    assert refusal(body) == (413, "body_too_large")


def test_a_small_body_may_not_unfold_into_millions_of_objects():
    assert refusal(b"[" + b"{}," * 1_000_000 + b"{}]") == (413, "body_too_large")
    assert refusal(b"[" + b"[]," * 250_000 + b"1]") == (413, "body_too_large")
    assert refusal(b"[" + b"1," * 300_000 + b"1]") == (413, "body_too_large")


def test_proto_is_a_member_like_any_other():
    assert wire.decode(b'{"__proto__":{"x":1}}') == {"__proto__": {"x": 1}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_every_document_without_nul_is_read_as_the_standard_library_reads_it(document, escaped):
    body = json.dumps(document, ensure_ascii=escaped).encode()
    if "\\u0000" in json.dumps(document).replace("\\\\", ""):
        assert refusal(body) == (422, "validation")
    else:
        assert wire.decode(body) == document


@given(st.lists(st.tuples(st.text('a\\":{}[],', max_size=3), JSON), min_size=1, max_size=5))
def test_a_duplicate_is_found_exactly_when_there_is_one(pairs):
    body = ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}").encode()
    names = [name for name, _ in pairs]
    if "\\u0000" in body.decode().replace("\\\\", ""):
        return
    if len(set(names)) == len(names):
        assert list(wire.decode(body)) == names
    else:
        assert refusal(body) == (400, "malformed_json")


@given(st.binary(max_size=60) | st.text('{}[]",:\\u0d8e1.- ', max_size=30).map(str.encode))
def test_no_bytes_whatever_make_the_decoder_fail_otherwise(body):
    try:
        wire.decode(body)
    except DomainError as error:
        assert error.status in (400, 413, 422)


def test_gzip_is_unpacked_within_the_limit():
    assert wire.unpack(gzip.compress(b"[]"), "gzip") == b"[]"
    assert wire.unpack(b"[]", None) == wire.unpack(b"[]", " Identity ") == b"[]"
    bomb = gzip.compress(b"0" * (6 * 1024 * 1024))
    assert len(bomb) < 10_000
    with pytest.raises(BodyTooLarge):
        wire.unpack(bomb, "gzip")
    with pytest.raises(BodyTooLarge):
        wire.unpack(b"0" * 101, None, limit=100)
    assert wire.unpack(gzip.compress(b"0" * 100), "gzip", limit=100) == b"0" * 100


@pytest.mark.parametrize(
    "body", [b"[]", gzip.compress(b"[]")[:-1], gzip.compress(b"[]") + b"x", gzip.compress(b"[]") * 2, b""]
)
def test_broken_gzip_is_malformed(body):
    with pytest.raises(MalformedJson):
        wire.unpack(body, "gzip")


@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,identity", "br", "deflate", "zstd", "gzip;q=1"])
def test_other_encodings_and_several_are_refused(encoding):
    with pytest.raises(UnsupportedMediaType):
        wire.unpack(b"", encoding)


def test_media_types():
    assert wire.media_type("Application/JSON") == "application/json"
    assert wire.media_type('application/json;charset="utf-8"; x=y') == "application/json"
    cloud = "application/cloudevents-batch+json; charset=UTF-8"
    assert wire.media_type(cloud, allowed=wire.JSON_AND_CLOUD_EVENTS) == "application/cloudevents-batch+json"
    for refused in [None, "", "text/plain", "application/xml", "multipart/form-data; boundary=x", cloud]:
        with pytest.raises(UnsupportedMediaType):
            wire.media_type(refused)
    for charset in ["foo", "utf-16", "latin-1", ""]:
        with pytest.raises(UnsupportedMediaType):
            wire.media_type(f"application/json; charset={charset}")


def test_answers_hold_plain_decimals_and_utc_times():
    value = {
        "zero": Decimal("0E-12"),
        "amount": Decimal("99.000000"),
        "million": Decimal("1E+6"),
        "small": Decimal("-0.000000000001"),
        "at": datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2))),
        "precise_at": datetime(2026, 3, 1, 1, 30, 0, 5, tzinfo=UTC),
        "label": gettext_lazy("Yes"),
        "id": UUID(int=7),
        "list": (1, True, None, "x"),
    }
    assert json.loads(wire.encode(value)) == {
        "zero": "0",
        "amount": "99",
        "million": "1000000",
        "small": "-0.000000000001",
        "at": "2026-02-28T23:30:00Z",
        "precise_at": "2026-03-01T01:30:00.000005Z",
        "label": "Yes",
        "id": "00000000-0000-0000-0000-000000000007",
        "list": [1, True, None, "x"],
    }


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), datetime(2026, 1, 1)])
def test_answers_refuse_what_has_no_plain_form(value):
    with pytest.raises(ValueError, match="finite|offset"):
        wire.encode([value])
    with pytest.raises(TypeError):
        wire.encode(object())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T10:00:00Z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23T10:00:00.1Z", datetime(2026, 11, 23, 10, 0, 0, 100_000, tzinfo=UTC)),
        ("2026-11-23T10:00:00.123456789Z", datetime(2026, 11, 23, 10, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-11-23T10:00:00-00:00", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-10-25T02:30:00+02:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("2026-10-25T02:30:00+01:00", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
    ],
)
def test_times_with_an_offset_are_read(text, expected):
    assert wire.parse_timestamp(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T00:00:00",
        "2026-01-01 00:00:00Z",
        "2026-01-01",
        "2026-W01-1T00:00:00Z",
        "20260101T000000Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T00:00:00.1234567890Z",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00.Z",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        "3000-01-01T00:00:00Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00Z\n",
        "２０２６-01-01T00:00:00Z",
        "infinity",
        "now",
        "",
        1767225600000,
        None,
        True,
    ],
)
def test_other_times_are_refused(text):
    with pytest.raises(ValueError, match="Must be|year"):
        wire.parse_timestamp(text)
