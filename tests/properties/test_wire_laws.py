"""Laws of reading events: no form, neighbour or spelling changes what an event says, and nothing crashes the reader."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import quote

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from billing_site.http.problems import DomainError
from metering.api import wire
from metering.services.requests import NewEvent, Rejected

JSON = {"content-type": "application/json"}
STRUCTURED = {"content-type": wire.STRUCTURED}
BATCH = {"content-type": wire.BATCH}

keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)
subjects = st.text("abzABZ019._:@-", min_size=1, max_size=20)
types = st.text(min_size=1, max_size=20).filter(str.isprintable)
# What may stand in a string: everything but NUL and lone surrogates.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(10**30), 10**30) | st.decimals(-(10**18), 10**18, places=6)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
instants = st.datetimes(datetime(1971, 1, 1), datetime(2900, 1, 1), timezones=st.just(UTC))
contents = st.dictionaries(texts, values, max_size=5)
events = st.builds(NewEvent, subjects, keys, keys, types, st.none() | instants, contents)

_encode = msgspec.json.Encoder(decimal_format="number").encode


def native(event):
    time = {} if event.time is None else {"time": event.time.isoformat()}
    return {
        "data": event.data,
        **time,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
    }


def cloud(event):
    return {"specversion": "1.0", **native(event), "traceparent": "00-1"}


def escaped(body):
    """Write every character beyond ASCII as an escape: another spelling of the same document."""
    return "".join(one if one.isascii() else json.dumps(one)[1:-1] for one in body.decode()).encode()


def exact_type(value):
    """Return the value with its type beside every number, as 1 and Decimal(1) are equal but not the same."""
    if isinstance(value, dict):
        return {name: exact_type(part) for name, part in value.items()}
    if isinstance(value, list):
        return [exact_type(part) for part in value]
    return type(value), value


@given(events)
def test_every_form_says_the_same(event):
    one, many = wire.Parsed(True, [event]), wire.Parsed(False, [event])
    body = _encode(native(event))
    assert wire.parse(body, JSON) == one
    assert wire.parse(escaped(body), JSON) == one
    assert wire.parse(b"[%s]" % body, JSON) == many
    assert wire.parse(b' {"events" : [%s] } ' % body, JSON) == many
    assert wire.parse(_encode(cloud(event)), STRUCTURED) == one
    assert wire.parse(b"[%s]" % _encode(cloud(event)), BATCH) == many
    attributes = {f"ce-{name}": quote(value) for name, value in cloud(event).items() if name != "data"}
    assert wire.parse(_encode(event.data), JSON | attributes) == one


@given(events)
def test_numbers_stay_what_they_are_and_none_is_a_float(event):
    (read,) = wire.parse(_encode(native(event)), JSON).events
    assert exact_type(read.data) == exact_type(event.data)


FAULTY = [
    b'{"id": "x"}',
    b"null",
    b'"text"',
    b'{"a": 1, "a": 2}',
    b'{"data": {"a": "\\u0000"}}',
    b'{"data": {"a": "\\ud800"}}',
    b'{"data": {"a": "\\udc00\\ud800 \\" : ["}}',
    b'{"data": {"a": 1e9999999999}}',
    b"[" * 50 + b"]" * 50,
]


@given(st.lists(events | st.sampled_from(FAULTY), min_size=1, max_size=8))
@example([FAULTY[4], NewEvent("a", "b", "c", "d", None, {'":': '":,[{\\', "\\": "\\\\"})])
def test_a_faulty_event_is_rejected_in_its_place_and_changes_no_other(mixed):
    body = b",".join(one if isinstance(one, bytes) else _encode(native(one)) for one in mixed)
    read = wire.parse(b"[%s]" % body, JSON).events
    assert len(read) == len(mixed)
    for sent, got in zip(mixed, read, strict=True):
        if isinstance(sent, bytes):
            assert isinstance(got, Rejected)
        else:
            assert got == sent


json_like = st.lists(
    st.sampled_from(
        [b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b'"id"', b'"events":', b'"data"']
        + [b"1", b"-", b"1e999", b"NaN", b"null", b" ", b"\xff", b"\xc3\xa9", b'"a"', b'"specversion":"1.0"']
    ),
    max_size=25,
).map(b"".join)


@given(json_like | st.binary(max_size=40), st.sampled_from([JSON, STRUCTURED, BATCH, JSON | {"ce-id": "1"}]))
def test_any_bytes_are_read_or_refused_by_name(body, headers):
    try:
        parsed = wire.parse(body, headers)
    except DomainError as error:
        assert 400 <= error.status < 500
    else:
        assert parsed.events


@given(st.dictionaries(texts, values, max_size=8) | values)
def test_any_document_is_read_or_rejected_or_refused_by_name(document):
    body = _encode(document)
    try:
        parsed = wire.parse(body, JSON)
    except DomainError as error:
        assert error.status in (400, 413, 422)
    else:
        assert all(isinstance(event, Rejected) for event in parsed.events)


@given(st.integers(0, 10**9 - 1), st.integers(1, 9))
def test_fractions_of_a_second_are_cut_and_never_rounded(nanoseconds, digits):
    fraction = f"{nanoseconds:09}"[:digits]
    event = native(NewEvent("a", "b", "c", "d", None, {})) | {"time": f"2026-06-01T00:00:00.{fraction}Z"}
    (read,) = wire.parse(_encode(event), JSON).events
    assert read.time.microsecond == int(Decimal(f"0.{fraction}") * 1_000_000)
