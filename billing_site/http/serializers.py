"""Input and output fields of management endpoints: strict where DRF's own are lenient. Owns no resource."""

import difflib
import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError

from billing_site.http import wire

CODE = re.compile(r"[A-Za-z0-9._:@-]{1,100}", re.ASCII)

METADATA_MEMBERS_MAX = 50
METADATA_NAME_MAX = 100
METADATA_TEXT_MAX = 500
_INTEGER_LIMIT = 10**15  # beyond it, some readers of JSON lose digits

# Characters that change how a text reads without being seen: overrides and isolates of writing direction.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class StrictSerializer(serializers.Serializer):
    """
    A serializer that refuses members it does not know (code `unknown_field`), so that a misspelt price is not ignored.

    Members that only stand in answers are refused too. The message names the nearest known member.
    """

    @classmethod
    def checked(cls, data: Any) -> dict[str, Any]:
        """Return the validated members of a document. Raises ValidationError (422), naming every fault."""
        serializer = cls(data=data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def to_internal_value(self, data: Any) -> Any:
        """Validate the known members, and report the unknown ones together with whatever else is wrong."""
        unknown = self._unknown(data) if isinstance(data, Mapping) else {}
        try:
            value = super().to_internal_value(data)
        except ValidationError as error:
            if not unknown or not isinstance(error.detail, dict):
                raise
            raise ValidationError({**error.detail, **unknown}) from None
        if unknown:
            raise ValidationError(unknown)
        return value

    def _unknown(self, data: Mapping[str, Any]) -> dict[str, list[ErrorDetail]]:
        known = [name for name, field in self.fields.items() if not field.read_only]
        faults = {}
        for name in data:
            if name not in known:
                near = difflib.get_close_matches(str(name)[:100], known, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                faults[str(name)[:100]] = [ErrorDetail(f"This field is not known here.{hint}", code="unknown_field")]
        return faults


@extend_schema_field({"type": "string", "format": "decimal", "example": "0.0002"})
class DecimalStringField(serializers.Field):
    """
    An exact decimal: a plain string or a JSON number in, a plain string out. Never a float, in either direction.

    A string has no exponent, no sign "+", no leading zeros, no blanks. A JSON number counts by its value. Both are bounded by
    `max_integer_digits`, `max_decimals` (finer values are refused, not rounded) and `minimum`.
    """

    default_error_messages = {
        "invalid": 'Must be a decimal number, as a string such as "0.0002" or as a JSON number.',
        "too_large": "Must have at most {max_integer_digits} digits before the point.",
        "too_fine": "Must have at most {max_decimals} digits after the point; it is not rounded.",
        "too_small": "Must be at least {minimum}.",
    }

    def __init__(
        self,
        *,
        max_integer_digits: int = 18,
        max_decimals: int = 12,
        minimum: Decimal | int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_integer_digits = max_integer_digits
        self.max_decimals = max_decimals
        self.minimum = minimum

    def to_internal_value(self, data: Any) -> Decimal:
        """Return the exact value."""
        match data:
            case bool():
                self.fail("invalid")
            case str():
                number = self._read(data)
            case int():
                number = Decimal(data)
            case Decimal() if data.is_finite():
                number = data
            case _:
                self.fail("invalid")
        # Before anything writes the number out: 1E+1000000 is a short text and a million digits.
        if number and number.adjusted() >= self.max_integer_digits:
            self.fail("too_large", max_integer_digits=self.max_integer_digits)
        if number and number.adjusted() < -self.max_decimals:
            self.fail("too_fine", max_decimals=self.max_decimals)
        number = Decimal(wire.plain(number))
        if -int(number.as_tuple().exponent) > self.max_decimals:
            self.fail("too_fine", max_decimals=self.max_decimals)
        if self.minimum is not None and number < self.minimum:
            self.fail("too_small", minimum=self.minimum)
        return number

    def _read(self, text: str) -> Decimal:
        match = _DECIMAL.fullmatch(text[:2000])
        if match is None:
            self.fail("invalid")
        if len(match[1]) > self.max_integer_digits:
            self.fail("too_large", max_integer_digits=self.max_integer_digits)
        if len(match[2] or "") > self.max_decimals:
            self.fail("too_fine", max_decimals=self.max_decimals)
        return Decimal(text)

    def to_representation(self, value: Any) -> str:
        """Return the canonical plain string."""
        if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
            raise TypeError(f"{self.field_name} holds a {type(value).__name__}, not an exact number.")
        return wire.plain(Decimal(value))


_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)


@extend_schema_field({"type": "string", "format": "date-time"})
class TimestampField(serializers.Field):
    """An instant: RFC 3339 with an offset in (1 to 9 fractional digits, cut to microseconds), UTC with "Z" out."""

    def to_internal_value(self, data: Any) -> datetime:
        """Return the instant in UTC."""
        try:
            return wire.parse_timestamp(data)
        except ValueError as error:
            raise ValidationError(str(error), code="invalid") from None

    def to_representation(self, value: datetime) -> str:
        """Return the instant in UTC, as text."""
        return wire.timestamp(value)


class TextField(serializers.CharField):
    """
    A bounded text, kept as it is written. Numbers are not turned into texts.

    Refused: control characters (new lines too, unless `multiline`), surrogates, and characters that turn the writing direction.
    """

    default_error_messages = {"characters": "Must not contain control characters or marks of writing direction."}

    def __init__(self, *, max_length: int = 200, multiline: bool = False, **kwargs: Any) -> None:
        super().__init__(max_length=max_length, trim_whitespace=False, **kwargs)
        self.multiline = multiline

    def to_internal_value(self, data: Any) -> str:
        """Return the text unchanged."""
        if not isinstance(data, str):
            self.fail("invalid")
        if not is_clean(data, multiline=self.multiline):
            self.fail("characters")
        return data


@extend_schema_field({"type": "string", "pattern": f"^{CODE.pattern}$", "maxLength": 100})
class CodeField(serializers.CharField):
    """One of the operator's own ids: 1 to 100 of A-Z a-z 0-9 . _ : @ -, case-sensitive."""

    default_error_messages = {"code": "Must be 1 to 100 characters out of A-Z a-z 0-9 . _ : @ -"}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Return the code unchanged."""
        if not isinstance(data, str) or CODE.fullmatch(data) is None:
            self.fail("code")
        return data


@extend_schema_field(
    {
        "type": "object",
        "maxProperties": METADATA_MEMBERS_MAX,
        "additionalProperties": {"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]},
        "example": {"crm": "00123", "vip": True},
    }
)
class MetadataField(serializers.Field):
    """The operator's own notes with a tenant: at most 50 members, each a text, a whole number, true or false."""

    default_error_messages = {
        "not_an_object": "Must be an object of names and values.",
        "too_many": f"Must have at most {METADATA_MEMBERS_MAX} members.",
        "name": f"Names must have 1 to {METADATA_NAME_MAX} characters, without control characters.",
        "value": f"Values must be texts of at most {METADATA_TEXT_MAX} characters, whole numbers, true or false.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the members unchanged."""
        if not isinstance(data, Mapping):
            self.fail("not_an_object")
        if len(data) > METADATA_MEMBERS_MAX:
            self.fail("too_many")
        if not all(1 <= len(name) <= METADATA_NAME_MAX and is_clean(name) for name in data):
            self.fail("name")
        if not all(_is_note(value) for value in data.values()):
            self.fail("value")
        return dict(data)

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return the members unchanged."""
        return value


def _is_note(value: object) -> bool:
    match value:
        case bool():
            return True
        case int():
            return abs(value) < _INTEGER_LIMIT
        case str():
            return len(value) <= METADATA_TEXT_MAX and is_clean(value, multiline=True)
    return False


class AsGivenField(serializers.Field):
    """A part of the document that the service judges, passed on and shown as it is."""

    def to_internal_value(self, data: Any) -> Any:
        """Return what was sent."""
        return data

    def to_representation(self, value: Any) -> Any:
        """Return what is stored."""
        return value


def is_clean(text: str, *, multiline: bool = False) -> bool:
    """
    Say whether a text has only characters that are safe in logs, headers and documents.

    >>> is_clean("Café № 1"), is_clean("a\\nb"), is_clean("a\\u202eb")
    (True, False, False)
    """
    if text.isascii() and text.isprintable():
        return True
    allowed = "\n\r\t" if multiline else ""
    return all(
        character in allowed
        or (unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp") and character not in _DIRECTIONS)
        for character in text
    )
