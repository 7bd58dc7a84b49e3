"""A small world for tests, built through the services: a clock, a meter, a tier, a tenant, a subscription."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from invoices.services.subscribing import start_subscription
from metering.models import MeterBalance
from metering.services.ingest import record_events
from metering.services.requests import IngestReport, NewEvent, Record
from metering.services.tenant_thresholds import set_thresholds
from subscriptions.models import Meter, Subscription, Tenant, TestClock, TierVersion
from subscriptions.services import catalog, clocks, tenants

ACTOR = "system"
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
_numbers = count(1)

PER_TOKEN = {"model": "per_unit", "unit_amount": "0.0002"}


def at(text: str) -> datetime:
    """Return a UTC instant: "2026-06-05 10:00"."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def make_meter(code: str = "tokens", **terms: Any) -> Meter:
    """Make a meter that sums `total_tokens` of llm.completion events, unless the terms say otherwise."""
    defaults: dict[str, Any] = {
        "name": code,
        "event_type": "llm.completion",
        "aggregation": "sum",
        "value_property": "total_tokens",
    }
    return catalog.create_meter(code=code, actor=ACTOR, **(defaults | terms))


def charge(**terms: Any) -> dict[str, Any]:
    """Return a usage charge's document: 10,000 tokens included, $0.0002 beyond."""
    return {"kind": "usage", "meter": "tokens", "included": "10000", "price": PER_TOKEN} | terms


def publish(code: str = "growth", *, charges: Iterable[Mapping[str, Any]] | None = None, **terms: Any) -> TierVersion:
    """Make and publish a tier's first version: $99 a month, in advance, one charge."""
    tier = catalog.create_tier(code=code, name=code.title(), actor=ACTOR)
    document: dict[str, Any] = {
        "currency": "USD",
        "interval": "month",
        "fee": "99.00",
        "charges": [charge()] if charges is None else list(charges),
    }
    version = catalog.create_version(tier=tier, actor=ACTOR, document=document | terms)
    return catalog.publish(version_id=version.pk, now=JUNE - timedelta(days=3650), actor=ACTOR)


@dataclass
class World:
    """One tenant on a test clock, subscribed from 1 June 2026."""

    tenant: Tenant
    clock: TestClock
    subscription: Subscription
    _ids: Any = field(default_factory=lambda: count(1))

    @property
    def now(self) -> datetime:
        """The tenant's time."""
        self.clock.refresh_from_db()
        return self.clock.now

    def event(self, tokens: Any = 1, *, time: datetime | None = None, id: str | None = None, **data: Any) -> NewEvent:
        """Return a new event of the tenant."""
        quantity = Decimal(str(tokens)) if tokens is not None else None
        body = {"total_tokens": quantity} if quantity is not None else {}
        return NewEvent(self.tenant.code, "test", id or f"e{next(self._ids)}", "llm.completion", time, body | data)

    def record(self, *events: NewEvent) -> IngestReport:
        """Record events as one request, and return its report."""
        return record_events([Record(list(events), datetime.now(tz=UTC))])[0]

    def use(self, tokens: Any, *, time: datetime | None = None, **data: Any) -> IngestReport:
        """Record one event."""
        return self.record(self.event(tokens, time=time, **data))

    def balance(self, **conditions: Any) -> MeterBalance:
        """Return the balance of the newest period that fits the conditions."""
        balances = MeterBalance.objects.filter(tenant=self.tenant, **conditions).select_related(
            "period", "meter", "tenant"
        )
        newest = balances.order_by("-period__sequence", "pk").first()
        assert newest is not None
        return newest

    def position(self, **conditions: Any) -> tuple[str, str, str]:
        """Return used, covered and overage as plain texts."""
        balance = self.balance(**conditions)
        return tuple(f"{number.normalize():f}" for number in (balance.used, balance.covered, balance.overage))  # type: ignore[return-value]


def make_world(
    *,
    version: TierVersion | None = None,
    starts_at: datetime = JUNE,
    now: datetime | None = None,
    meter: bool = True,
    thresholds: Iterable[Mapping[str, Any]] = (),
    anchor_at: datetime | None = None,
    trial_days: int | None = None,
    **tenant_terms: Any,
) -> World:
    """Make a tenant on a test clock of its own, with these thresholds of its own, and subscribe it; to a trial where the version has one."""
    number = next(_numbers)
    if meter and not Meter.objects.filter(code="tokens").exists():
        make_meter()
    clock = clocks.create_clock(code=f"clock-{number}", now=now or starts_at, actor=ACTOR)
    tenant = tenants.create_tenant(
        code=tenant_terms.pop("code", f"org_{number}"), name="Org", actor=ACTOR, test_clock=clock.code, **tenant_terms
    )
    if thresholds := list(thresholds):
        set_thresholds(tenant=tenant, thresholds=thresholds, actor=ACTOR)
    subscription = start_subscription(
        tenant=tenant,
        version=version or publish(f"growth-{number}"),
        starts_at=starts_at,
        anchor_at=anchor_at,
        trial_days=trial_days,
        now=clock.now,
        actor=ACTOR,
    )
    return World(tenant, clock, subscription)
