"""
Query strings: only what an endpoint declares, each once, each converted.

A mistyped filter must not return everything, so what is unknown is refused.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.http import HttpRequest, QueryDict
from rest_framework.request import Request

from billing_site.http import wire
from billing_site.http.problems import DomainError, FieldError
from billing_site.http.serializers import CODE, is_clean

# Reads one value; raises ValueError with a sentence for the caller.
Converter = Callable[[str], Any]

_OF_PAGES = ("limit", "cursor")


class BadQuery(DomainError):
    """A query parameter has a value that is not allowed, or stands twice."""

    status = 400
    code = "validation"
    title = "Some query parameters are not valid"


class UnknownParameter(DomainError):
    """A query parameter that this endpoint does not know."""

    status = 400
    code = "unknown_field"
    title = "Unknown query parameter"


class QueryParameters:
    """
    The query parameters of one endpoint, each with the function that reads it.

    With `paged`, `limit` and `cursor` are permitted too (`pagination.page` reads them).

    >>> QueryParameters({"tenant": code, "status": choice("open", "paid")}, paged=True).declared
    ('tenant', 'status', 'limit', 'cursor')
    """

    def __init__(
        self,
        converters: Mapping[str, Converter] | None = None,
        *,
        required: tuple[str, ...] = (),
        paged: bool = False,
    ) -> None:
        self._converters = dict(converters or {})
        self._required = required
        self.declared = (*self._converters, *(_OF_PAGES if paged else ()))

    def read(self, request: Request | HttpRequest) -> dict[str, Any]:
        """
        Return a value for every declared parameter, None for those that are absent.

        Raises UnknownParameter or BadQuery (both 400), naming every fault.
        """
        query = request.GET
        unknown = [name for name in query if name not in self.declared]
        if unknown:
            errors = [FieldError(name[:100], "unknown_field", self._hint(name)) for name in unknown]
            raise UnknownParameter("This endpoint does not know all the query parameters.", errors=errors)
        errors = [FieldError(name, "required", "This parameter is required.") for name in self._missing(query)]
        values: dict[str, Any] = dict.fromkeys(self._converters)
        for name in self.declared:
            try:
                text = single(query, name)
                if text is not None and name in self._converters:
                    values[name] = self._converters[name](text)
            except ValueError as error:
                errors.append(FieldError(name, "invalid", str(error)))
        if errors:
            raise BadQuery("Some query parameters are not valid.", errors=errors)
        return values

    def _missing(self, query: QueryDict) -> list[str]:
        return [name for name in self._required if name not in query]

    def _hint(self, name: str) -> str:
        near = difflib.get_close_matches(name[:100], self.declared, n=1)
        return (
            f"This parameter is not known here. Did you mean {near[0]}?"
            if near
            else "This parameter is not known here."
        )


NO_PARAMETERS = QueryParameters()
PAGE_PARAMETERS = QueryParameters(paged=True)


def single(query: QueryDict, name: str) -> str | None:
    """Return the one value of a parameter, None if it is absent. Raises ValueError when it stands twice or holds control characters."""
    values = query.getlist(name)
    if len(values) > 1:
        raise ValueError("This parameter must stand once.")
    if not values:
        return None
    if not values[0]:
        raise ValueError("This parameter must not be empty.")
    if not is_clean(values[0]) or "\ufffd" in values[0]:
        raise ValueError("Must not contain control characters, and must be UTF-8.")
    return values[0]


def code(text: str) -> str:
    """Read one of the operator's own ids, in the form they have in paths."""
    if CODE.fullmatch(text) is None:
        raise ValueError("Must be 1 to 100 characters out of A-Z a-z 0-9 . _ : @ -")
    return text


def text(value: str) -> str:
    """Read any text of at most 255 characters."""
    if len(value) > 255:
        raise ValueError("Must have at most 255 characters.")
    return value


def timestamp(value: str) -> datetime:
    """Read an RFC 3339 time with an offset. A "+" that was sent unescaped arrives as a blank, and is meant."""
    return wire.parse_timestamp(value.replace(" ", "+"))


def choice(*values: str) -> Converter:
    """Read one of the given values."""

    def read(value: str) -> str:
        if value not in values:
            raise ValueError(f"Must be one of {', '.join(values)}.")
        return value

    return read


def whole_number(*, minimum: int, maximum: int) -> Converter:
    """Read a whole number in decimal digits, within bounds that are both included."""

    def read(value: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,18}", value, re.ASCII) is None or not minimum <= int(value) <= maximum:
            raise ValueError(f"Must be a whole number from {minimum} to {maximum}.")
        return int(value)

    return read
