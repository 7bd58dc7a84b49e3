"""
Changing the version of a subscription: within its running period, by ending that, or scheduled for later.

Writes the agreement's rows and fee items. What becomes of allowances is `metering`'s, what is billed `invoices`', whose use case this is a part of.
The caller holds the subscription's lock.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from billing_site.database import uuid7
from subscriptions.core.changes import Choices
from subscriptions.models import BillingPeriod, ScheduledChange, Subscription, TierChange, TierVersion
from subscriptions.services import fees
from subscriptions.services.agreement import NothingToUndo, cut_period
from subscriptions.services.succession import anchor_anew, opening_due, settle


@transaction.atomic
def switch_version(
    *,
    subscription: Subscription,
    period: BillingPeriod,
    to_version: TierVersion,
    choices: Choices,
    at: datetime,
    allowances: Sequence[dict[str, Any]],
    public_id: UUID | None = None,
) -> TierChange:
    """
    Let a version come into force at an instant of an open period, and exchange the fees of the running span.

    `allowances` are the figures that the change records. The version that is replaced is the one in force at `at`; a change that was
    scheduled earlier in time than one that is done already leaves the subscription on the later one.
    """
    change = _write(subscription, period, to_version, choices, at, public_id, allowances)
    if not subscription.changes.filter(effective_at__gt=at).exists():
        subscription.version = to_version
        subscription.save(update_fields=["version"])
    fees.exchange(subscription=subscription, period=period, change=change)
    return change


@transaction.atomic
def begin_anew(
    *, subscription: Subscription, period: BillingPeriod, to_version: TierVersion, at: datetime
) -> TierVersion:
    """
    End the running period at an instant at which another begins, on a version and with boundaries counted from there.

    Returns the version that was in force. The new period is due to be opened; that it is, is the caller's, and so is `record_reset`. In a
    trial it ends that.
    """
    before = subscription.version
    cut_period(period, at)
    if period.kind == BillingPeriod.Kind.TRIAL:
        subscription.trial_ends_at = at
    subscription.version = to_version
    subscription.save(update_fields=["version", "trial_ends_at"])
    anchor_anew(subscription, at)
    opening_due({subscription: at})
    return before


@transaction.atomic
def record_reset(
    *,
    subscription: Subscription,
    period: BillingPeriod,
    from_version: TierVersion,
    choices: Choices,
    allowances: Sequence[dict[str, Any]],
    public_id: UUID | None = None,
) -> TierChange:
    """Record that a period began by a change, and give back the unused part of the fee that ran before, whatever the choice of the fee."""
    at = period.starts_at
    change = _write(subscription, period, period.version, choices, at, public_id, allowances, from_version=from_version)
    fees.credit_unused(
        subscription=subscription, period=period, at=at, grain=choices.grain, change=change, before_period=True
    )
    return change


@transaction.atomic
def schedule(
    *,
    subscription: Subscription,
    to_version: TierVersion,
    choices: Choices,
    wanted_at: datetime,
    at_boundary: bool,
    anchor_at: datetime | None = None,
) -> ScheduledChange:
    """Write a change that is to come: at an instant, or with the first period that begins at it or later."""
    return ScheduledChange.objects.create(
        tenant_id=subscription.tenant_id,
        subscription=subscription,
        to_version=to_version,
        fee=choices.fee.value,
        grain=choices.grain.value,
        allowance=choices.allowance.value,
        bill=choices.bill.value,
        at_boundary=at_boundary,
        wanted_at=wanted_at,
        due_at=None if at_boundary else wanted_at,
        anchor_at=anchor_at,
    )


@transaction.atomic
def await_boundary(*, change: ScheduledChange) -> None:
    """Let a change whose instant has come wait for the next period that begins: its subscription is paused."""
    change.at_boundary, change.due_at = True, None
    change.save(update_fields=["at_boundary", "due_at"])


@transaction.atomic
def undo(*, change: ScheduledChange) -> ScheduledChange:
    """Take back a change that has not come into force. Raises NothingToUndo (409)."""
    if change.status != ScheduledChange.Status.SCHEDULED:
        raise NothingToUndo(f"The change is {change.status}.")
    return settle(change, ScheduledChange.Status.UNDONE)


def _write(
    subscription: Subscription,
    period: BillingPeriod,
    to_version: TierVersion,
    choices: Choices,
    at: datetime,
    public_id: UUID | None,
    allowances: Sequence[dict[str, Any]],
    *,
    from_version: TierVersion | None = None,
) -> TierChange:
    return TierChange.objects.create(
        public_id=public_id or uuid7(),
        tenant_id=subscription.tenant_id,
        subscription=subscription,
        period=period,
        from_version=from_version or version_at(period, at),
        to_version=to_version,
        effective_at=at,
        fee=choices.fee.value,
        grain=choices.grain.value,
        allowance=choices.allowance.value,
        bill=choices.bill.value,
        allowances=list(allowances),
    )


def version_at(period: BillingPeriod, at: datetime) -> TierVersion:
    """Return the version that is in force in a period at an instant."""
    change = period.changes.filter(effective_at__lte=at).order_by("-effective_at", "-pk").first()
    return period.version if change is None else change.to_version
