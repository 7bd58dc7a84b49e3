"""
Copies of rows by SQL: ten thousand tenants in seconds, and the rows of a closing as one statement per table.

What is copied, and how its keys change, is read from the models, so that a new column needs no change here: integer keys get ranges of their
own, UUIDs are derived from the original and the copy's number, and foreign keys between copied rows lead to the copies.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import models

from invoices.models import Invoice, InvoiceLine, InvoiceLineSource
from metering.models import CreditGrant, LedgerEntry, MeterBalance, OverageCharge, Posting, SegmentTotal
from subscriptions.models import AuditEntry, BillingPeriod, FeeItem, OutboxMessage, Subscription, Tenant

Rows = Mapping[type[models.Model], Sequence[Any]]

# Parents first.
MODELS: tuple[type[models.Model], ...] = (
    Tenant,
    Subscription,
    BillingPeriod,
    FeeItem,
    MeterBalance,
    CreditGrant,
    Posting,
    LedgerEntry,
    SegmentTotal,
    OverageCharge,
    Invoice,
    InvoiceLine,
    InvoiceLineSource,
    AuditEntry,
    OutboxMessage,
)


def rows_of(tenant_id: int) -> dict[type[models.Model], list[Any]]:
    """
    Return the keys of all rows of a tenant that can be copied, by model; of its audit entries those of its invoices.

    Its events are not: nothing refers to their rows.
    """
    invoices = [
        str(public_id) for public_id in Invoice.objects.filter(tenant_id=tenant_id).values_list("public_id", flat=True)
    ]
    of_tenant = {model: model.objects.filter(tenant_id=tenant_id) for model in MODELS if _has_tenant(model)}  # type: ignore[attr-defined]
    queries = {
        **of_tenant,
        Tenant: Tenant.objects.filter(pk=tenant_id),
        Posting: Posting.objects.filter(entries__tenant_id=tenant_id).distinct(),
        SegmentTotal: SegmentTotal.objects.filter(balance__tenant_id=tenant_id),
        InvoiceLine: InvoiceLine.objects.filter(invoice__tenant_id=tenant_id),
        InvoiceLineSource: InvoiceLineSource.objects.filter(line__invoice__tenant_id=tenant_id),
        AuditEntry: AuditEntry.objects.filter(object_type=Invoice._meta.label_lower, object_id__in=invoices),
    }
    return {model: list(queries[model].order_by("pk").values_list("pk", flat=True)) for model in MODELS}


@dataclass(frozen=True)
class Range:
    """Where the copies of some rows of a table are: copy `i` (from 1) of the row at `position` has key base + (i - 1) × rows + position."""

    keys: Sequence[int]
    base: int

    def expression(self, column: str) -> str:
        """Return SQL for the key of the copy of the row that `column` names; NULL for a row that is not copied."""
        return f"{self.base} + (i - 1) * {len(self.keys)} + array_position(ARRAY{list(self.keys)}::bigint[], {column}::bigint)"


class Copies:
    """A set of rows, and where their copies are. A later set knows an earlier one, so that its rows can refer to that one's copies."""

    def __init__(self, connection: psycopg.Connection, rows: Rows, *, of: "Copies | None" = None) -> None:
        self.rows = {model: keys for model, keys in rows.items() if keys}
        self._known = set(self.rows)
        self._ranges: dict[type[models.Model], list[Range]] = {}
        for model, keys in self.rows.items():
            if _has_integer_key(model):
                highest = connection.execute(f"SELECT coalesce(max(id), 0) FROM {model._meta.db_table}").fetchone()
                assert highest is not None
                self._ranges[model] = [Range(keys, highest[0])]
        if of is not None:
            self._known |= of._known
            for model, ranges in of._ranges.items():
                self._ranges.setdefault(model, []).extend(ranges)

    def reserve(self, connection: psycopg.Connection, copies: int) -> None:
        """Let the tables' own counters go on behind the ranges of so many copies."""
        for model, keys in self.rows.items():
            if _has_integer_key(model):
                last = self._ranges[model][0].base + copies * len(keys) + 1
                sequence = f"pg_get_serial_sequence('{model._meta.db_table}', 'id')"
                connection.execute(f"SELECT setval({sequence}, greatest({last}, nextval({sequence})))")

    def insert(
        self, connection: psycopg.Connection, model: type[models.Model], *, first: int, last: int, **values: str
    ) -> None:
        """Insert the copies `first` to `last` of the rows of a table; `values` are SQL for columns that differ."""
        columns = {
            field.column: values.get(field.column) or self.expression(model, field) for field in _stored_fields(model)
        }
        table = model._meta.db_table
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
            f" FROM {table} t CROSS JOIN generate_series({first}, {last}) i WHERE {_among(model, self.rows[model])}"
        )

    def update(
        self,
        connection: psycopg.Connection,
        model: type[models.Model],
        columns: Iterable[str],
        *,
        keys: Sequence[Any],
        first: int,
        last: int,
    ) -> None:
        """Give copies of these originals what those now have in these columns."""
        fields = {field.column: field for field in _stored_fields(model)}
        assigned = ", ".join(f"{name} = {self.expression(model, fields[name])}" for name in columns)
        table, copies = model._meta.db_table, self._ranges[model][0]
        connection.execute(
            f"UPDATE {table} SET {assigned} FROM {table} t CROSS JOIN generate_series({first}, {last}) i"
            f" WHERE {_among(model, keys)} AND {table}.id = {copies.expression('t.id')}"
        )

    def expression(self, model: type[models.Model], field: Any) -> str:
        """Return SQL for a column of a copy, from its original `t`."""
        column = f"t.{field.column}"
        target = model if field.primary_key else field.related_model if field.is_relation else None
        if target in self._ranges:
            copied = [one.expression(column) for one in self._ranges[target]]
            # What is not copied (a version, a meter) is shared.
            return f"coalesce({', '.join([*copied, column])})"
        if target in self._known or (field.unique and isinstance(field, models.UUIDField)):
            return f"md5({column}::text || '/' || i)::uuid"
        if model is Tenant and field.name == "code":
            return f"{column} || '-' || i"
        if model is Invoice and field.name == "series":
            return f"CASE {column} WHEN '' THEN '' ELSE 'COPY' END"  # numbers of the real series are gapless
        if model is Invoice and field.name == "number":
            # The copy's own key: no two copies share a number, however many of one tenant's invoices are copied.
            return f"CASE WHEN {column} IS NOT NULL THEN {self._ranges[Invoice][0].expression('t.id')} END"
        return column


def _has_tenant(model: type[models.Model]) -> bool:
    return any(field.name == "tenant" for field in model._meta.concrete_fields)


def _has_integer_key(model: type[models.Model]) -> bool:
    return isinstance(model._meta.pk, models.AutoField | models.BigAutoField)


def _stored_fields(model: type[models.Model]) -> list[Any]:
    return [field for field in model._meta.concrete_fields if not isinstance(field, models.GeneratedField)]


def _among(model: type[models.Model], keys: Sequence[Any]) -> str:
    kind = "bigint" if _has_integer_key(model) else "uuid"
    return f"t.id = ANY ('{{{','.join(map(str, keys))}}}'::{kind}[])"
