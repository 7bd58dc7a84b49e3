"""
Numeric columns hold numbers: checks of the database refuse NaN and both infinities, whoever writes.

A rule such as `used >= 0` would let NaN pass: PostgreSQL sorts it above every number.
"""

from itertools import groupby
from operator import itemgetter
from typing import Any

from django.db import models
from django.db.migrations.operations.base import Operation


class FiniteDecimalField(models.DecimalField):
    """
    A decimal column with a check against NaN and infinities; every numeric column of ours is one.

    A generated column has no check of its own, as it is computed from columns that have.
    """

    def db_check(self, connection: Any) -> str | None:
        """Return the check that CREATE TABLE and ADD COLUMN write; PostgreSQL calls it `<table>_<column>_check`."""
        column = getattr(self, "column", None)  # the output field of a generated column has none
        return _is_finite(connection.ops.quote_name(column)) if column else None


# Numeric columns that are written (not generated) and have no such check. A partition has the checks of its table.
COLUMNS_WITHOUT_CHECK = """
    SELECT c.relname::text, a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.atttypid = 'numeric'::regtype AND a.attnum > 0 AND a.attgenerated = ''
      AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = current_schema()::regnamespace
      AND NOT EXISTS (
        SELECT 1 FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]
          AND strpos(pg_get_constraintdef(k.oid), '> ''-Infinity''') > 0
          AND strpos(pg_get_constraintdef(k.oid), '< ''Infinity''') > 0
      )"""


class FiniteNumbers(Operation):
    """
    Add the check of `FiniteDecimalField` to the app's columns that were made before the field had one.

    Does nothing in a database that was made after. Fails, naming the check, where a row breaks it. Its reverse does nothing.
    """

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Leave the models as they are: the check is part of the field."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Add what is missing: each table is locked and read once."""
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(f"{COLUMNS_WITHOUT_CHECK} AND starts_with(c.relname, %s) ORDER BY 1, 2", [f"{app_label}_"])
            missing = cursor.fetchall()
        quoted = schema_editor.quote_name
        for table, columns in groupby(missing, key=itemgetter(0)):
            checks = [
                f"ADD CONSTRAINT {quoted(f'{table}_{column}_check')} CHECK ({_is_finite(quoted(column))})"
                for _, column in columns
            ]
            schema_editor.execute(f"ALTER TABLE {quoted(table)} {', '.join(checks)}")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Keep the checks: the field has them at every state of the models."""

    def describe(self) -> str:
        """Say what the operation does, for `migrate --plan`."""
        return "Refuse NaN and infinities in numeric columns"


def _is_finite(column: str) -> str:
    # NaN is greater than Infinity, so that it needs no comparison of its own.
    return f"{column} > '-Infinity'::numeric AND {column} < 'Infinity'::numeric"
