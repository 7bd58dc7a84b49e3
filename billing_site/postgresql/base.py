"""
Django's PostgreSQL backend, but that instants are read by one call.

Django's loader for `timestamptz` is Python's regular expression over psycopg's own, 9 µs a value; reading is what closing and the hot path
do most. What Python cannot hold (infinity, a year before Christ) is left to Django's loader, which knows what to say of it.
"""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.db.backends.postgresql import base
from django.db.backends.postgresql.psycopg_any import BaseTzLoader
from psycopg.adapt import AdaptersMap, Buffer


class UtcLoader(BaseTzLoader):
    """Read an instant as PostgreSQL writes it in UTC: 2026-11-23 15:41:16.627118+00."""

    timezone = UTC

    def load(self, data: Buffer) -> datetime:
        """Return the instant, in UTC. Raises psycopg's DataError for one that Python cannot hold."""
        try:
            instant = datetime.fromisoformat(str(data, "ascii"))
        except ValueError:
            return super().load(data)
        return instant if instant.tzinfo is UTC else instant.astimezone(UTC)


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection whose instants are UTC."""

    def get_connection_params(self) -> dict[str, Any]:
        """Return what psycopg connects with; the adapters are ours where the database's time is UTC."""
        params: dict[str, Any] = super().get_connection_params()
        if self.timezone is UTC:
            params["context"] = _with_utc(params["context"])
        return params


@cache
def _with_utc(adapters: AdaptersMap) -> AdaptersMap:
    ours = AdaptersMap(adapters)
    ours.register_loader("timestamptz", UtcLoader)
    return ours
