"""The identity and content of an event: what is the same, what is not, and where two contents differ."""

import doctest
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from metering.core import identity
from metering.core.identity import Content, canonical, differing_fields, digest, fingerprint

TEN = datetime(2026, 11, 23, 10, tzinfo=UTC)
DATA = {"model": "opus", "input_tokens": 1200, "usage": {"cached": True, "cost": Decimal("0.25")}, "tags": ["a", None]}


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(identity).failed == 0


def test_a_digest_has_16_bytes_and_never_changes():
    # Stored for ever: another algorithm would count every event of the past again.
    assert digest("default", "req_81f").hex() == "d69d1913e22dfaa702e58bfd229cdef3"
    assert fingerprint("llm.completion", {"input_tokens": 1200}, TEN).hex() == "d86e59ebdfdc4d76c508e926057fd717"


def test_source_and_id_do_not_run_into_each_other():
    assert len({digest("a", "bc"), digest("ab", "c"), digest("", "abc"), digest("abc", ""), digest("1:a", "bc")}) == 5


def test_keys_are_case_sensitive_and_not_trimmed_or_normalised():
    keys = ["A", "a", "a ", " a", "\u00e9", "e\u0301", "\uff21", "a\u0000", "\ud800"]
    assert len({digest("default", key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    "spelling", [1, Decimal("1"), Decimal("1.0"), Decimal("1E+0"), Decimal("0.1E1"), "1", "1.0", "1.000000000000"]
)
def test_a_number_is_the_same_however_it_is_spelt(spelling):
    assert fingerprint("t", {"quantity": spelling}, None) == fingerprint("t", {"quantity": 1}, None)


@pytest.mark.parametrize("spelling", [0, Decimal("0.0"), Decimal("-0.0"), Decimal("0E+1000000"), "0", "-0", "0.00"])
def test_there_is_one_zero(spelling):
    assert canonical(spelling) == "0"


@pytest.mark.parametrize("other", ["1 ", "01", "+1", "1e0", "1.0000000000000", "\uff11", "", True, None, [1], {"1": 1}])
def test_what_is_no_plain_number_is_not_taken_for_one(other):
    assert canonical(other) != canonical(1)


def test_large_numbers_are_the_same_in_every_spelling_and_never_expanded():
    assert canonical(10**40) == canonical(Decimal("1E+40")) == canonical(Decimal("10.0E+39")) == "1e40"
    assert canonical(-(10**30) - 1) == "-1000000000000000000000000000001e0"
    assert canonical(Decimal("1E+1000000")) == "1e1000000"
    assert canonical(Decimal("-25E-1000000")) == "-25e-1000000"
    assert canonical(10**5000) == canonical(Decimal("1E+5000"))


def test_a_double_beyond_53_bits_keeps_its_last_digit():
    assert canonical(9007199254740993) != canonical(9007199254740992)
    assert canonical(Decimal("12345678901234567.123456")) == "12345678901234567.123456"


def test_members_may_come_in_any_order():
    shuffled = {name: DATA[name] for name in reversed(DATA)}
    assert fingerprint("t", shuffled, None) == fingerprint("t", DATA, None)


def test_items_of_an_array_may_not():
    assert fingerprint("t", {"a": [1, 2]}, None) != fingerprint("t", {"a": [2, 1]}, None)


def test_times_are_compared_as_instants():
    in_paris = TEN.astimezone(timezone(timedelta(hours=1)))
    assert fingerprint("t", {}, in_paris) == fingerprint("t", {}, TEN)
    assert fingerprint("t", {}, TEN + timedelta(microseconds=1)) != fingerprint("t", {}, TEN)
    assert fingerprint("t", {}, None) != fingerprint("t", {}, TEN)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="zone"):
        fingerprint("t", {}, datetime(2026, 1, 1))


def test_a_float_is_refused():
    with pytest.raises(TypeError, match="float"):
        fingerprint("t", {"quantity": 0.1}, None)


def test_text_cannot_imitate_structure():
    texts = [{"a": '1,"b":2'}, {"a": 1, "b": 2}, {"a": "null"}, {"a": None}, {"a": "true"}, {"a": True}, {'a":1,"b': 2}]
    assert len({canonical(text) for text in texts}) == len(texts)
    assert fingerprint('t"', {}, None) != fingerprint("t", {}, None)


def test_differences_are_named_by_dotted_paths():
    stored = Content("llm.completion", DATA, TEN)
    sent = Content(
        "llm.chat",
        {"model": "opus", "input_tokens": "1200.0", "usage": {"cached": False, "price": 1}, "tags": ["a", None, "b"]},
        None,
    )
    assert differing_fields(stored, sent) == [
        "type",
        "time",
        "data.tags.2",
        "data.usage.cached",
        "data.usage.cost",
        "data.usage.price",
    ]


def test_null_is_not_the_same_as_absent():
    assert differing_fields(Content("t", {"a": None}, None), Content("t", {}, None)) == ["data.a"]


def test_equal_contents_differ_nowhere():
    assert differing_fields(Content("t", DATA, TEN), Content("t", dict(DATA), TEN)) == []


def test_at_most_20_differences_are_named():
    many = {f"field_{number:03}": number for number in range(1000)}
    assert differing_fields(Content("t", many, None), Content("t", {}, None))[-1] == "data.field_019"
