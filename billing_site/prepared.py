"""
Statements of the hot path: bound and planned by the server, and several in one round trip.

Django's cursor binds on the client and costs three times as much CPU per statement; everything outside of the hot path
uses it. Transactions are Django's for both: what runs here belongs to the `transaction.atomic()` around it. Source: ADR 0003.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection

Cursor = psycopg.Cursor[tuple[Any, ...]]


def run(sql: str, parameters: Sequence[Any] = ()) -> Cursor:
    """
    Run a statement on this thread's connection, and return its cursor, to fetch from.

    Arrays are passed as literals (`metering.services.arrays`). The text must be constant: each one is prepared once per connection.
    Inside of `pipelined()` the answer is waited for by the first fetch. Raises Django's database errors.
    """
    if connection.connection is None:
        connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor: Cursor = psycopg.Cursor(connection.connection)
        return cursor.execute(sql, parameters, prepare=True)


@contextmanager
def pipelined() -> Iterator[None]:
    """
    Send statements without waiting for each answer; wait where one is fetched, and for all at the end.

    A statement's error appears at the next fetch or at the end, and what was sent after it did nothing. Opened inside of
    `transaction.atomic()`, never around it, so that the error is known before the transaction ends.
    """
    if connection.connection is None:
        connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield
