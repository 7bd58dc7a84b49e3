"""
Guards: limits to what a new price of a tier may do, and the gate that keeps a version from its customers until it is cleared.

Owns who may publish what. Does not own what is cleared by whom (`approvals`), nor how a backtest comes to its figures (`invoices`).
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing_site.http.problems import DomainError, FieldError, Invalid
from subscriptions.models import BacktestVerdict, PriceGuard, Tier, TierVersion
from subscriptions.selectors.guards import clearance_of
from subscriptions.services import audit

LIMITS = ("rise_percent_max", "revenue_fall_percent_max")
# What the columns hold; a fall by more than everything is none.
_MOST = {"rise_percent_max": Decimal("9999999.99"), "revenue_fall_percent_max": Decimal(100)}
_HUNDREDTH = Decimal("0.01")


class NotCleared(DomainError):
    """Something has to be done, or agreed to, before the version is published."""


class BacktestNeeded(NotCleared):
    """The tier has guards, and no backtest of the version, as it is now, says whether they hold."""

    code = "backtest_needed"
    title = "A backtest of the version is needed"


class GuardBroken(NotCleared):
    """A backtest found more than the tier's guards allow, and nobody else has approved the version since; `errors` names each guard."""

    code = "guard_broken"
    title = "A guard of the tier is broken"


class ApprovalNeeded(NotCleared):
    """This installation publishes what a second person has approved."""

    code = "approval_needed"
    title = "A second person has to approve the version"


@transaction.atomic
def set_guards(*, tier_id: int, limits: Mapping[str, Decimal | None], actor: str) -> None:
    """
    Set the guards of a tier that `limits` names (LIMITS), in percent, None for none; without a difference nothing is written.

    They are asked at each publication from then on. Raises Invalid (422) for what is no such percentage: 0 or more, of a fall at most 100,
    to the hundredth.
    """
    assert set(limits) <= set(LIMITS), f"guards that there are not: {set(limits) - set(LIMITS)}"
    _check(limits)
    tier = Tier.objects.select_for_update(no_key=True, of=("self",)).get(pk=tier_id)
    stored = PriceGuard.objects.filter(tier=tier).first() or PriceGuard(tier=tier)
    before, after = audit.changes({name: getattr(stored, name) for name in LIMITS}, limits)
    if not after:
        return
    for name, value in after.items():
        setattr(stored, name, value)
    stored.save()
    audit.record(actor=actor, action="set_guards", instance=tier, before=before, after=after)


@transaction.atomic
def record_verdict(
    version_id: int,
    revision: int,
    largest_rise_percent: Decimal | None,
    revenue_change_percent: Decimal | None,
    source: str,
    now: datetime,
) -> BacktestVerdict:
    """
    Keep what a finished backtest says to the guards of a version's tier; `now` is wall time.

    Percentages of what the tenants compared pay now, over all of their compared periods: of the one whose bill rises most, and of all together
    (negative for a fall). An infinite rise is that of a tenant who pays nothing now; None says that nobody pays anything. Several verdicts of a
    revision count together, the worst of each kind. Once per source: a repeat returns the first.
    """
    TierVersion.objects.select_for_update(no_key=True, of=("self",)).get(pk=version_id)
    rises_from_nothing = largest_rise_percent is not None and largest_rise_percent.is_infinite()
    verdict, _ = BacktestVerdict.objects.get_or_create(
        version_id=version_id,
        revision=revision,
        source=source,
        defaults={
            "largest_rise_percent": None if rises_from_nothing else largest_rise_percent,
            "rises_from_nothing": rises_from_nothing,
            "revenue_change_percent": revenue_change_percent,
            "found_at": now,
        },
    )
    return verdict


def check_publishable_by(version: TierVersion, *, actor: str) -> None:
    """
    Refuse a version that its tier's guards, or the installation, keep from being published by this person.

    The caller holds the locks of version and tier. Raises BacktestNeeded, GuardBroken, ApprovalNeeded (409).
    """
    clearance = clearance_of(version)
    if clearance.needs_backtest:
        raise BacktestNeeded(
            f"{version.tier.code} has guards: run a backtest of version {version.number} as it is now, then publish it."
        )
    if not clearance.needs_approval or clearance.is_approved_for(actor):
        return
    own = " Who publishes it cannot be the one who approves it." if clearance.valid_approvals else ""
    if clearance.breaches:
        found = " ".join(breach.message for breach in clearance.breaches)
        errors = [(f"guards.{breach.guard}", "broken", breach.message) for breach in clearance.breaches]
        raise GuardBroken(f"{found} Somebody else has to approve it as it is now.{own}", errors=errors)
    raise ApprovalNeeded(f"Somebody else has to approve version {version.number} as it is now.{own}")


def _check(limits: Mapping[str, Decimal | None]) -> None:
    faults = [
        FieldError(
            f"guards.{name}", "not_a_percentage", f"must be a percentage from 0 to {_MOST[name]}, to the hundredth"
        )
        for name, value in limits.items()
        if value is not None and not (value.is_finite() and 0 <= value <= _MOST[name] and value % _HUNDREDTH == 0)
    ]
    if faults:
        raise Invalid(" ".join(f"{fault.path} {fault.message}." for fault in faults), errors=faults)
