"""
Closing periods: three lines each (the next period's fee and the overage of two meters), by the product's sweep, against bulk SQL.

One tenant is set up and used through the services, then copied. Its own closing shows which rows a closing writes, its audit entry and the
message that tells of it among them; the floor writes the same rows for other copies, one statement per table and chunk, in the same tables
with their triggers and foreign keys. What it leaves out is no row of a closing: leases, and the gapless number, of which its invoices have
their own. The worker that books overage is taken to have kept up: the overage is booked already.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import psycopg
from django.db import models

from benchmarks import population
from benchmarks.cloning import MODELS, Copies, rows_of
from benchmarks.workers import PROCESSES
from invoices.models import Invoice
from invoices.services import due
from invoices.services.closing import book_balance, close_period
from metering.models import MeterBalance
from metering.services.ingest import record_events
from metering.services.requests import NewEvent, Record
from subscriptions.models import Tenant

DATABASE = "closing"
CODE = "closing"
METERS = {"input": "llm.input", "output": "llm.output"}
USED = 25_000  # of each meter; 10,000 are included
LINES = 3
# As many periods in a transaction of the floor as in one of the product.
CHUNK = due.CHUNK
# What the workers can share evenly.
SHARED = CHUNK * PROCESSES
SWEEP_SECONDS = 600.0


@dataclass(frozen=True)
class Change:
    """The columns that a closing changes in some rows of a table."""

    columns: list[str]
    keys: list[Any]


@dataclass(frozen=True)
class Closing:
    """What a closing writes: new rows, and columns of rows that were there."""

    written: Copies
    changed: dict[type[models.Model], Change]


def build(administrator_url: str, copies: int) -> Closing:
    """Set up a tenant whose first period has ended, copy it so often, and close the original. No copy is due yet."""
    now = datetime.now(tz=UTC)
    version = population.publish(CODE, meters=METERS, now=now)
    tenant = population.subscribe(CODE, version=version, starts_at=now - timedelta(days=45), now=now)
    used_at = now - timedelta(days=20)
    used = [NewEvent(CODE, "bench", kind, kind, used_at, {"total_tokens": USED}) for kind in METERS.values()]
    record_events([Record(used, now)])
    for balance_id in MeterBalance.objects.filter(tenant=tenant, due_at__isnull=False).values_list("pk", flat=True):
        book_balance(balance_id=balance_id, now=now)
    with psycopg.connect(administrator_url, autocommit=True) as administrator:
        not_due = "CASE WHEN t.due_at > now() THEN t.due_at END"
        copied = population.clone(administrator, tenant, copies=copies, due_at=not_due)
        before = _contents(tenant)
        invoice = close_period(period_id=tenant.periods.get(sequence=1).pk, now=now)
        assert invoice is not None
        assert invoice.lines.count() == LINES
        after = _contents(tenant)
        new = {model: [key for key in after[model] if key not in before[model]] for model in MODELS}
        written = Copies(administrator, new, of=copied)
        written.reserve(administrator, copies)
    changed = {model: _change(before[model], after[model]) for model in MODELS}
    return Closing(written, {model: change for model, change in changed.items() if change.keys})


def release(administrator: psycopg.Connection, copies: Sequence[int]) -> None:
    """Let the ended periods of some copies fall due."""
    administrator.execute(
        "UPDATE subscriptions_billingperiod p SET due_at = p.ends_at FROM subscriptions_tenant t"
        " WHERE t.id = p.tenant_id AND p.sequence = 1 AND t.code = ANY(%s)",
        [[f"{CODE}-{number}" for number in copies]],
    )


def invoices_of(administrator: psycopg.Connection, copies: Sequence[int]) -> int:
    """Return how many of these copies have an open closing invoice of three lines."""
    row = administrator.execute(
        "SELECT count(*) FROM invoices_invoice i JOIN subscriptions_tenant t ON t.id = i.tenant_id"
        " WHERE t.code = ANY(%s) AND i.reason = 'period' AND i.status = 'open'"
        " AND (SELECT count(*) FROM invoices_invoiceline l WHERE l.invoice_id = i.id) = %s",
        [[f"{CODE}-{number}" for number in copies], LINES],
    ).fetchone()
    assert row is not None
    return int(row[0])


def sweep() -> Callable[[], int]:
    """Run what is due, as a worker does; returns how many things were done."""
    now = datetime.now(tz=UTC)
    return lambda: len(due.sweep(now=now, seconds_max=SWEEP_SECONDS))


def bulk(closing: Closing, first: int, last: int) -> Callable[[], int]:
    """Write the rows of closings for the copies `first` to `last`; returns how many."""
    connection = _connection()

    def run() -> int:
        for start in range(first, last + 1, CHUNK):
            with connection.transaction():
                _write(connection, closing, start, min(start + CHUNK - 1, last))
        return last - first + 1

    return run


def _write(connection: psycopg.Connection, closing: Closing, first: int, last: int) -> None:
    written = closing.written
    for model in MODELS:
        if model in written.rows:
            # A trigger wants every invoice to begin as a draft; like the product, it gets its number when its lines are there.
            draft = _DRAFT if model is Invoice else {}
            written.insert(connection, model, first=first, last=last, **draft)
    written.update(connection, Invoice, _DRAFT, keys=written.rows[Invoice], first=first, last=last)
    for model, change in closing.changed.items():
        written.update(connection, model, change.columns, keys=change.keys, first=first, last=last)


_DRAFT = {"status": "'draft'", "number": "NULL", "finalized_at": "NULL", "series": "''"}


def _contents(tenant: Tenant) -> dict[type[models.Model], dict[Any, dict[str, Any]]]:
    """Return the tenant's rows, by model and key, without what the database computes."""
    return {model: _rows(model, keys) for model, keys in rows_of(tenant.pk).items()}


def _change(before: Mapping[Any, dict[str, Any]], after: Mapping[Any, dict[str, Any]]) -> Change:
    differing = {key: {name for name in row if row[name] != after[key][name]} for key, row in before.items()}
    return Change(sorted(set().union(*differing.values())), [key for key, columns in differing.items() if columns])


def _rows(model: type[models.Model], keys: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    columns = [one.attname for one in model._meta.concrete_fields if not isinstance(one, models.GeneratedField)]
    return {row["id"]: row for row in model._base_manager.filter(pk__in=list(keys)).values(*columns)}


@cache
def _connection() -> psycopg.Connection:
    # Copies are found by their keys; the planner, which cannot foresee them, would read whole tables for it.
    options = "-c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, options=options)
