"""
The agreement's own row: a subscription starts, pauses, resumes, ends, and is taken up again.

Which period follows is `succession`'s, what changes within one `switching`'s, the fees are `fees`'. Called by `metering` and `invoices`,
whose use cases these are parts of; no door calls it, and the audit entry is the use case's. Does not own allowances, overage or invoices. The caller holds the subscription's lock wherever a subscription is passed in.
"""

from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q
from psycopg.errors import ExclusionViolation

from billing_site.http.problems import DomainError, Invalid
from subscriptions.core.periods import Anchor, resolve_wall
from subscriptions.models import BillingPeriod, FeeItem, Subscription, Tenant, TierVersion
from subscriptions.selectors.catalog import terms_of
from subscriptions.services import fees, publications
from subscriptions.services.succession import anchor_anew, drop_scheduled, opening_due
from subscriptions.services.version_documents import TRIAL_DAYS_MAX

# A start is carried out period by period in one transaction; further back it would be a migration, not a start.
BACK_DATED_DAYS_MAX = 3 * 366
# For how long after its end a subscription may be taken up again as the same one.
REACTIVATION_DAYS = 30
SMALLEST_SPAN = timedelta(microseconds=1)


class AlreadySubscribed(DomainError):
    """The tenant has a subscription that runs then; there is at most one at any instant."""

    code = "already_subscribed"
    title = "The tenant is subscribed already"


class CurrencyMismatch(Invalid):
    """The version is priced in another currency than the tenant pays in."""

    code = "currency_mismatch"
    title = "The currencies differ"


class VersionNotPublished(DomainError):
    """A draft can still change, so nobody can subscribe to it."""

    code = "version_not_published"
    title = "The version is not published"


class StartsTooEarly(Invalid):
    """The start lies too far in the past to be opened at once."""

    code = "starts_too_early"
    title = "The start lies too far back"


class SubscriptionEnded(DomainError):
    """The subscription has ended, or is to end no later than asked."""

    code = "subscription_ended"
    title = "The subscription ends already"


class SubscriptionNotStarted(DomainError):
    """The subscription begins later than the end that was asked for."""

    code = "subscription_not_started"
    title = "The subscription has not started"


class EndsInThePast(Invalid):
    """What has been used cannot be cancelled afterwards."""

    code = "ends_in_the_past"
    title = "A subscription cannot end in the past"


class SubscriptionPaused(DomainError):
    """The subscription is paused: it has no period that could be changed."""

    code = "subscription_paused"
    title = "The subscription is paused"


class SubscriptionNotPaused(DomainError):
    """Only what is paused is resumed."""

    code = "subscription_not_paused"
    title = "The subscription is not paused"


class SubscriptionNotEnded(DomainError):
    """Only what has ended is reactivated."""

    code = "subscription_not_ended"
    title = "The subscription has not ended"


class ReactivationTooLate(DomainError):
    """The subscription ended too long ago to be taken up again."""

    code = "reactivation_too_late"
    title = "The subscription ended too long ago"


class TrialUsed(DomainError):
    """The tenant has had its trial of the tier."""

    code = "trial_used"
    title = "The tenant has had its trial"


class TrialTooLong(Invalid):
    """A trial has an end that is near enough to be one."""

    code = "trial_too_long"
    title = "The trial is too long"


class NoTrial(DomainError):
    """The subscription is in no trial whose end could be moved."""

    code = "no_trial"
    title = "The subscription is in no trial"


class NothingToUndo(DomainError):
    """Nothing that could be taken back is still to come."""

    code = "nothing_to_undo"
    title = "There is nothing to undo"


@transaction.atomic
def start(
    *,
    tenant: Tenant,
    version: TierVersion,
    starts_at: datetime,
    anchor_at: datetime | None,
    now: datetime,
    trial_days: int | None = None,
) -> Subscription:
    """
    Write a subscription that runs from `starts_at` until it is cancelled. It opens nothing: its first period is due at `starts_at`.

    It begins with a trial of `trial_days` local days; if absent, of the version's, unless the tenant has had one in the tier. Boundaries are
    counted from `anchor_at` (absent: from the start, or the trial's end), read as local time in the tenant's zone. Raises
    VersionNotPublished, AlreadySubscribed and TrialUsed (409), CurrencyMismatch and StartsTooEarly (422: more than three years before `now`).
    """
    # Before the currency is read: see `tenants.update_tenant`. Two starts of one tenant come one after the other, too.
    locked = Tenant.objects.select_for_update(no_key=True, of=("self",)).get(pk=tenant.pk)
    check_version(version, currency=locked.currency, payer=locked.code)
    if starts_at < now - timedelta(days=BACK_DATED_DAYS_MAX):
        raise StartsTooEarly("A subscription starts at most three years back.")
    trial_ends_at = _trial_end(locked, version, starts_at, trial_days)
    anchor = Anchor.at(anchor_at or trial_ends_at or starts_at, locked.timezone)
    try:
        with transaction.atomic():
            subscription = Subscription.objects.create(
                tenant=locked,
                version=version,
                anchor_date=anchor.wall.date(),
                anchor_time=anchor.wall.time(),
                anchor_zone=anchor.zone,
                starts_at=starts_at,
                trial_ends_at=trial_ends_at,
                run_starts_at=starts_at,
                due_at=starts_at,
            )
    except IntegrityError as error:
        if not isinstance(error.__cause__, ExclusionViolation):
            raise
        raise AlreadySubscribed(f"{locked.code} has a subscription at that time; change or cancel it first.") from error
    publications.join(subscription=subscription, at=starts_at)
    return subscription


def check_version(version: TierVersion, *, currency: str, payer: str) -> None:
    """Raise VersionNotPublished (409) for a draft, CurrencyMismatch (422) where the payer pays in another currency than this."""
    if not version.is_published:
        raise VersionNotPublished(f"{version} is a draft.")
    if version.currency != currency:
        raise CurrencyMismatch(f"{version} is priced in {version.currency}, and {payer} pays in {currency}.")


@transaction.atomic
def end(*, subscription: Subscription, ends_at: datetime, credit: str, now: datetime) -> FeeItem | None:
    """
    End the subscription at an instant, now or later, and cut the running period there; return the credit item, if there is one by now.

    `credit` is "unused", which gives back the unused part of the running fee (on day grain the day of cancelling counts as used, but not the
    day that begins where a period ends by itself; a fee in arrears stays whole as an item and gets the credit beside it), or "none". Of a
    period that ends by itself it is given back when the end has come. An end may be brought forward, not put off. A half-open period cannot
    be empty, so an end at the very instant in which it started is a microsecond later.

    Raises EndsInThePast (422), SubscriptionEnded and SubscriptionNotStarted (409).
    """
    _check_end(subscription, ends_at, now)
    if subscription.paused_at is not None:
        ends_at = max(ends_at, subscription.paused_at)
    running = _period_at(subscription, ends_at)
    began_at = subscription.starts_at if running is None else running.starts_at
    ends_at = max(ends_at, began_at + SMALLEST_SPAN)
    if subscription.ends_at is not None and subscription.ends_at <= ends_at:
        raise SubscriptionEnded(f"The subscription ends at {subscription.ends_at:%Y-%m-%dT%H:%M:%SZ} already.")
    if running is not None:
        cut_period(running, ends_at)
    subscription.ends_at = ends_at
    subscription.end_credit = credit
    subscription.save(update_fields=["ends_at", "end_credit"])
    publications.leave(subscription=subscription)
    newest = subscription.periods.order_by("-sequence").first()
    if newest is None:
        return None
    if running is None and subscription.paused_at is None:
        return None
    opening_due({subscription: None})
    drop_scheduled([subscription])
    if credit != "unused" or running is None:
        return None
    return fees.credit_unused(subscription=subscription, period=newest, at=ends_at, is_day_used=True)


@transaction.atomic
def pause(*, subscription: Subscription, at: datetime, credit: str) -> FeeItem | None:
    """
    Pause the subscription at an instant, which ends its running period there as a cancellation does; return the credit item, if there is one.

    Until it is resumed it has no period. What was scheduled is dropped. Raises SubscriptionPaused, SubscriptionEnded and
    SubscriptionNotStarted (409).
    """
    _refuse_paused(subscription)
    running = _period_at(subscription, at)
    if subscription.ends_at is not None:
        raise SubscriptionEnded(f"The subscription ends at {subscription.ends_at:%Y-%m-%dT%H:%M:%SZ}.")
    if running is None:
        raise SubscriptionNotStarted(f"The subscription starts only at {subscription.starts_at:%Y-%m-%dT%H:%M:%SZ}.")
    at = max(at, running.starts_at + SMALLEST_SPAN)
    cut_period(running, at)
    subscription.paused_at = at
    subscription.save(update_fields=["paused_at"])
    drop_scheduled([subscription])
    opening_due({subscription: None})
    if credit != "unused":
        return None
    return fees.credit_unused(subscription=subscription, period=running, at=at, is_day_used=True)


@transaction.atomic
def resume(*, subscription: Subscription, at: datetime) -> None:
    """
    Let a paused subscription begin a new run at an instant, from which its boundaries are counted; its period is due then.

    Raises SubscriptionNotPaused and SubscriptionEnded (409).
    """
    if subscription.paused_at is None:
        raise SubscriptionNotPaused("The subscription is not paused.")
    if subscription.ends_at is not None:
        raise SubscriptionEnded(f"The subscription ended at {subscription.ends_at:%Y-%m-%dT%H:%M:%SZ}; reactivate it.")
    _begin_run(subscription, at)


@transaction.atomic
def reactivate(*, subscription: Subscription, at: datetime) -> None:
    """
    Take up again a subscription that ended at most REACTIVATION_DAYS ago: a new run begins at `at`, from which boundaries are counted.

    One that ended at the instant of its start, a microsecond ahead, may be taken up at that instant, too. Raises SubscriptionNotEnded,
    ReactivationTooLate and AlreadySubscribed (409).
    """
    ends_at = subscription.ends_at
    if ends_at is None or ends_at > at + SMALLEST_SPAN:
        raise SubscriptionNotEnded("The subscription has not ended; undo its cancellation, if there is one.")
    if at > ends_at + timedelta(days=REACTIVATION_DAYS):
        raise ReactivationTooLate(
            f"It ended at {ends_at:%Y-%m-%dT%H:%M:%SZ}, more than {REACTIVATION_DAYS} days ago; start a new subscription."
        )
    try:
        with transaction.atomic():
            subscription.ends_at, subscription.end_credit = None, ""
            subscription.save(update_fields=["ends_at", "end_credit"])
    except IntegrityError as error:
        if not isinstance(error.__cause__, ExclusionViolation):
            raise
        raise AlreadySubscribed("The tenant has had another subscription since.") from error
    _begin_run(subscription, at)
    publications.join(subscription=subscription, at=subscription.run_starts_at, resumes=True)


@transaction.atomic
def undo_end(*, subscription: Subscription, now: datetime) -> None:
    """
    Take a cancellation back whose time has not come: the period runs to its end, and another follows. Raises NothingToUndo (409).

    One that has cut a period, and given back a part of its fee, is not undone: the subscription is reactivated when it has ended.
    """
    if subscription.ends_at is None or subscription.ends_at <= now:
        raise NothingToUndo("No cancellation of the subscription is still to come.")
    newest = subscription.periods.order_by("-sequence").first()
    if newest is not None and newest.ends_at < newest.full_ends_at:
        raise NothingToUndo(
            "The cancellation has cut the running period; reactivate the subscription when that has ended."
        )
    subscription.ends_at, subscription.end_credit = None, ""
    subscription.save(update_fields=["ends_at", "end_credit"])
    opening_due({subscription: subscription.run_starts_at if newest is None else newest.ends_at})
    publications.join(subscription=subscription, at=now, resumes=True)


@transaction.atomic
def move_trial_end(*, subscription: Subscription, ends_at: datetime, now: datetime) -> BillingPeriod:
    """
    Extend a running trial, or end it early (at `now` at the earliest); return its period.

    Boundaries that were counted from its end are counted from the new one; an allowance that a change of tier has prorated stays as it is.
    Raises NoTrial, SubscriptionEnded and SubscriptionPaused (409: what follows is settled), EndsInThePast and TrialTooLong (422).
    """
    rows = subscription.periods.select_for_update(no_key=True, of=("self",))
    period = rows.filter(kind=BillingPeriod.Kind.TRIAL, closed_at__isnull=True).first()
    if period is None or not period.starts_at <= now < period.ends_at or subscription.trial_ends_at is None:
        raise NoTrial("The subscription is in no trial.")
    if ends_at < now:
        raise EndsInThePast("A trial ends now or later.")
    if ends_at > period.starts_at + timedelta(days=TRIAL_DAYS_MAX):
        raise TrialTooLong(f"A trial lasts at most {TRIAL_DAYS_MAX} days.")
    if subscription.ends_at is not None:
        raise SubscriptionEnded(
            f"The subscription ends at {subscription.ends_at:%Y-%m-%dT%H:%M:%SZ}; undo its cancellation first."
        )
    _refuse_paused(subscription)
    if subscription.periods.filter(sequence__gt=period.sequence).exists():  # usage of the next minutes has opened it
        raise NoTrial("The period that follows the trial is open.")
    ends_at = max(ends_at, period.starts_at + SMALLEST_SPAN)
    if Anchor.at(subscription.trial_ends_at, subscription.anchor_zone) == subscription.anchor:
        anchor_anew(subscription, ends_at)
    subscription.trial_ends_at = ends_at
    subscription.save(update_fields=["trial_ends_at"])
    period.ends_at = period.full_ends_at = period.fee_ends_at = ends_at
    period.due_at = ends_at + timedelta(hours=terms_of(period.version_id).grace_hours)
    period.save(update_fields=["ends_at", "full_ends_at", "fee_ends_at", "due_at"])
    opening_due({subscription: ends_at})
    return period


def instant_of(subscription: Subscription, *, now: datetime) -> datetime:
    """
    Return the instant at which a transition that is asked for at `now` can take effect: then, or where the newest period begins.

    That is later where an event of the next minutes has opened it, and where a run began at the instant at which the one before it ended.
    """
    newest = subscription.periods.order_by("-sequence").first()
    return now if newest is None else max(now, newest.starts_at)


def cut_period(period: BillingPeriod, ends_at: datetime) -> None:
    """Let a period end earlier than it would; at its own end it stays as it is."""
    if ends_at >= period.ends_at:
        return
    period.ends_at = ends_at
    if period.kind != BillingPeriod.Kind.TRIAL:
        period.kind = BillingPeriod.Kind.STUB
    period.due_at = ends_at + timedelta(hours=terms_of(period.version_id).grace_hours)
    period.save(update_fields=["ends_at", "kind", "due_at"])


def _begin_run(subscription: Subscription, at: datetime) -> None:
    newest = subscription.periods.order_by("-sequence").first()
    at = at if newest is None else max(at, newest.ends_at)
    subscription.paused_at = None
    subscription.run_starts_at = at
    subscription.save(update_fields=["paused_at", "run_starts_at"])
    anchor_anew(subscription, at)
    opening_due({subscription: at})


def _trial_end(tenant: Tenant, version: TierVersion, starts_at: datetime, trial_days: int | None) -> datetime | None:
    """Return where the trial ends, so many local days on at the same wall time; None for no trial. Raises TrialUsed (409)."""
    had_one = _has_had_trial(tenant, version.tier_id)
    if trial_days and had_one:
        raise TrialUsed(f"{tenant.code} has had a trial of {version.tier} before; there is one per tenant and tier.")
    days = trial_days if trial_days is not None else 0 if had_one else version.trial_days
    if not days:
        return None
    wall = Anchor.at(starts_at, tenant.timezone).wall
    return resolve_wall(wall + timedelta(days=days), tenant.timezone)


def _has_had_trial(tenant: Tenant, tier_id: int) -> bool:
    """Whether the tenant has been on the tier in a trial, or is to be."""
    trials = BillingPeriod.objects.filter(tenant=tenant, kind=BillingPeriod.Kind.TRIAL)
    begun = trials.filter(Q(version__tier_id=tier_id) | Q(changes__to_version__tier_id=tier_id))
    to_come = Subscription.objects.filter(tenant=tenant, trial_ends_at__isnull=False, version__tier_id=tier_id)
    return begun.exists() or to_come.filter(periods__isnull=True).exists()


def _period_at(subscription: Subscription, instant: datetime) -> BillingPeriod | None:
    return subscription.periods.filter(closed_at__isnull=True, starts_at__lte=instant, ends_at__gt=instant).first()


def _refuse_paused(subscription: Subscription) -> None:
    if subscription.paused_at is not None:
        raise SubscriptionPaused(f"The subscription is paused since {subscription.paused_at:%Y-%m-%dT%H:%M:%SZ}.")


def _check_end(subscription: Subscription, ends_at: datetime, now: datetime) -> None:
    if ends_at < now:
        raise EndsInThePast("A subscription ends now or later.")
    if ends_at < subscription.starts_at:
        raise SubscriptionNotStarted(f"The subscription starts only at {subscription.starts_at:%Y-%m-%dT%H:%M:%SZ}.")
    newest = subscription.periods.order_by("-sequence").first()
    if newest is not None and ends_at < newest.starts_at:
        raise EndsInThePast("A later period has begun.")
