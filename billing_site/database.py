"""
What every writer shares: retries, row claims, triggers for migrations, constraints, ids, the database's clock. No model.

Two clocks meet here. The database's is the only one for leases and records (`wall_now`, `claim`); the process's is read for
the time part of a UUIDv7 alone.
"""

import logging
import os
import random
import re
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID, SafeUUID

import msgspec
from django.conf import settings
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import BigIntegerRangeField, DateTimeRangeField
from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, Error, connections, models, transaction
from django.db.migrations.operations import RunSQL
from django.db.migrations.operations.base import Operation
from django.db.models import F, Func, Q, QuerySet, Value
from django.db.models.functions import Now

from billing_site.finite import FiniteDecimalField

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
RESTRICT_VIOLATION = "23001"

BACK_OFF_SECONDS = 0.01
BACK_OFF_SECONDS_MAX = 0.5


# Retries


def run_with_retries(function: Callable[[], Result], *, attempts: int = 5, using: str = DEFAULT_DB_ALIAS) -> Result:
    """
    Call `function`, and call it again when PostgreSQL gave up on its transaction (deadlock, serialisation failure).

    `function` opens its own transaction and does nothing outside of the database before it ends, as it may run several
    times. Between attempts it waits for a random time, at most 10, 20, 40, ... 500 ms. The last failure is raised.

    Inside of a transaction nothing is repeated: the whole of it has failed, so that only its opener can.
    """
    if connections[using].in_atomic_block:
        return function()
    for attempt in range(1, attempts):
        try:
            return function()
        except Exception as error:
            if sqlstate(error) not in (SERIALIZATION_FAILURE, DEADLOCK_DETECTED):
                raise
            logger.info("attempt %d of %d failed with %s", attempt, attempts, sqlstate(error))
        ceiling = min(BACK_OFF_SECONDS_MAX, BACK_OFF_SECONDS * 2 ** (attempt - 1))
        time.sleep(random.uniform(0, ceiling))  # noqa: S311 - spreads attempts, guards nothing
    return function()


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's five-character code of an error, of psycopg's own or wrapped by Django; None for other errors."""
    source = error.__cause__ if isinstance(error, Error) else error
    return getattr(source, "sqlstate", None)


# The database's clock


def wall_now(*, using: str = DEFAULT_DB_ALIAS) -> datetime:
    """Return the wall time by the database's clock, in UTC. It goes on within a transaction."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0].astimezone(UTC)


class _ClockTimestamp(Func):
    function = "clock_timestamp"
    output_field = models.DateTimeField()


# Reading

_ONE_STATE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


@contextmanager
def read_only(*, using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """
    Open a transaction that sees one state of the database and cannot write: PostgreSQL refuses what tries to.

    Where DATABASE_READER_ROLE names a role, all runs under it until the transaction ends; without one, the transaction alone is held to
    reading. Must not be entered inside of another. Source: ADR 0006.
    """
    connection = connections[using]
    with transaction.atomic(using=using, durable=True), connection.cursor() as cursor:
        cursor.execute(_ONE_STATE)
        if role := settings.DATABASE_READER_ROLE:
            cursor.execute(f"SET LOCAL ROLE {connection.ops.quote_name(role)}")
        yield


@contextmanager
def one_state(*, using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """
    Let several statements see one state of the database, where they would each see what was committed a moment before.

    Inside of a transaction nothing is changed: there the caller's locks hold what it reads.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        yield
        return
    with transaction.atomic(using=using), connection.cursor() as cursor:
        cursor.execute(_ONE_STATE)
        yield


_READER = """
SELECT CASE
    WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %(role)s) THEN 'missing'
    WHEN NOT pg_has_role(%(role)s::name, 'MEMBER') THEN 'not granted'
    WHEN has_table_privilege(%(role)s::name, %(table)s, 'INSERT, UPDATE, DELETE, TRUNCATE') THEN 'may write'
    WHEN NOT has_table_privilege(%(role)s::name, %(table)s, 'SELECT') THEN 'may not read'
    ELSE 'ok' END
"""


def reader_state(table: str, *, using: str = DEFAULT_DB_ALIAS) -> str:
    """Return "ok" where `read_only` runs under a role that reads a table and cannot write it; else what is wrong with the role, or "not set"."""
    if not settings.DATABASE_READER_ROLE:
        return "not set"
    with connections[using].cursor() as cursor:
        cursor.execute(_READER, {"role": settings.DATABASE_READER_ROLE, "table": table})
        return str(cursor.fetchone()[0])


# Conditions


class _Among(Func):
    template = "%(expressions)s::%(kind)s[])"
    arg_joiner = " = ANY("
    output_field = models.BooleanField()


def among(path: str, ids: Iterable[int | UUID]) -> Func:
    """
    Return a condition for `filter`: the number or UUID that `path` leads to ("period_id", "period__subscription_id") is one of these.

    As `path__in`, but one parameter: Django and psycopg spend three microseconds on each of hundreds.
    """
    wanted = list(ids)
    kind = "uuid" if wanted and isinstance(wanted[0], UUID) else "bigint"
    return _Among(F(path), Value(array_of(wanted)), kind=kind)


def array_of(ids: Iterable[int | UUID]) -> str:
    """Return numbers or UUIDs as one parameter, for `ANY(%s::bigint[])`: psycopg writes a list number by number."""
    return f"{{{','.join(map(str, ids))}}}"


def json_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as one parameter, for `jsonb_to_recordset`: psycopg's lists cost several times as much for each value."""
    return msgspec.json.encode(list(rows)).decode()


# Claims

Row = TypeVar("Row", bound=models.Model)


def claim(queryset: QuerySet[Row], *, lease_seconds: float, limit: int, now: datetime | None = None) -> list[Row]:
    """
    Lease up to `limit` due rows to the caller, the longest due first, and commit that before any work begins.

    A row is due when `due_at` has come, it is not parked, and no lease on it runs. Each claim raises `attempts`, so that a
    worker that dies has left its trace; when the lease ends, another claim finds the row. Rows that others hold are skipped.
    The lease runs by the database's clock; `due_at` is compared with `now` where that is given (a tenant's time), else
    with the database's clock too. Ends its own transaction, so it must not be called inside of one.
    """
    manager = queryset.model._base_manager.using(queryset.db)
    free = Q(leased_until__isnull=True) | Q(leased_until__lte=Now())
    due = queryset.filter(free, due_at__lte=Now() if now is None else now, parked_at__isnull=True)
    with transaction.atomic(using=queryset.db, durable=True):
        locked = due.select_for_update(skip_locked=True, no_key=True, of=("self",))
        rows = list(locked.annotate(claimed_at=_ClockTimestamp()).order_by("due_at", "pk")[:limit])
        if not rows:
            return []
        leased_until = rows[0].claimed_at + timedelta(seconds=lease_seconds)  # type: ignore[attr-defined]
        manager.filter(among("pk", (row.pk for row in rows))).update(
            leased_until=leased_until, attempts=F("attempts") + 1
        )
    for row in rows:
        row.leased_until, row.attempts = leased_until, row.attempts + 1  # type: ignore[attr-defined]
    return rows


# Triggers, as operations of migrations

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)


class Trigger(RunSQL):
    """
    Create a trigger and its function, both called `name`; the reverse drops both.

    `body` is a whole PL/pgSQL block (`[DECLARE ...] BEGIN ... END`) that returns NEW, OLD or NULL. `when` is the trigger's
    condition. `deferred` makes a constraint trigger that runs at COMMIT, after each row. `each` is ROW or STATEMENT. The table
    may be partitioned: row triggers then hold in every partition, statement triggers only for statements on the parent.
    """

    def __init__(
        self,
        name: str,
        table: str,
        *,
        body: str,
        timing: str = "BEFORE",
        events: str = "INSERT OR UPDATE",
        each: str = "ROW",
        when: str | None = None,
        deferred: bool = False,
    ) -> None:
        self.name, self.table = _checked(name), _checked(table)
        kind, moment, wait = ("TRIGGER", timing, "")
        if deferred:
            kind, moment, wait = ("CONSTRAINT TRIGGER", "AFTER", "DEFERRABLE INITIALLY DEFERRED ")
        condition = f"WHEN ({when}) " if when else ""
        self.created: list[Any] = [
            f'CREATE FUNCTION "{name}"() RETURNS trigger LANGUAGE plpgsql AS $tierbook$\n{body}\n$tierbook$',
            f'CREATE {kind} "{name}" {moment} {events} ON "{table}" {wait}FOR EACH {each} {condition}EXECUTE FUNCTION "{name}"()',
        ]
        self.dropped: list[Any] = [f'DROP TRIGGER "{name}" ON "{table}"', f'DROP FUNCTION "{name}"()']
        super().__init__(sql=self.created, reverse_sql=self.dropped)

    # RunSQL writes itself as SQL when migrations are squashed; this one stays what it is.
    deconstruct = Operation.deconstruct

    def describe(self) -> str:
        """Say what the operation does, for `migrate --plan`."""
        return f"Trigger {self.name} on {self.table}"


class GuardTrigger(Trigger):
    """
    Refuse statements on rows with SQLSTATE 23001 (Django: IntegrityError) and a sentence for people.

    `when` limits it to some rows (`OLD.status = 'open'`); it sees OLD, and NEW only where `events` is UPDATE or INSERT alone.
    `truncate` refuses TRUNCATE as well, by a second trigger called `<name>_truncate`; of single partitions it does not.
    """

    def __init__(
        self,
        name: str,
        table: str,
        *,
        message: str,
        events: str = "UPDATE OR DELETE",
        when: str | None = None,
        truncate: bool = False,
    ) -> None:
        text = message.replace("'", "''")
        refusal = (
            f"BEGIN\n    RAISE EXCEPTION USING ERRCODE = '{RESTRICT_VIOLATION}', MESSAGE = '{text}', "
            "TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, CONSTRAINT = TG_NAME;\nEND"
        )
        super().__init__(name, table, body=refusal, events=events, when=when)
        if truncate:
            second = _checked(f"{name}_truncate")
            self.created.append(
                f'CREATE TRIGGER "{second}" BEFORE TRUNCATE ON "{table}" FOR EACH STATEMENT EXECUTE FUNCTION "{name}"()'
            )
            self.dropped.insert(0, f'DROP TRIGGER "{second}" ON "{table}"')


class AppendOnly(GuardTrigger):
    """Make a table append-only: its rows can be inserted and read, and neither changed, deleted nor truncated."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"{table}_append_only",
            table,
            message=f"Rows of {table} are never changed or deleted; correct them by adding rows.",
            truncate=True,
        )


def _checked(name: str) -> str:
    # Longer names would be cut off in silence, and two of them could become one.
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a name of at most 63 lower-case letters, digits and underscores")
    return name


# Constraints and fields


def no_overlap(
    name: str, key_field: str, start_field: str, end_field: str, condition: Q | None = None
) -> ExclusionConstraint:
    """
    Return a constraint: of rows with the same key, no two half-open spans [start, end) share an instant.

    An end of NULL is open for ever. The key is a bigint (a foreign key will do) and never NULL: that would be every key at
    once. `condition` limits it to some rows. Needs no extension: the key stands as a range of one number, where a scalar
    would need btree_gist.
    """
    key = Func(F(key_field), F(key_field), Value("[]"), function="int8range", output_field=BigIntegerRangeField())
    span = Func(F(start_field), F(end_field), function="tstzrange", output_field=DateTimeRangeField())
    return ExclusionConstraint(name=name, expressions=[(key, "&&"), (span, "&&")], condition=condition)


class UnboundedDecimalField(FiniteDecimalField):
    """
    An exact number of any size and scale: PostgreSQL's `numeric` without precision. Always a finite Decimal in Python.

    For amounts before rounding. A float is refused, as it has lost its digits already.
    """

    description = "Exact decimal number without bounds"

    def check(self, **kwargs: Any) -> list[Any]:
        """Check what every field must fulfil; there are no digits to declare."""
        return models.Field.check(self, **kwargs)

    def db_type(self, connection: Any) -> str:
        """Return the column's type."""
        return "numeric"

    @property
    def validators(self) -> list[Any]:
        """Return the field's own validators; there are no digits to count."""
        return super(models.DecimalField, self).validators

    def to_python(self, value: Any) -> Decimal | None:
        """Return the exact value. Raises ValidationError for floats and for what is not a finite number."""
        if isinstance(value, float):
            raise ValidationError(self.error_messages["invalid"], code="invalid", params={"value": value})
        return super().to_python(value)


# Identifiers


class _Sequence:
    """Issues UUIDv7 values that rise within this process (RFC 9562, section 6.2, method 2: a random counter of 74 bits)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._milliseconds = 0
        self._counter = 0

    def take(self, number: int) -> list[UUID]:
        # An id needs some time, not the tenant's, and no round trip to the database.
        milliseconds = time.time_ns() // 1_000_000
        steps = struct.unpack(f"{number}I", os.urandom(4 * number))
        with self._lock:
            if milliseconds > self._milliseconds:
                self._milliseconds = milliseconds
                self._counter = int.from_bytes(os.urandom(10)) >> 7  # 73 bits: room above to count on
            # Within the same millisecond, or when a clock was set back, the counter goes on.
            ids = []
            for step in steps:
                self._counter += 1 + step
                if self._counter >= 1 << 74:
                    self._milliseconds, self._counter = self._milliseconds + 1, self._counter & 0xFFFFFFFF
                high, low = self._counter >> 62, self._counter & ((1 << 62) - 1)
                ids.append(_uuid(self._milliseconds << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low))
        return ids


_UNKNOWN = SafeUUID.unknown  # an enumeration's member costs a call of Python each time it is named


def _uuid(number: int) -> UUID:
    """Return the UUID of a number as unpickling makes it: its constructor spends twice the time on arguments that are not there."""
    made = UUID.__new__(UUID)
    object.__setattr__(made, "int", number)
    object.__setattr__(made, "is_safe", _UNKNOWN)
    return made


_sequence = _Sequence()


def uuid7() -> UUID:
    """
    Return a new UUID version 7: its order is the order of creation within a process, and nearly so between processes.

    >>> uuid7() < uuid7(), uuid7().version
    (True, 7)
    """
    return _sequence.take(1)[0]


def uuid7s(number: int) -> list[UUID]:
    """Return so many new ones, in rising order."""
    return _sequence.take(number)


def _after_fork() -> None:
    # A child must neither repeat its parent's counter nor inherit a lock that another thread held.
    global _sequence
    _sequence = _Sequence()


os.register_at_fork(after_in_child=_after_fork)
