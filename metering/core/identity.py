"""
When two events are the same: the digest of their identity, the fingerprint of their content, and where two contents
differ.

Owns the canonical text of a JSON value. Does not own the subject (it stands beside the digest), nor the window of
accepted times: identity is judged before it, so that a request may be sent again at any time. Source: semantics,
"Identity of an event".
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from itertools import islice
from json.encoder import encode_basestring
from typing import NamedTuple

from metering.core.quantities import QUANTITY_STRING

_EMPTY = blake2b(digest_size=16)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLAIN_EXPONENTS = range(-30, 30)  # of the leading digit; numbers outside are written with an exponent, never expanded
_PLAIN_INTEGER_LIMIT = 10**30
_BEGINNINGS_OF_NUMBERS = "-0123456789"
_DIFFERENCES_MAX = 20


class Content(NamedTuple):
    """What must be equal in a repeated event. `time` is None where the sender left it out, and the moment of receipt was taken."""

    type: str
    data: Mapping[str, object]
    time: datetime | None


def digest(source: str, event_id: str) -> bytes:
    """
    Return the 16 bytes that stand for (source, id) in the event keys of one subject.

    Case-sensitive, nothing is trimmed, and no source and id run into each other: ("a", "bc") is not ("ab", "c").
    """
    return _blake(f"{len(source)}:{source}{event_id}")


def value_digest(dimension_key: str, seen: str) -> bytes:
    """Return the 16 bytes that stand for a value of a unique count, given as canonical text, in a dimension set."""
    return _blake(f"{len(dimension_key)}:{dimension_key}{seen}")


def fingerprint(type: str, data: Mapping[str, object], time: datetime | None) -> bytes:
    """
    Return 16 bytes that are equal for equal content: type, data, and the time if it was sent.

    Numbers are compared by value and members in any order: 1, 1.0 and 1e0 are the same, and so is the string "1.00",
    because a quantity may be sent either way. Times are compared as instants, to the microsecond.

    `data` is decoded JSON with Decimal for every fraction; a float is a TypeError, because it has lost digits already.
    A time without a zone is a ValueError.
    """
    return fingerprint_of_text(type, canonical(data), time)


def fingerprint_of_text(type: str, canonical_data: str, time: datetime | None) -> bytes:
    """Return the fingerprint of content whose data is at hand as canonical text."""
    return _blake(f"{encode_basestring(type)}{_instant(time)}{canonical_data}")


# Objects in objects, without escapes; strings that do not begin like a number, and integers below 10^18. Nothing that has matched is given
# back (the quantifiers are possessive), so that it takes time in proportion to the text.
_is_plain_text = re.compile(
    r"""(?:[{},]*+"[^"\\]*+":(?:"(?![-0-9])[^"\\]*+"|[1-9][0-9]{0,17}+|0|true|false|null)?+)*+[{}]*+"""
).fullmatch


def is_canonical(text: str) -> bool:
    """
    Return whether compact JSON with sorted members is canonical text as it stands; False also where that is not seen at a glance.

    Most events hold nothing but names, words and counts. Their data is encoded once, and by C, for the fingerprint and for the
    row: `canonical` costs three times as much as encoding and looking.

    >>> is_canonical('{"model":"opus","tokens":7}'), is_canonical('{"tokens":"7.0"}')
    (True, False)
    """
    return _is_plain_text(text) is not None


def differing_fields(stored: Content, sent: Content) -> list[str]:
    """
    Return the dotted paths at which two contents differ, in order, at most 20; empty exactly when the fingerprints are
    equal.

    A member that only one of them has is named, not its parts. Items of arrays count from 0.

    >>> stored = Content("llm.completion", {"model": "opus", "usage": {"input": 12, "output": 3}}, None)
    >>> differing_fields(stored, stored._replace(data={"model": "opus", "usage": {"input": "12.0", "output": 4}}))
    ['data.usage.output']
    """
    return list(islice(_differences(stored, sent), _DIFFERENCES_MAX))


def canonical(value: object) -> str:
    """
    Return the one text of a decoded JSON value: equal values have equal texts, however they were spelt.

    It is compact JSON with sorted members, in which strings that are plain numbers (at most 18 digits and 12 decimals)
    stand as numbers. Never expands an exponent, so that 1E+1000000 costs no more than it is long. Raises TypeError for
    what JSON cannot say, floats included.
    """
    kind = type(value)
    if kind is str:
        text: str = value  # type: ignore[assignment]
        # Most strings do not even begin like a number.
        is_number = text[:1] in _BEGINNINGS_OF_NUMBERS and QUANTITY_STRING.fullmatch(text)
        return _trimmed(text) if is_number else encode_basestring(text)
    if kind is int or kind is Decimal:
        return canonical_number(value)  # type: ignore[arg-type]
    if isinstance(value, dict):
        return "{" + ",".join([f"{encode_basestring(name)}:{canonical(value[name])}" for name in sorted(value)]) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    raise TypeError(f"{kind.__name__} is no decoded JSON; fractions are decoded as Decimal")


def canonical_number(number: int | Decimal) -> str:
    """
    Return the one text of a number: no leading or trailing zeros and no "-0"; with an exponent only where it is very
    large or small.

    >>> [canonical_number(number) for number in (100, Decimal("1e2"), Decimal("0.50"), Decimal("-0.0"), Decimal("10E+99"))]
    ['100', '100', '0.5', '0', '1e100']
    """
    if isinstance(number, int):
        if -_PLAIN_INTEGER_LIMIT < number < _PLAIN_INTEGER_LIMIT:
            return str(number)
        number = Decimal(number)
    if number.adjusted() in _PLAIN_EXPONENTS:
        return _trimmed(format(number, "f"))
    significant = "".join(map(str, number.as_tuple().digits)).rstrip("0")
    if not significant:
        return "0"
    return f"{'-' if number.is_signed() else ''}{significant}e{number.adjusted() - len(significant) + 1}"


def _trimmed(number: str) -> str:
    """Return a plain decimal number without trailing zeros and without a negative zero."""
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return "0" if number == "-0" else number


def _instant(time: datetime | None) -> str:
    """Return microseconds since 1970, or nothing."""
    if time is None:
        return ""
    if time.tzinfo is None:
        raise ValueError(f"a time needs a zone: {time}")
    return str((time - _EPOCH) // _MICROSECOND)


def _blake(text: str) -> bytes:
    # A copy of an empty one costs less than a new one.
    hashed = _EMPTY.copy()
    # Doors refuse lone surrogates; "surrogatepass" keeps these functions total for whoever has not come through a door.
    hashed.update(text.encode("utf-8", "surrogatepass"))
    return hashed.digest()


def _differences(stored: Content, sent: Content) -> Iterator[str]:
    if stored.type != sent.type:
        yield "type"
    if _instant(stored.time) != _instant(sent.time):
        yield "time"
    yield from _inner_differences("data", stored.data, sent.data)


def _inner_differences(path: str, stored: object, sent: object) -> Iterator[str]:
    if isinstance(stored, list) and isinstance(sent, list):
        stored, sent = dict(enumerate(stored)), dict(enumerate(sent))
    if isinstance(stored, dict) and isinstance(sent, dict):
        for name in sorted(stored.keys() | sent.keys()):
            if name in stored and name in sent:
                yield from _inner_differences(f"{path}.{name}", stored[name], sent[name])
            else:
                yield f"{path}.{name}"
    elif canonical(stored) != canonical(sent):
        yield path
