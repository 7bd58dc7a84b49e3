"""
Months of `UsageEvent`: created ahead, so that the default partition stays empty, and dropped whole when they are past keeping.

Keys, counts and ledger entries stay: a dropped month can no longer be drilled into, but what it counted is counted for ever.
"""

from datetime import date, timedelta

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

TABLE = "metering_usageevent"


def partition_name(month: date) -> str:
    """Return the table that holds the month of a day."""
    return f"{TABLE}_{month:%Y_%m}"


def ensure_partitions(*, today: date, months_ahead: int = 2) -> list[str]:
    """
    Make the partitions of the current and the coming months, and return the names of those that were missing.

    Idempotent. Rows that a late run finds in the default partition stay there; the month is then made without them only if it
    has none, because PostgreSQL refuses a partition whose rows already lie in the default one.
    """
    made = []
    month = today.replace(day=1)
    for _ in range(months_ahead + 1):
        following = (month + timedelta(days=32)).replace(day=1)
        if _make(month, following):
            made.append(partition_name(month))
        month = following
    return made


def drop_month(*, month: date) -> bool:
    """Drop the events of one month; whether there was such a partition. The caller has decided that they are past keeping."""
    with transaction.atomic(), connection.cursor() as cursor:
        if not _exists(cursor, partition_name(month)):
            return False
        cursor.execute(f"DROP TABLE {partition_name(month)}")
        return True


def _make(starts: date, ends: date) -> bool:
    with transaction.atomic(), connection.cursor() as cursor:
        if _exists(cursor, partition_name(starts)) or _default_holds(cursor, starts, ends):
            return False
        # The name and both bounds are dates that we formatted; DDL takes no bound parameters.
        cursor.execute(
            f"CREATE TABLE {partition_name(starts)} PARTITION OF {TABLE} "
            f"FOR VALUES FROM ('{starts:%Y-%m-%d} 00:00+00') TO ('{ends:%Y-%m-%d} 00:00+00')"
        )
        return True


def _exists(cursor: CursorWrapper, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [name])
    return bool(cursor.fetchone()[0])


def _default_holds(cursor: CursorWrapper, starts: date, ends: date) -> bool:
    cursor.execute(
        f"SELECT EXISTS (SELECT 1 FROM {TABLE}_default WHERE recorded_at >= %s AND recorded_at < %s)", [starts, ends]
    )
    return bool(cursor.fetchone()[0])
