"""
Changes the tier of a subscription: now, at the end of its period, or at a date; and carries out what was scheduled.

The use case over all three apps, in one transaction: the agreement's rows and fees, the allowances and limits that follow, and the invoice where
it is billed at once. A preview is the same call, rolled back. Source: semantics, "Changing tier in mid-period".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction

from billing_site.database import among, run_with_retries
from billing_site.http.problems import Invalid
from invoices.models import Invoice
from invoices.services.invoicing import (
    Wanted,
    check_references,
    draft_all,
    finalize_all,
    lock_subscription,
    next_sequence,
)
from invoices.services.opening import open_due
from metering.services import ledger
from metering.services.rescaling import RescaledPool, follow_version, pools_after
from subscriptions.core.changes import ChangeAllowance, ChangeBill, Choices
from subscriptions.models import BillingPeriod, ScheduledChange, Subscription, TierChange, TierVersion
from subscriptions.selectors.agreement import version_spans
from subscriptions.selectors.catalog import terms_of
from subscriptions.selectors.tenants import refuse_parked
from subscriptions.services import agreement, audit, publications, switching
from subscriptions.services.agreement import SubscriptionEnded, SubscriptionNotStarted, SubscriptionPaused
from subscriptions.services.announcing import announce_change
from subscriptions.services.succession import is_other_rhythm, settle, why_void

Result = TypeVar("Result")

NOW, PERIOD_END = "now", "period_end"
# How far ahead a change may be scheduled.
DAYS_AHEAD_MAX = 366
# An empty period cannot be: what resets at a period's first instant does so a moment later.
_MOMENT = agreement.SMALLEST_SPAN


class ChangeInThePast(Invalid):
    """What has been used was priced by the version in force then."""

    code = "change_in_the_past"
    title = "A change cannot lie in the past"


class ChangeTooFar(Invalid):
    """What a change at a date will do is played from now on, period by period."""

    code = "change_too_far"
    title = "The change lies too far ahead"


class NothingChanges(Invalid):
    """The subscription is on that version, and is to stay there."""

    code = "nothing_changes"
    title = "The subscription is on that version already"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A change that is asked for."""

    to_version: TierVersion
    # "now", "period_end", or an instant of the tenant's time that is to come.
    when: str | datetime
    # Those that are absent are the target version's.
    choices: Mapping[str, str]

    def resolved(self) -> Choices:
        """Return all choices."""
        return Choices(**{**self.to_version.change_terms, **self.choices})


def change_tier(
    *, subscription_id: int, asked: Asked, now: datetime, actor: str, read: Callable[[TierChange], Result]
) -> tuple[ScheduledChange | None, Result]:
    """
    Change a subscription's tier as asked, and return what `read` returns of the change, with the row where it was scheduled.

    What is scheduled is read as it will be if nothing happens before. Raises SubscriptionPaused, SubscriptionEnded, SubscriptionNotStarted,
    VersionNotPublished and TenantParked (409), CurrencyMismatch, ChangeInThePast, ChangeTooFar and NothingChanges (422).
    """
    return run_with_retries(lambda: _change(subscription_id, asked, now, actor, read))


def preview_change(
    *, subscription_id: int, asked: Asked, now: datetime, actor: str, read: Callable[[TierChange], Result]
) -> Result:
    """Change the tier as `change_tier` does, hand the change to `read`, and undo everything; return what `read` returned."""
    with transaction.atomic():
        _, result = _change(subscription_id, asked, now, actor, read)
        check_references()
        transaction.set_rollback(True)
    return result


def preview_scheduled(*, change: ScheduledChange, now: datetime, read: Callable[[TierChange], Result]) -> Result:
    """Carry a scheduled change out as it will be if nothing happens before, hand it to `read`, and undo everything."""
    with transaction.atomic():
        subscription = lock_subscription(change.subscription_id)
        bring_up(subscription, now=now)
        result = read(_play(subscription, change))
        transaction.set_rollback(True)
    return result


def carry_out(*, change_ids: Iterable[int], now: datetime) -> None:
    """
    Carry out changes whose time has come, each at the instant that it was scheduled for, though it is later now.

    One whose subscription does not run then, or has left the tier that its publication was for, is dropped; a publication's waits for a paused
    one to be resumed. Doing it twice does it once.
    """
    for change_id in change_ids:
        run_with_retries(lambda change_id=change_id: _carry_out_due(change_id, now))  # type: ignore[misc]


def bring_up(subscription: Subscription, *, now: datetime) -> None:
    """
    Carry out the changes of a subscription that are due, and open what has begun, in this order.

    The caller holds the subscription's lock.
    """
    carry_out_overdue([subscription], now=now)
    open_due(subscriptions=[subscription], now=now)


def carry_out_overdue(subscriptions: Sequence[Subscription], *, now: datetime) -> None:
    """Carry out what is due of subscriptions whose locks the caller holds; one query where nothing is."""
    due = ScheduledChange.objects.filter(among("subscription_id", [one.pk for one in subscriptions]), due_at__lte=now)
    by_id = {one.pk: one for one in subscriptions}
    for change in due.select_related("to_version", "publication__version").order_by("due_at", "pk"):
        _carry_out(by_id[change.subscription_id], change, now)


def check_runs(subscription: Subscription, now: datetime) -> None:
    """Raise SubscriptionEnded, SubscriptionPaused or SubscriptionNotStarted (409) where no period of it runs."""
    if subscription.ends_at is not None and subscription.ends_at <= now:
        raise SubscriptionEnded(f"The subscription ended at {subscription.ends_at:%Y-%m-%dT%H:%M:%SZ}.")
    if subscription.paused_at is not None:
        raise SubscriptionPaused(f"The subscription is paused since {subscription.paused_at:%Y-%m-%dT%H:%M:%SZ}.")
    if subscription.starts_at > now:
        raise SubscriptionNotStarted(f"The subscription starts only at {subscription.starts_at:%Y-%m-%dT%H:%M:%SZ}.")


def _change(
    subscription_id: int, asked: Asked, now: datetime, actor: str, read: Callable[[TierChange], Result]
) -> tuple[ScheduledChange | None, Result]:
    with transaction.atomic():
        subscription = lock_subscription(subscription_id)
        refuse_parked(subscription.tenant)
        agreement.check_version(asked.to_version, currency=subscription.tenant.currency, payer=subscription.tenant.code)
        bring_up(subscription, now=now)
        check_runs(subscription, now)
        choices = asked.resolved()
        if asked.when == NOW:
            change = _carry_out_now(subscription, asked.to_version, choices, now, actor)
            return None, read(change)
        scheduled = _schedule(subscription, asked, choices, now, actor)
        with transaction.atomic():
            result = read(_play(subscription, scheduled))
            transaction.set_rollback(True)
        return scheduled, result


def _carry_out_now(
    subscription: Subscription, to_version: TierVersion, choices: Choices, now: datetime, actor: str
) -> TierChange:
    if to_version.pk == subscription.version_id and choices.allowance is not ChangeAllowance.RESET:
        raise NothingChanges(f"The subscription is on {to_version}; only the allowance `reset` would begin it anew.")
    at = agreement.instant_of(subscription, now=now)
    period = _lock_period_at(subscription, at)
    assert period is not None  # it runs, and what has begun is open
    return _execute(subscription, period, to_version, choices, at=at, now=now, actor=actor)


def _schedule(subscription: Subscription, asked: Asked, choices: Choices, now: datetime, actor: str) -> ScheduledChange:
    at_boundary = not isinstance(asked.when, datetime)
    wanted_at = asked.when if isinstance(asked.when, datetime) else now
    if wanted_at < now or (not at_boundary and wanted_at == now):
        raise ChangeInThePast("A change is scheduled for an instant that is to come; send `now` for this one.")
    if wanted_at > now + timedelta(days=DAYS_AHEAD_MAX):
        raise ChangeTooFar(f"A change is scheduled for at most {DAYS_AHEAD_MAX} days ahead.")
    if subscription.ends_at is not None and (at_boundary or wanted_at >= subscription.ends_at):
        raise SubscriptionEnded(
            f"The subscription ends at {subscription.ends_at:%Y-%m-%dT%H:%M:%SZ}; undo its cancellation first."
        )
    scheduled = switching.schedule(
        subscription=subscription,
        to_version=asked.to_version,
        choices=choices,
        wanted_at=wanted_at,
        at_boundary=at_boundary,
    )
    after = {"to": str(asked.to_version), "wanted_at": wanted_at, "at_boundary": at_boundary}
    audit.record(actor=actor, action="schedule_change", instance=subscription, after=after)
    return scheduled


def _play(subscription: Subscription, scheduled: ScheduledChange) -> TierChange:
    """Carry a scheduled change out as it will be; the caller rolls it back."""
    at = None
    while (done := TierChange.objects.filter(public_id=scheduled.public_id).first()) is None:
        ends_at = subscription.periods.latest("sequence").ends_at
        if at is not None and (at == scheduled.wanted_at or ends_at <= at):
            raise SubscriptionEnded("The subscription does not run any more at that time.")
        # A change at a date may end the period before; then this one waits for the end of the period that it begins.
        at = ends_at if scheduled.at_boundary else scheduled.wanted_at
        bring_up(subscription, now=at)
        check_references()
    return done


def _carry_out_due(change_id: int, now: datetime) -> None:
    with transaction.atomic():
        subscription = lock_subscription(
            ScheduledChange.objects.values_list("subscription_id", flat=True).get(pk=change_id)
        )
        refuse_parked(subscription.tenant)
        bring_up(subscription, now=now)


def _carry_out(subscription: Subscription, change: ScheduledChange, now: datetime) -> None:
    """Carry one change out at its instant, or with the period that begins then, or drop it."""
    subscription.refresh_from_db(fields=["version", "ends_at", "paused_at", "due_at"])
    at = change.wanted_at
    if subscription.due_at is not None and subscription.due_at <= at:
        open_due(subscriptions=[subscription], now=at)
    change.refresh_from_db(fields=["status"])
    if change.status != ScheduledChange.Status.SCHEDULED:
        return  # it came into force with a period that began at its instant
    void = why_void(change, subscription.version)
    if void is None and change.publication is not None and subscription.paused_at is not None:
        switching.await_boundary(change=change)
        return
    period, at = _lock_period_of(subscription, at)
    if period is None or void is not None:
        settle(change, void or ScheduledChange.Status.DROPPED)
        return
    settle(change, ScheduledChange.Status.DONE)
    _execute(
        subscription,
        period,
        change.to_version,
        change.choices,
        at=at,
        now=now,
        actor=audit.ACTOR_SYSTEM,
        public_id=change.public_id,
    )


def _lock_period_of(subscription: Subscription, wanted_at: datetime) -> tuple[BillingPeriod | None, datetime]:
    """
    Lock the period in which a change that is wanted at an instant takes place, and return it with that instant.

    Where another change has just reset at the same instant, it left a moment of the period that began then: this one follows upon it.
    """
    at = wanted_at
    period = _lock_period_at(subscription, at)
    while period is not None and (period.starts_at, period.ends_at) == (at, at + _MOMENT):
        following = _lock_period_at(subscription, period.ends_at)
        if following is None:
            break
        period, at = following, following.starts_at
    return period, at


def _lock_period_at(subscription: Subscription, at: datetime) -> BillingPeriod | None:
    """Lock and return the period that is running at an instant and not closed."""
    rows = subscription.periods.select_for_update(no_key=True, of=("self",)).select_related("version", "tenant")
    period = rows.filter(closed_at__isnull=True, starts_at__lte=at, ends_at__gt=at).first()
    if period is not None:
        period.subscription = subscription
    return period


def _execute(
    subscription: Subscription,
    period: BillingPeriod,
    to_version: TierVersion,
    choices: Choices,
    *,
    at: datetime,
    now: datetime,
    actor: str,
    public_id: UUID | None = None,
) -> TierChange:
    before = switching.version_at(period, at)
    has_other_rhythm = is_other_rhythm(terms_of(before.pk), terms_of(to_version.pk))
    if choices.allowance is ChangeAllowance.RESET or (has_other_rhythm and period.kind != BillingPeriod.Kind.TRIAL):
        choices = replace(choices, allowance=ChangeAllowance.RESET)
        change = _reset(subscription, period, to_version, choices, max(at, period.starts_at + _MOMENT), now, public_id)
    else:
        change = _switch(subscription, period, to_version, choices, at, now, public_id)
    if before.tier_id != to_version.tier_id:
        publications.join(subscription=subscription, at=change.effective_at)
    if choices.bill is ChangeBill.NOW:
        _bill(subscription, change, now, actor)
    announce_change(change, actor=actor)
    return change


def _switch(
    subscription: Subscription,
    period: BillingPeriod,
    to_version: TierVersion,
    choices: Choices,
    at: datetime,
    now: datetime,
    public_id: UUID | None,
) -> TierChange:
    """Let the version come into force within the period."""
    zone = subscription.anchor_zone
    pools = pools_after(period=period, to_version_id=to_version.pk, choices=choices, at=at, zone=zone)
    versions_before = version_spans(period)
    change = switching.switch_version(
        subscription=subscription,
        period=period,
        to_version=to_version,
        choices=choices,
        at=at,
        allowances=_documents(pools),
        public_id=public_id,
    )
    follow_version(period=period, pools=pools, versions_before=versions_before, at=at, now=now)
    return change


def _reset(
    subscription: Subscription,
    period: BillingPeriod,
    to_version: TierVersion,
    choices: Choices,
    at: datetime,
    now: datetime,
    public_id: UUID | None,
) -> TierChange:
    """End the period, and begin another on the version."""
    pools = pools_after(
        period=period, to_version_id=to_version.pk, choices=choices, at=at, zone=subscription.anchor_zone
    )
    from_version = switching.begin_anew(subscription=subscription, period=period, to_version=to_version, at=at)
    ledger.cut_balances(period=period, now=now)
    open_due(subscriptions=[subscription], now=max(at, now))
    following = subscription.periods.get(starts_at=at)
    return switching.record_reset(
        subscription=subscription,
        period=following,
        from_version=from_version,
        choices=choices,
        allowances=_documents(pools),
        public_id=public_id,
    )


def _documents(pools: Iterable[RescaledPool]) -> list[dict[str, Any]]:
    return [pool.document() for pool in pools]


def _bill(subscription: Subscription, change: TierChange, now: datetime, actor: str) -> None:
    """Bill what is unbilled by now, the change's fees among it, by an invoice of the change; none where there is nothing."""
    sequence = next_sequence(change.period, Invoice.Reason.CHANGE)
    wanted = Wanted(subscription, change.period, Invoice.Reason.CHANGE, sequence, change)
    finalize_all(draft_all([wanted], now=now), now=now, actor=actor)
