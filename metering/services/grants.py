"""
Grants of a pool: promotional and purchased credit, given for a time, and taken back.

A grant covers only usage that occurs in [effective_at, expires_at). It may be given for a time that has begun, as long as the period is
open: the segments are then cut anew, and what was overage may be covered (semantics, "Grants, segments, burn-down").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing_site.database import run_with_retries, uuid7
from billing_site.http.problems import DomainError, Invalid
from metering.core.identity import fingerprint
from metering.core.measuring import dimension_key
from metering.core.segments import meets
from metering.models import CreditGrant, GrantSchedule, MeterBalance, Posting
from metering.selectors.grants import GrantNotFound
from metering.selectors.terms import pools_of_version
from metering.services.crediting import take_out, write_grants
from metering.services.opening import open_periods
from metering.services.recutting import recut
from subscriptions.core.money import plain
from subscriptions.core.prices import RATES_WHOLE_VALUE
from subscriptions.models import BillingPeriod, Meter, Subscription, Tenant, TestClock
from subscriptions.selectors.agreement import running_subscription
from subscriptions.services import audit
from subscriptions.services.clocks import ClockAdvancing

PRIORITY_MAX = 32_767
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class InvalidGrant(Invalid):
    """The grant could never cover anything, or the tenant's tier has no use for it; `errors` names each fault."""


class KeyTaken(DomainError):
    """The key stands for another grant already."""

    code = "conflict"
    title = "The key stands for another grant"


class NotVoidable(DomainError):
    """Only promotional and purchased grants are taken back."""

    code = "grant_not_voidable"
    title = "The grant cannot be voided"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTerms:
    """What is asked for. Times are None where they were not sent: from now on, for ever."""

    meter: Meter
    dimensions: Mapping[str, str]
    kind: str
    # Meter units, of each grant.
    quantity: Decimal
    priority: int
    effective_at: datetime | None
    expires_at: datetime | None
    # The operator's own id of it; empty for none.
    key: str

    @property
    def pool(self) -> str:
        """Which pool of the meter it is for."""
        return dimension_key(tuple(sorted(self.dimensions.items()))) if self.dimensions else ""

    def content(self, **further: Any) -> bytes:
        """Return a digest by which a repeat under the same key is told from another grant."""
        content = {
            "meter": self.meter.code,
            "dimensions": dict(self.dimensions),
            "kind": self.kind,
            "quantity": plain(self.quantity),
            "priority": self.priority,
            "expires_at": None if self.expires_at is None else self.expires_at.isoformat(),
            **further,
        }
        return fingerprint("grant", content, self.effective_at)


def grant_credit(*, tenant: Tenant, terms: GrantTerms, now: datetime, actor: str) -> tuple[CreditGrant, bool]:
    """
    Give a grant to a pool of the tenant, and return it, and whether it is new.

    Idempotent by key: the same terms under the same key are the same grant. It covers usage from `effective_at` (the tenant's `now` if
    absent); where that lies in an open period's past, what was used since is walked again. Raises InvalidGrant (422), KeyTaken and
    ClockAdvancing (409).
    """
    return run_with_retries(lambda: _grant(tenant, terms, now, actor))


def void_grant(*, grant: CreditGrant, reason: str, now: datetime, actor: str) -> CreditGrant:
    """
    Take a promotional or purchased grant back: from `now` on it covers nothing.

    What was burned by usage before `now` stays burned, and events of that time that come late may still burn it, so that any order of the
    same events gives the same position. So the `void` entry, for what is then left, is posted when the last open period that the grant had
    touched closes, and at once where there is none; from `now` on nothing is shown as left. Calling again changes nothing. Raises
    NotVoidable for an allowance or a rollover and for a grant whose time is over, and ClockAdvancing (409).
    """
    return run_with_retries(lambda: _void(grant, reason, now, actor))


def lock_tenant(tenant: Tenant, now: datetime) -> Tenant:
    """
    Lock a tenant and its subscriptions, open the periods that have begun, and return the tenant.

    Under these locks no subscription of it starts, no period opens or closes, and no other grant of it comes or goes.
    """
    tenants = Tenant.objects.select_for_update(no_key=True, of=("self",)).select_related("test_clock")
    locked = tenants.get(pk=tenant.pk)
    subscriptions = Subscription.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant")
    owned = list(subscriptions.filter(tenant=locked).order_by("pk"))
    open_periods([one for one in owned if one.due_at is not None and one.due_at <= now], now=now)
    return locked


def refuse_advancing(tenant: Tenant) -> None:
    """Raise ClockAdvancing (409) while the tenant's test clock is."""
    if tenant.test_clock is not None and tenant.test_clock.status == TestClock.Status.ADVANCING:
        raise ClockAdvancing("The tenant's test clock is advancing; try again when it is done.")


def open_balances(*, tenant_id: int, meter_id: int, pool: str) -> list[MeterBalance]:
    """Lock, in id order, the unclosed balances of a pool, and return them with their periods, tenants and meters."""
    rows = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).select_related("period", "tenant", "meter")
    return list(rows.filter(tenant_id=tenant_id, meter_id=meter_id, pool=pool, closed_at__isnull=True).order_by("pk"))


@transaction.atomic
def _grant(tenant: Tenant, terms: GrantTerms, now: datetime, actor: str) -> tuple[CreditGrant, bool]:
    locked = lock_tenant(tenant, now)
    refuse_advancing(locked)
    content = terms.content()
    existing = same_key(locked, terms.key, content)
    if existing is not None:
        if not isinstance(existing, CreditGrant):
            raise KeyTaken(f"{terms.key} is the key of a schedule.")
        return existing, False
    effective_at = terms.effective_at or now
    check_terms(locked, terms, effective_at=effective_at, now=now)
    grant = CreditGrant(
        tenant=locked,
        meter=terms.meter,
        pool=terms.pool,
        kind=terms.kind,
        key=terms.key,
        fingerprint=content,
        priority=terms.priority,
        quantity=terms.quantity,
        effective_at=effective_at,
        expires_at=terms.expires_at,
    )
    give(grant, now=now)
    audit.record(actor=actor, action="grant", instance=grant, after=terms_document(grant))
    return grant, True


def give(grant: CreditGrant, *, now: datetime) -> None:
    """Write a grant of a pool, and let what is open follow it. The caller holds the locks of `lock_tenant`."""
    balances = open_balances(tenant_id=grant.tenant_id, meter_id=grant.meter_id, pool=grant.pool)
    write_grants([grant], posting_kind="grant")
    recut([one for one in balances if meets(grant.as_core(), one.period.period)], now=now)


def terms_document(grant: CreditGrant | GrantSchedule) -> dict[str, Any]:
    """Return what an audit entry says of a new grant or schedule."""
    names = ("kind", "quantity", "priority", "key", "pool", "effective_at", "expires_at", "starts_at", "until")
    return {"meter": grant.meter.code, **{name: getattr(grant, name) for name in names if hasattr(grant, name)}}


def same_key(tenant: Tenant, key: str, content: bytes) -> CreditGrant | GrantSchedule | None:
    """
    Return what the key stands for already. The caller holds the tenant's lock.

    Raises KeyTaken (409) where that has other terms.
    """
    if not key:
        return None
    for model in (CreditGrant, GrantSchedule):
        existing = model.objects.select_related("tenant", "meter").filter(tenant=tenant, key=key).first()
        if existing is not None:
            if bytes(existing.fingerprint or b"") != content:
                raise KeyTaken(f"{key} is the key of something else that was granted to {tenant.code}.")
            return existing
    return None


def check_terms(tenant: Tenant, terms: GrantTerms, *, effective_at: datetime, now: datetime) -> None:
    """Raise InvalidGrant (422) where a grant of these terms would cover nothing, or not what its giver means."""
    faults = [*_time_faults(tenant, terms, effective_at, now), *_pool_faults(tenant, terms, now)]
    if faults:
        raise InvalidGrant("The grant is not valid.", errors=faults)


def _time_faults(
    tenant: Tenant, terms: GrantTerms, effective_at: datetime, now: datetime
) -> list[tuple[str, str, str]]:
    expires_at = terms.expires_at
    if expires_at is not None and expires_at <= effective_at:
        return [("expires_at", "invalid", "Must be later than effective_at.")]
    if effective_at < now and closed_until(tenant) > effective_at:
        return [("effective_at", "period_closed", "Lies in a closed period, whose burns are final.")]
    if expires_at is not None and expires_at <= now and not _touches_open_time(tenant, effective_at, expires_at):
        return [("expires_at", "invalid", "Must be later than now, or lie in an open period.")]
    return []


def _touches_open_time(tenant: Tenant, starts_at: datetime, ends_at: datetime) -> bool:
    not_closed = BillingPeriod.objects.filter(tenant=tenant, closed_at__isnull=True)
    return not_closed.filter(starts_at__lt=ends_at, ends_at__gt=starts_at).exists()


def closed_until(tenant: Tenant) -> datetime:
    """Return the end of the tenant's last closed period; the beginning of time where none is closed."""
    closed = BillingPeriod.objects.filter(tenant=tenant, closed_at__isnull=False).order_by("-ends_at").first()
    return _LONG_AGO if closed is None else closed.ends_at


def _pool_faults(tenant: Tenant, terms: GrantTerms, now: datetime) -> list[tuple[str, str, str]]:
    meter = terms.meter
    if not meter.is_additive:
        return [("meter", "not_additive", f"A {meter.aggregation} does not add up: only its allowance covers it.")]
    unknown = [name for name in terms.dimensions if name not in meter.dimensions]
    if unknown:
        return [(f"dimensions.{name}", "not_a_dimension", "Is not a dimension of the meter.") for name in unknown]
    subscription = running_subscription(tenant, at=now)
    pools = None if subscription is None else pools_of_version(subscription.version_id).get(meter.pk)
    if pools is None:
        return []
    pool = pools.by_key.get(terms.pool)
    if pool is None:
        return [("dimensions", "no_such_pool", "No charge of the tenant's tier has a pool of its own for these.")]
    if any(charge.price.model in RATES_WHOLE_VALUE for charge in pool.charges):
        return [("meter", "rates_whole_value", "The tier prices the whole usage of this pool: grants do not apply.")]
    return []


@transaction.atomic
def _void(grant: CreditGrant, reason: str, now: datetime, actor: str) -> CreditGrant:
    refuse_advancing(lock_tenant(grant.tenant, now))
    balances = open_balances(tenant_id=grant.tenant_id, meter_id=grant.meter_id, pool=grant.pool)
    voided = CreditGrant.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant", "meter")
    row = voided.filter(pk=grant.pk).first()
    if row is None:
        raise GrantNotFound("There is no such grant.")
    if row.voided_at is not None:
        return row
    if row.kind not in (CreditGrant.Kind.PROMOTIONAL, CreditGrant.Kind.PURCHASED):
        raise NotVoidable(f"This grant is a period's {row.kind}; only what was given apart is taken back.")
    if row.expires_at is not None and row.expires_at <= now:
        raise NotVoidable("The grant has expired.")
    touched = [one for one in balances if meets(row.as_core(), one.period.period)]
    row.voided_at = now
    row.save(update_fields=["voided_at"])
    recut(touched, now=now)
    row.refresh_from_db()
    if not any(meets(row.as_core(), one.period.period) for one in balances):
        take_out([row], posting=Posting.objects.create(id=uuid7(), kind="void"))
        row.refresh_from_db()
    audit.record(actor=actor, action="void", instance=row, after={"voided_at": now}, reason=reason)
    return row
