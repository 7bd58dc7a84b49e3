"""Grants that come again: monthly credits on a yearly tier. A schedule makes one grant of a pool at each of its boundaries."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction

from billing_site.database import run_with_retries
from metering.models import CreditGrant, GrantSchedule
from metering.services.grants import (
    GrantTerms,
    InvalidGrant,
    KeyTaken,
    check_terms,
    closed_until,
    give,
    lock_tenant,
    refuse_advancing,
    same_key,
    terms_document,
)
from subscriptions.core.periods import Anchor, Cadence, Interval, index_of, nth_boundary
from subscriptions.models import Tenant
from subscriptions.services import audit

# Of a schedule that begins in the past: what would be more is a migration, not a schedule.
MADE_AT_ONCE_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """How often a grant is made: every `count` intervals, counted from the first in the tenant's zone."""

    interval: Interval
    count: int
    # No grant begins at this instant or later; None for no end.
    until: datetime | None
    # After how many times that each grant expires: 1 when the next begins. None: never.
    expires_after: int | None

    def content(self) -> dict[str, Any]:
        """Return what tells it from another."""
        until = None if self.until is None else self.until.isoformat()
        return {
            "interval": self.interval.value,
            "count": self.count,
            "until": until,
            "expires_after": self.expires_after,
        }


def schedule_grants(
    *, tenant: Tenant, terms: GrantTerms, every: Recurrence, now: datetime, actor: str
) -> tuple[GrantSchedule, bool]:
    """
    Give a grant of these terms again and again, and return the schedule, and whether it is new.

    Idempotent by key, as a single grant is. The first begins at `effective_at` (the tenant's `now` if absent); those whose time has come
    are made at once. Raises InvalidGrant (422), KeyTaken and ClockAdvancing (409).
    """
    return run_with_retries(lambda: _schedule(tenant, terms, every, now, actor))


@transaction.atomic
def void_schedule(*, schedule: GrantSchedule, reason: str, now: datetime, actor: str) -> GrantSchedule:
    """
    Stop a schedule: it makes no grant any more. Those that it has made stay; each may be voided apart.

    Calling again changes nothing. Raises ClockAdvancing (409).
    """
    refuse_advancing(lock_tenant(schedule.tenant, now))
    row = GrantSchedule.objects.select_for_update(no_key=True, of=("self",)).get(pk=schedule.pk)
    if row.voided_at is None:
        row.voided_at, row.due_at = now, None
        row.save(update_fields=["voided_at", "due_at"])
        audit.record(actor=actor, action="void", instance=row, after={"voided_at": now}, reason=reason)
    return row


@transaction.atomic
def make_due_grants(*, schedule_id: int, now: datetime) -> list[CreditGrant]:
    """
    Make the grants of a schedule whose time has come, and set when the next is due; return those made.

    Idempotent: each boundary is served once. A boundary in a period that has closed meanwhile gives a grant for the open time that is left.
    """
    schedule = GrantSchedule.objects.select_related("tenant").get(pk=schedule_id)
    lock_tenant(schedule.tenant, now)
    rows = GrantSchedule.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant", "meter")
    return _make(rows.get(pk=schedule_id), now)


@transaction.atomic
def _schedule(
    tenant: Tenant, terms: GrantTerms, every: Recurrence, now: datetime, actor: str
) -> tuple[GrantSchedule, bool]:
    locked = lock_tenant(tenant, now)
    refuse_advancing(locked)
    content = terms.content(every=every.content())
    existing = same_key(locked, terms.key, content)
    if existing is not None:
        if not isinstance(existing, GrantSchedule):
            raise KeyTaken(f"{terms.key} is the key of a single grant.")
        return existing, False
    starts_at = terms.effective_at or now
    check_terms(locked, terms, effective_at=starts_at, now=now)
    _check_every(locked, every, starts_at=starts_at, now=now)
    schedule = GrantSchedule.objects.create(
        tenant=locked,
        meter=terms.meter,
        pool=terms.pool,
        kind=terms.kind,
        key=terms.key,
        fingerprint=content,
        priority=terms.priority,
        quantity=terms.quantity,
        interval=every.interval.value,
        interval_count=every.count,
        starts_at=starts_at,
        zone=locked.timezone,
        until=every.until,
        expires_after=every.expires_after,
        due_at=starts_at,
    )
    audit.record(actor=actor, action="grant", instance=schedule, after=terms_document(schedule) | every.content())
    _make(schedule, now)
    return schedule, True


def _check_every(tenant: Tenant, every: Recurrence, *, starts_at: datetime, now: datetime) -> None:
    faults = []
    if every.until is not None and every.until <= max(starts_at, now):
        faults.append(("every.until", "invalid", "Must be later than now and than effective_at."))
    anchor, cadence = Anchor.at(starts_at, tenant.timezone), Cadence(every.interval, every.count)
    if starts_at < now and index_of(anchor, cadence, now) >= MADE_AT_ONCE_MAX:
        faults.append(("effective_at", "too_early", f"More than {MADE_AT_ONCE_MAX} grants would be due at once."))
    if faults:
        raise InvalidGrant("The schedule is not valid.", errors=faults)


def _make(schedule: GrantSchedule, now: datetime) -> list[CreditGrant]:
    made = []
    while schedule.due_at is not None and schedule.due_at <= now:
        grant = _grant_of(schedule, schedule.due_at)
        if grant is not None:
            give(grant, now=now)
            made.append(grant)
        schedule.made += 1
        following = nth_boundary(schedule.anchor, schedule.cadence, schedule.made)
        schedule.due_at = following if schedule.until is None or following < schedule.until else None
    schedule.save(update_fields=["made", "due_at"])
    return made


def _grant_of(schedule: GrantSchedule, boundary: datetime) -> CreditGrant | None:
    """Return the grant of a boundary, not yet written; None where nothing of its time is open any more."""
    effective_at = max(boundary, closed_until(schedule.tenant))
    expires_at = None
    if schedule.expires_after is not None:
        expires_at = nth_boundary(schedule.anchor, schedule.cadence, schedule.made + schedule.expires_after)
        if expires_at <= effective_at:
            return None
    return CreditGrant(
        tenant=schedule.tenant,
        meter=schedule.meter,
        pool=schedule.pool,
        kind=schedule.kind,
        priority=schedule.priority,
        quantity=schedule.quantity,
        effective_at=effective_at,
        expires_at=expires_at,
        schedule=schedule,
        sequence=schedule.made,
    )
