"""What must be there before anything is measured: the catalogue, a key, and tenants by the thousand."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import cycle
from typing import Any

import psycopg
from django.db import connections
from django.db.models import Q, Sum

from benchmarks import events
from benchmarks.cloning import MODELS, Copies, rows_of
from benchmarks.naive.models import NaiveBalance, NaiveEvent, NaiveHold
from invoices.services import due
from invoices.services.subscribing import start_subscription
from metering.models import MeterBalance
from metering.services.ingest import record_events
from metering.services.requests import NewEvent, Record
from subscriptions.models import BillingPeriod, Tenant, TierVersion
from subscriptions.services import catalog, keys, tenants

ACTOR = "system"
INCLUDED = 10_000
PRICE = {"model": "per_unit", "unit_amount": "0.0002"}
FEW = 100  # tenants that single events and batches are spread over
MANY = 10_000
HOT = "hot"
NAIVE_HOT = "naive-hot"


def build(administrator: psycopg.Connection) -> str:
    """Make the catalogue, the tenants, the naive tables and an API key; return the key."""
    now = datetime.now(tz=UTC)
    version = publish("bench", meters={"tokens": events.TYPE}, now=now)
    for code in (HOT, NAIVE_HOT, "direct-0", "direct-1"):
        subscribe(code, version=version, starts_at=now - timedelta(hours=1), now=now)
    copied = subscribe("many", version=version, starts_at=now - timedelta(hours=1), now=now)
    clone(administrator, copied, copies=MANY)
    with connections["naive"].schema_editor() as editor:
        for model in (NaiveEvent, NaiveBalance, NaiveHold):
            editor.create_model(model)
    balances = [NaiveBalance(subject=code, included=INCLUDED) for code in [NAIVE_HOT, *many_tenants()]]
    NaiveBalance.objects.using("naive").bulk_create(balances)
    _, secret = keys.issue_key(name="bench", scopes=["ingest", "gate", "read", "manage"], actor=ACTOR)
    return secret


def many_tenants() -> list[str]:
    """Return the codes of the tenants that were copied."""
    return [f"many-{number}" for number in range(1, MANY + 1)]


def publish(
    code: str, *, meters: dict[str, str], now: datetime, charges: Sequence[Mapping[str, Any]] | None = None
) -> TierVersion:
    """
    Publish a monthly tier that charges for meters, which are made: code and type of event.

    `charges` are as in a version's document; without them, each meter includes INCLUDED and then costs PRICE.
    """
    for meter, event_type in meters.items():
        catalog.create_meter(
            code=meter,
            name=meter,
            event_type=event_type,
            aggregation="sum",
            value_property="total_tokens",
            dimensions=["model"],
            actor=ACTOR,
        )
    tier = catalog.create_tier(code=code, name=code, actor=ACTOR)
    draft = catalog.create_version(tier=tier, actor=ACTOR, document=document(charges or usual_charges(meters)))
    return catalog.publish(version_id=draft.pk, now=now - timedelta(days=90), actor=ACTOR)


def usual_charges(meters: Iterable[str], *, included: int = INCLUDED) -> list[dict[str, Any]]:
    """Return a charge per meter, at PRICE beyond what is included."""
    return [{"kind": "usage", "meter": meter, "included": str(included), "price": PRICE} for meter in meters]


def document(charges: Sequence[Mapping[str, Any]], *, fee: str = "99.00") -> dict[str, Any]:
    """Return the document of a monthly version."""
    return {"currency": "USD", "interval": "month", "fee": fee, "charges": list(charges)}


def subscribe(code: str, *, version: TierVersion, starts_at: datetime, now: datetime) -> Tenant:
    """Make a tenant and subscribe it."""
    tenant = tenants.create_tenant(code=code, name=code, actor=ACTOR)
    start_subscription(tenant=tenant, version=version, starts_at=starts_at, anchor_at=starts_at, now=now, actor=ACTOR)
    return tenant


def live(tenant: Tenant, *, types: Iterable[str], quantity: int, since: datetime, until: datetime) -> None:
    """Use meters from the fifth day on, every ten days, with three models in turn; close each period that ends meanwhile."""
    models = cycle(["opus", "sonnet", "haiku"])
    at = since + timedelta(days=5)
    while at < until:
        data = {"total_tokens": quantity, "model": next(models)}
        used = [NewEvent(tenant.code, "bench", f"{one} {at}", one, at, data) for one in types]
        record_events([Record(used, at)])
        due.sweep(now=at, seconds_max=60)
        at += timedelta(days=10)
    due.sweep(now=until, seconds_max=60)


def clone(administrator: psycopg.Connection, tenant: Tenant, *, copies: int, **values: str) -> Copies:
    """
    Copy a tenant with all that it has; past the triggers, which would refuse finished invoices.

    `values` are SQL for columns of periods that differ from the original's.
    """
    made = Copies(administrator, rows_of(tenant.pk))
    for model in MODELS:
        if model in made.rows:
            differing = values if model is BillingPeriod else {}
            made.insert(administrator, model, first=1, last=copies, **differing)
    made.reserve(administrator, copies)
    administrator.execute(f"ANALYZE {', '.join(model._meta.db_table for model in made.rows)}")
    return made


def used() -> Decimal:
    """Return what the product counted for the tenants that are used over HTTP."""
    balances = MeterBalance.objects.filter(Q(tenant__code=HOT) | Q(tenant__code__startswith="many-"))
    return balances.aggregate(used=Sum("used"))["used"]


def naive_used() -> Decimal:
    """Return what the naive views counted."""
    return NaiveBalance.objects.using("naive").aggregate(used=Sum("used"))["used"]


def held() -> tuple[Decimal, Decimal]:
    """Return what is held of the product's balances, and of the naive ones."""
    naive = NaiveBalance.objects.using("naive").aggregate(held=Sum("held"))
    return MeterBalance.objects.aggregate(held=Sum("held"))["held"], naive["held"]


def hot_positions() -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    """Return used, covered and overage of the hot tenants."""
    naive = NaiveBalance.objects.using("naive").get(subject=NAIVE_HOT)
    return {
        HOT: MeterBalance.objects.values_list("used", "covered", "overage").get(tenant__code=HOT),
        NAIVE_HOT: (naive.used, naive.used - naive.overage, naive.overage),
    }
