"""
Many rows in one statement: array literals for `unnest`, joined by hand.

psycopg's own list adaptation costs twelve times as much client CPU per row as joining text; the escaping here is the one that
PostgreSQL's array input documents (backslash before quote and backslash), and a property test sends every kind of text through it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

# Joins the texts while they are escaped together; texts that contain it are escaped one by one.
_SEPARATOR = "\x1f"


def text_array(values: Sequence[str]) -> str:
    """Return a PostgreSQL array literal of texts. Raises nothing: NUL characters must be refused before."""
    if not values:
        return "{}"
    joined = _SEPARATOR.join(values)
    if joined.count(_SEPARATOR) >= len(values):
        return "{" + ",".join(f'"{_escaped(value)}"' for value in values) + "}"
    return '{"' + _escaped(joined).replace(_SEPARATOR, '","') + '"}'


def plain_array(values: Iterable[Any]) -> str:
    """Return an array literal of values whose text needs no quotes: numbers, booleans, times in ISO form. None becomes NULL."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def time_array(values: Iterable[datetime | None]) -> str:
    """Return an array literal of instants, to the microsecond; their offsets have whole minutes. None becomes NULL."""
    return _as_json(values)


def uuid_array(values: Iterable[UUID | None]) -> str:
    """Return an array literal of UUIDs. None becomes NULL."""
    return _as_json(values)


def bytes_array(values: Sequence[bytes]) -> str:
    """Return an array literal of byte strings in hexadecimal form."""
    widths = set(map(len, values))
    if len(widths) != 1 or 0 in widths:
        return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"
    # All of one length, as digests are: written together, at two thirds of the cost.
    return '{"\\\\x' + b"".join(values).hex(",", widths.pop()).replace(",", '","\\\\x') + '"}'


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    """Turn rows into columns; `width` empty columns when there is no row."""
    return list(zip(*rows, strict=True)) if rows else [() for _ in range(width)]


_encode = msgspec.json.Encoder(uuid_format="hex").encode


def _as_json(values: Iterable[Any]) -> str:
    """
    Return an array literal of values that JSON writes in quotes and without a backslash: the two differ by their brackets alone.

    One call for all of them: a time's own `isoformat` costs thirty times as much.
    """
    return "{" + _encode(list(values))[1:-1].decode() + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
