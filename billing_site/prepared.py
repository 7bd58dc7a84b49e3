"""
Statements of the hot path: bound by the server, and planned once per connection.

Django's cursor binds on the client and costs three times as much CPU per statement; everything outside of the hot path
uses it. Transactions are Django's for both: what runs here belongs to the `transaction.atomic()` around it. Source: ADR 0003.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from django.db import connection

Cursor = psycopg.Cursor[tuple[Any, ...]]


def run(sql: str, parameters: Sequence[Any] = ()) -> Cursor:
    """
    Run a statement on this thread's connection, and return its cursor, to fetch from.

    Arrays are passed as literals (`metering.services.arrays`). The text must be constant: each one is prepared once per connection.
    Raises Django's database errors.
    """
    if connection.connection is None:
        connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor: Cursor = psycopg.Cursor(connection.connection)
        return cursor.execute(sql, parameters, prepare=True)
