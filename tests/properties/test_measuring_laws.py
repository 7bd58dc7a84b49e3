"""The laws of reading events: numbers by value, contents by meaning, and an answer for every JSON."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metering.core.identity import Content, canonical, differing_fields, digest, fingerprint, is_canonical
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
)

quantities = st.one_of(
    st.integers(0, 1000).map(Decimal),
    st.decimals(min_value=0, max_value=Decimal("999999999999999999.999999999999"), places=12),
)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
numbers = st.one_of(st.integers(), st.decimals(allow_nan=False, allow_infinity=False))
scalars = st.one_of(
    st.none(), st.booleans(), numbers, names, st.from_regex(r"-?[0-9]{1,3}(\.[0-9]{1,3})?", fullmatch=True)
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)
objects = st.dictionaries(names, documents, max_size=4)
instants = st.datetimes(
    min_value=datetime(2020, 1, 1),
    max_value=datetime(2030, 1, 1),
    timezones=st.just(UTC) | st.just(timezone(timedelta(hours=2))),
)
contents = st.builds(Content, names, objects, st.none() | instants)


@st.composite
def spellings(draw, quantity):
    """Write a quantity in one of the ways in which JSON may carry it."""
    plain = format(quantity, "f")
    ways = [plain, quantity, Decimal(f"{plain}E+0"), Decimal(f"{int(Fraction(quantity) * 10**12)}E-12")]
    if quantity == quantity.to_integral_value():
        ways += [int(quantity), str(int(quantity))]
    if "." in plain:
        ways += [plain.rstrip("0").rstrip(".")]
    return draw(st.sampled_from(ways))


@given(quantities, st.data())
@settings(deadline=None)
def test_a_quantity_is_measured_exactly_however_it_is_spelt(quantity, data):
    spelling = data.draw(spellings(quantity))
    meter = MeterDefinition("m", "t", Aggregation.SUM, properties=(WeightedProperty("q"),))
    measured = measure(meter, {"q": spelling})
    assert isinstance(measured, Measured)
    assert Fraction(measured.quantity) == Fraction(quantity)
    assert fingerprint("t", {"q": spelling}, None) == fingerprint("t", {"q": quantity}, None)


@given(st.lists(st.tuples(quantities, st.integers(1, 10**6)), min_size=1, max_size=4))
@settings(deadline=None)
def test_a_weighted_sum_is_exact_or_refused(terms):
    weights = [Decimal(weight).scaleb(-3) for _, weight in terms]
    meter = MeterDefinition(
        "m",
        "t",
        Aggregation.SUM,
        properties=tuple(WeightedProperty(f"p{number}", weight) for number, weight in enumerate(weights)),
    )
    expected = sum(Fraction(quantity) * Fraction(weight) for (quantity, _), weight in zip(terms, weights, strict=True))
    fits = expected < 10**18 and (expected * 10**12).denominator == 1
    result = measure(meter, {f"p{number}": quantity for number, (quantity, _) in enumerate(terms)})
    assert isinstance(result, Measured if fits else Refused)
    if fits:
        assert Fraction(result.quantity) == expected


@given(
    objects,
    st.sampled_from(Aggregation),
    st.booleans(),
    st.lists(names.filter(lambda name: name and "." not in name), max_size=2, unique=True),
)
@settings(deadline=None)
def test_every_json_object_has_an_answer(data, aggregation, money, dimensions):
    path = next((name for name in data if name and "." not in name), "absent")
    properties = () if aggregation == Aggregation.COUNT else (WeightedProperty(path, money=money),)
    meter = MeterDefinition("m", "t", aggregation, properties=properties, dimensions=tuple(dimensions))
    result = measure(meter, data)
    assert isinstance(result, Measured | Missing | Refused)
    if isinstance(result, Measured):
        assert 0 <= result.quantity < 10**18
        assert [name for name, _ in result.dimensions] == sorted(dimensions)
        assert dimension_set(dimension_key(result.dimensions)) == result.dimensions


@given(scalars, scalars)
@settings(deadline=None)
def test_a_filter_matches_exactly_what_is_canonically_equal(wanted, value):
    meter = MeterDefinition("m", "t", Aggregation.COUNT, filters={"path": wanted})
    matches = not isinstance(measure(meter, {"path": value}), NotMatched)
    assert matches is (canonical(wanted) == canonical(value))


def shuffled(document, random):
    """The same JSON with the members of each object in another order."""
    if isinstance(document, dict):
        members = list(document.items())
        random.shuffle(members)
        return {name: shuffled(inner, random) for name, inner in members}
    if isinstance(document, list):
        return [shuffled(inner, random) for inner in document]
    return document


@given(contents, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_members_is_no_content(content, random):
    again = content._replace(data=shuffled(content.data, random))
    assert fingerprint(*again) == fingerprint(*content)


@given(contents, contents)
@settings(deadline=None)
def test_fingerprints_differ_exactly_where_some_field_does(stored, sent):
    for other in (
        sent,
        stored._replace(data=sent.data),
        stored._replace(time=sent.time),
        stored._replace(type=sent.type),
    ):
        assert (fingerprint(*stored) == fingerprint(*other)) is (differing_fields(stored, other) == [])


@given(names, names, names, names)
@settings(deadline=None)
def test_digests_are_equal_only_for_the_same_source_and_id(source, event_id, other_source, other_id):
    same = (source, event_id) == (other_source, other_id)
    assert (digest(source, event_id) == digest(other_source, other_id)) is same


@given(numbers, numbers)
@settings(deadline=None)
def test_numbers_have_one_text_each(one, other):
    assert (canonical(one) == canonical(other)) is (one == other)
    if abs(Decimal(one).adjusted()) < 1000:
        assert Decimal(canonical(one)) == one


_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
# Such as most events hold, and what lies next to it: escapes, numbers as words, words that begin like one, edges of size.
plain_objects = st.dictionaries(
    words,
    st.recursive(
        st.none() | st.booleans() | st.integers(-1, 10**19) | words | st.text('-0.19Ee"\\\n\x7f\u2028,:{}', max_size=3),
        lambda inner: st.dictionaries(words, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)


@given(plain_objects | objects)
@example({"a": Decimal("-0")})
@example({"a": Decimal(10) ** 17, "b": {"c": {}}, "": {}})
@example({"b": 10**18, "a": '":1,"'})
@settings(deadline=None, max_examples=500)
def test_what_passes_for_canonical_text_is_it(document):
    text = _encode(document).decode()
    if is_canonical(text):
        assert text == canonical(document)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", True),
        ('{"model":"opus é","tokens":7,"usage":{"cached":true,"in":0,"none":null},"z":{}}', True),
        ('{"a":999999999999999999}', True),
        ('{"a":1000000000000000000}', False),
        ('{"a":"7.0"}', False),
        ('{"a":"-7"}', False),
        ('{"a":"7 days"}', False),
        ('{"a":-7}', False),
        ('{"a":7.5}', False),
        ('{"a":0.5}', False),
        ('{"a":1e3}', False),
        ('{"a":"\\n"}', False),
        ('{"a":[1]}', False),
        ('{"a":1}\n', False),
    ],
)
def test_common_texts_are_seen_to_be_canonical_and_others_left_to_the_careful_way(text, expected):
    assert is_canonical(text) is expected


readings = st.lists(
    st.builds(
        Reading,
        occurred_at=instants,
        source=st.sampled_from("ab"),
        event_id=st.integers(0, 99).map(str),
        quantity=quantities,
        seen=st.sampled_from(["x", "y"]),
    ),
    unique_by=lambda reading: (reading.source, reading.event_id),
    max_size=8,
)


@given(st.sampled_from(Aggregation), readings, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_a_recount_does_not_depend_on_the_order_of_events(aggregation, readings, random):
    counted = fold(aggregation, readings)
    random.shuffle(readings)
    assert fold(aggregation, readings) == counted
