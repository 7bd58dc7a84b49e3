"""
Lists in pages: keyset pagination with an opaque cursor.

A cursor is the place after the last row that was shown, so that rows that are inserted meanwhile neither repeat nor skip
others, however many share a timestamp.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from django.core.exceptions import ValidationError
from django.db.models import Field, Model, Q, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from billing_site.http import wire
from billing_site.http.problems import FieldError
from billing_site.http.queries import BadQuery, single, whole_number

LIMIT_DEFAULT = 50
LIMIT_MAX = 100
CURSOR_CHARACTERS_MAX = 2_000


def page(
    request: Request, queryset: QuerySet[Any], *, ordering: tuple[str, ...], serialize: Callable[[Any], object]
) -> Response:
    """
    Answer one page of a list: {"results": [...], "next": absolute URL or null}.

    `ordering` names columns of the model itself, none of them nullable, the last of them unique ("-recorded_at", "-id"). `limit`
    is 1 to 100, 50 if absent. Raises BadQuery (400) for any other limit and for a cursor that this list did not give out.
    """
    limit = _parameter(request, "limit", whole_number(minimum=1, maximum=LIMIT_MAX)) or LIMIT_DEFAULT
    keys = _keys(queryset.model, ordering)
    place = _parameter(request, "cursor", lambda text: _read_cursor(text, keys))
    rows, following = _slice(queryset.order_by(*ordering), keys, place, limit)
    address = _next_url(request, following) if following else None
    return Response({"results": [serialize(row) for row in rows], "next": address})


def rows_after(
    queryset: QuerySet[Any], cursor: str | None, *, ordering: tuple[str, ...], limit: int = LIMIT_DEFAULT
) -> tuple[list[Any], str | None]:
    """
    Return the rows after a cursor's place, from the first one without a cursor, and the cursor for what follows, if anything does.

    For pages of our own; `ordering` as for `page`. Raises ValueError for a cursor that this list did not give out.
    """
    keys = _keys(queryset.model, ordering)
    place = None if cursor is None else _read_cursor(cursor, keys)
    return _slice(queryset.order_by(*ordering), keys, place, limit)


# One column of the ordering: its field, and whether it falls.
_Key = tuple["Field[Any, Any]", bool]


def _slice(
    ordered: QuerySet[Any], keys: Sequence[_Key], place: Sequence[Any] | None, limit: int
) -> tuple[list[Any], str | None]:
    rows = list((ordered if place is None else ordered.filter(_after(keys, place)))[: limit + 1])
    return rows[:limit], _write_cursor(rows[limit - 1], keys) if len(rows) > limit else None


def _keys(model: type[Model], ordering: Sequence[str]) -> list[_Key]:
    keys: list[_Key] = []
    for term in ordering:
        name = term.removeprefix("-")
        field = model._meta.pk if name == "pk" else model._meta.get_field(name)
        assert isinstance(field, Field)
        keys.append((field, term.startswith("-")))
    return keys


def _after(keys: Sequence[_Key], place: Sequence[Any]) -> Q:
    """Return the condition "later in the order than `place`", with a bound on the first column that an index can use."""
    later = Q()
    equal = Q()
    for (field, falls), value in zip(keys, place, strict=True):
        later |= equal & Q(**{f"{field.attname}__{'lt' if falls else 'gt'}": value})
        equal &= Q(**{field.attname: value})
    first, falls = keys[0]
    return Q(**{f"{first.attname}__{'lte' if falls else 'gte'}": place[0]}) & later


def _write_cursor(row: Model, keys: Sequence[_Key]) -> str:
    values = [getattr(row, field.attname) for field, _ in keys]
    assert None not in values, "a list cannot be paged by a column that may be null"
    document = msgspec.json.encode([_names(keys), *(_as_text(value) for value in values)])
    return base64.urlsafe_b64encode(document).decode().rstrip("=")


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _read_cursor(text: str, keys: Sequence[_Key]) -> list[Any]:
    try:
        if len(text) > CURSOR_CHARACTERS_MAX:
            raise ValueError
        document = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        names, *values = msgspec.json.decode(document, type=list[str])
        if names != _names(keys):
            raise ValueError
        return [_value(field, value) for (field, _), value in zip(keys, values, strict=True)]
    except (ValueError, binascii.Error, msgspec.MsgspecError, ValidationError, OverflowError):
        raise ValueError("This is not a cursor of this list.") from None


def _value(field: "Field[Any, Any]", text: str) -> Any:
    """Read one value of a cursor strictly, so that no forged one reaches the database as something it cannot compare."""
    value = getattr(field, "target_field", field).to_python(text)
    match value:
        case bool() | int() if abs(value) < 2**63:
            return value
        case datetime() if value.utcoffset() is not None:
            return wire.parse_timestamp(wire.timestamp(value))
        case UUID():
            return value
        case date() if not isinstance(value, datetime):
            return value
        case Decimal() if value.is_finite() and abs(value.adjusted()) < 100:
            return value
        case str() if "\x00" not in value:
            return value
    raise ValueError


def _names(keys: Sequence[_Key]) -> str:
    return ",".join(("-" if falls else "") + field.attname for field, falls in keys)


def _next_url(request: Request, cursor: str) -> str:
    query = request.GET.copy()
    query["cursor"] = cursor
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")


def _parameter(request: Request, name: str, read: Callable[[str], Any]) -> Any:
    try:
        text = single(request.GET, name)
        return None if text is None else read(text)
    except ValueError as error:
        raise BadQuery(
            "Some query parameters are not valid.", errors=[FieldError(name, "invalid", str(error))]
        ) from None
