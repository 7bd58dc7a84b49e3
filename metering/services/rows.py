"""
Many rows of a model in one statement.

For chunks of hundreds of rows: `bulk_create` spends more on adapting values than PostgreSQL on storing them. Knows columns and types from
the model; checks nothing that the database does not check.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from django.db import connection, models

from metering.services.arrays import columns, plain_array, text_array, time_array, uuid_array

_UNQUOTED = frozenset({"bigint", "integer", "smallint", "numeric", "boolean"})


def insert_rows(
    model: type[models.Model], fields: Sequence[str], rows: Sequence[tuple[Any, ...]], *, returning: Sequence[str] = ()
) -> list[tuple[Any, ...]]:
    """
    Insert rows given as tuples in the order of `fields` (column names), and return the columns asked for, in no certain order.

    A column that is left out takes the database's default; Django's own defaults, public ids among them, are the caller's to give. Texts and
    documents are never None.
    """
    if not rows:
        return []
    types = _types(model, tuple(fields))
    arrays = ", ".join(f"%s::{type_}[]" for type_ in types)
    answer = f" RETURNING {', '.join(returning)}" if returning else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO "{model._meta.db_table}" ({", ".join(fields)}) SELECT * FROM unnest({arrays}){answer}',
            _arrays(types, rows),
        )
        return list(cursor.fetchall()) if returning else []


def update_rows(
    model: type[models.Model], fields: Sequence[str], rows: Sequence[tuple[Any, ...]], *, adding: Iterable[str] = ()
) -> None:
    """
    Set columns of rows by their id: `fields` begins with "id". Columns in `adding` are raised by the value instead.

    The caller holds the rows' locks.
    """
    if not rows:
        return
    types = _types(model, tuple(fields))
    literals = _arrays(types, rows)
    arrays = ", ".join(f"%s::{type_}[]" for type_ in types)
    changes = ", ".join(f"{name} = {f't.{name} + ' if name in adding else ''}d.{name}" for name in fields[1:])
    with connection.cursor() as cursor:
        cursor.execute(
            # The ids once more, so that hundreds of rows are found by their index: joined alone, the whole table is read.
            f'UPDATE "{model._meta.db_table}" t SET {changes} FROM unnest({arrays}) AS d ({", ".join(fields)})'
            f" WHERE t.id = d.id AND t.id = ANY(%s::{types[0]}[])",
            [*literals, literals[0]],
        )


@lru_cache(maxsize=256)
def _types(model: type[models.Model], fields: tuple[str, ...]) -> tuple[str, ...]:
    by_column = {field.column: field for field in model._meta.concrete_fields}
    # Without length and scale: a cast would cut what is too long in silence, where storing it is an error.
    return tuple(re.sub(r"\(.*\)", "", by_column[name].db_type(connection) or "") for name in fields)


def _arrays(types: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> list[str]:
    return [_array(type_, column) for type_, column in zip(types, columns(rows, len(types)), strict=True)]


def _array(type_: str, values: tuple[Any, ...]) -> str:
    if type_ == "uuid":
        return uuid_array(values)
    if type_ == "jsonb":
        return text_array([msgspec.json.encode(value).decode() for value in values])
    if type_.startswith("timestamp"):
        return time_array(values)
    return plain_array(values) if type_ in _UNQUOTED else text_array(values)
