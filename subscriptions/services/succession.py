"""
The succession of periods: which one follows a subscription's newest, on which version, from which anchor, and with which fee.

Called by `metering`, whose opening of periods this is a part of. What was scheduled for a boundary comes into force here, whoever opens the
period: beat, an event, the gate or a closing. The caller holds the subscriptions' locks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import connection, transaction

from billing_site.database import among
from subscriptions.core import periods
from subscriptions.core.changes import ChangeAllowance
from subscriptions.core.periods import Anchor, Period
from subscriptions.models import BillingPeriod, FeeItem, ScheduledChange, Subscription, TierChange, TierVersion
from subscriptions.selectors.agreement import newest_periods
from subscriptions.selectors.catalog import VersionTerms, terms_of
from subscriptions.services import fees, publications
from subscriptions.services.announcing import announce, announce_change
from subscriptions.services.audit import ACTOR_SYSTEM


@transaction.atomic
def next_periods(*, subscriptions: Sequence[Subscription], now: datetime) -> list[BillingPeriod]:
    """
    Write, for each subscription whose time has come, the period that follows its newest one, and the fee that falls due with it.

    A subscription that has ended or is paused has none; where a trial ends it goes on, pauses or ends, as its version says (what a change of
    tier has ended, goes on). A period that does not start on a boundary, and one that the subscription's end cuts, is a stub: its fee is
    the share of local days. After a change of the tenant's zone the anchor is read in the new one, and no period is shorter than half an
    interval for it. The number of statements does not grow with that of the subscriptions, but for those that change.
    """
    newest = newest_periods(subscription.pk for subscription in subscriptions)
    waiting = _scheduled(subscriptions)
    following: list[_Following] = []
    ended: list[Subscription] = []
    due_at: dict[Subscription, datetime | None] = {}
    for subscription in subscriptions:
        last = newest.get(subscription.pk)
        starts_at = max(last.ends_at, subscription.run_starts_at) if last else subscription.run_starts_at
        if starts_at > now:
            continue
        _end_of_trial(subscription, last)
        if subscription.paused_at is not None or (
            subscription.ends_at is not None and subscription.ends_at <= starts_at
        ):
            _give_back(subscription, last)
            due_at[subscription] = None
            ended.append(subscription)
            continue
        one = _following(subscription, last, starts_at, waiting.get(subscription.pk, []))
        following.append(one)
        if not _awaits_opening_invoice(one):
            due_at[subscription] = one.period.ends_at
    opened = BillingPeriod.objects.bulk_create(one.period for one in following)
    for one in following:
        for change, replaced in one.changes:
            _carry_out(change, replaced, one)
    opening = (fees.fee_of_period(one.period, one.subscription, one.terms) for one in following if one.opens_fee)
    FeeItem.objects.bulk_create(fee for fee in opening if fee is not None)
    opening_due(due_at)
    drop_scheduled(ended)
    return opened


def opening_due(due_at: Mapping[Subscription, datetime | None]) -> None:
    """Set when each subscription's next period is to be opened; None: never. Writes only what changes."""
    changed = [subscription for subscription, instant in due_at.items() if subscription.due_at != instant]
    if not changed:
        return
    for subscription in changed:
        subscription.due_at = due_at[subscription]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE subscriptions_subscription s SET due_at = d.due_at
            FROM unnest(%s::bigint[], %s::timestamptz[]) AS d (id, due_at) WHERE s.id = d.id
            """,
            [[one.pk for one in changed], [one.due_at for one in changed]],
        )


def anchor_anew(subscription: Subscription, at: datetime) -> None:
    """Count boundaries from `at`, read in the tenant's zone."""
    anchor = Anchor.at(at, subscription.tenant.timezone)
    subscription.anchor_date, subscription.anchor_time = anchor.wall.date(), anchor.wall.time()
    subscription.anchor_zone = anchor.zone
    subscription.save(update_fields=["anchor_date", "anchor_time", "anchor_zone"])


def drop_scheduled(subscriptions: Sequence[Subscription]) -> None:
    """Drop what was scheduled for subscriptions that run no longer; what was published to one that is paused waits with it."""
    waiting = ScheduledChange.objects.filter(subscription__in=subscriptions, status=ScheduledChange.Status.SCHEDULED)
    waiting = waiting.exclude(
        publication__isnull=False, subscription__paused_at__isnull=False, subscription__ends_at__isnull=True
    )
    if subscriptions:
        waiting.update(status=ScheduledChange.Status.DROPPED, due_at=None)


def is_other_rhythm(before: VersionTerms, after: VersionTerms) -> bool:
    """Whether a change from one version to the other always resets: another interval, count, alignment or span of the fee."""
    return (before.cadence, before.fee_every) != (after.cadence, after.fee_every)


@dataclass(slots=True)
class _Following:
    """A period that is to be written, with what comes into force at its start."""

    subscription: Subscription
    period: BillingPeriod
    terms: VersionTerms
    # Whether a new span of the fee begins with it, of which it pays the fee; and whether one that runs on is given back for it.
    opens_fee: bool
    resets: bool
    # With the version that each replaces.
    changes: list[tuple[ScheduledChange, TierVersion]] = field(default_factory=list)


def _scheduled(subscriptions: Sequence[Subscription]) -> dict[int, list[ScheduledChange]]:
    """Return what waits, by subscription, in the order in which it comes into force."""
    found: dict[int, list[ScheduledChange]] = {}
    rows = ScheduledChange.objects.filter(
        among("subscription_id", [one.pk for one in subscriptions]), status=ScheduledChange.Status.SCHEDULED
    )
    for change in rows.select_related("to_version", "publication__version").order_by("wanted_at", "pk"):
        found.setdefault(change.subscription_id, []).append(change)
    return found


def _following(
    subscription: Subscription, last: BillingPeriod | None, starts_at: datetime, waiting: Sequence[ScheduledChange]
) -> _Following:
    """Return the period, not yet saved, that follows `last` (None: the first)."""
    begins_run = last is None or last.starts_at < subscription.run_starts_at
    before = terms_of(subscription.version_id)
    # What waits for a boundary does not take the place of the change that has ended the period before: it waits for the next one.
    was_ended_by_change = not begins_run and last is not None and _was_cut(last)
    changes = [] if was_ended_by_change else _in_force_at(subscription, starts_at, waiting)
    terms = terms_of(subscription.version_id)
    is_trial = last is None and subscription.trial_ends_at is not None
    moved = [change.anchor_at for change, _ in changes if change.anchor_at is not None]
    resets = bool(moved) or any(change.allowance == ChangeAllowance.RESET for change, _ in changes)
    resets = not begins_run and (resets or is_other_rhythm(before, terms))
    if moved:
        anchor_anew(subscription, moved[-1])
    elif resets:
        anchor_anew(subscription, starts_at)
    whole = _trial_of(subscription) if is_trial else _whole_period(subscription, terms, starts_at)
    # In the zone to which a tenant has moved, the span ends with the period that holds most of its last day. What was cut ends at once.
    is_anew = begins_run or resets or was_ended_by_change
    opens_fee = is_anew or last is None or last.fee_ends_at - starts_at < whole.length / 2
    fee = Period(last.fee_starts_at, last.fee_ends_at) if last is not None and not opens_fee else None
    fee = fee or _fee_span(subscription, terms, whole, is_trial=is_trial)
    ends_at = whole.ends_at if subscription.ends_at is None else min(whole.ends_at, subscription.ends_at)
    kind = BillingPeriod.Kind.REGULAR if Period(starts_at, ends_at) == whole else BillingPeriod.Kind.STUB
    period = BillingPeriod(
        tenant_id=subscription.tenant_id,
        subscription=subscription,
        sequence=last.sequence + 1 if last else 1,
        kind=BillingPeriod.Kind.TRIAL if is_trial else kind,
        version_id=terms.id,
        starts_at=starts_at,
        ends_at=ends_at,
        full_starts_at=whole.starts_at,
        full_ends_at=whole.ends_at,
        fee_starts_at=fee.starts_at,
        fee_ends_at=fee.ends_at,
        begins_run=begins_run,
        due_at=ends_at + timedelta(hours=terms.grace_hours),
    )
    return _Following(subscription, period, terms, opens_fee, resets, changes)


def _in_force_at(
    subscription: Subscription, starts_at: datetime, waiting: Sequence[ScheduledChange]
) -> list[tuple[ScheduledChange, TierVersion]]:
    """
    Put the subscription on the version that is in force when a period starts, and return the changes that come into force with it, each with
    the version that it replaces.

    A change that was wanted earlier, within the period before, is carried out on that one by itself; here it only says the version. One that
    would have ended that period comes into force at the boundary instead.
    """
    if not waiting:
        return []
    at_boundary = []
    version = subscription.version
    for change in waiting:
        if change.wanted_at > starts_at:
            break
        if (reason := why_void(change, version)) is not None:
            settle(change, reason)
            continue
        if change.anchor_at is not None:
            change.to_version = version  # it moves boundaries, whatever the version is by then
        rhythm_changes = is_other_rhythm(terms_of(version.pk), terms_of(change.to_version_id))
        if change.at_boundary or change.wanted_at == starts_at or rhythm_changes or change.allowance == "reset":
            at_boundary.append((change, version))
        version = change.to_version
    if version.pk != subscription.version_id:
        subscription.version = version
        subscription.save(update_fields=["version"])
    return at_boundary


def _carry_out(scheduled: ScheduledChange, replaced: TierVersion, following: _Following) -> None:
    """Write that a change came into force with a period, and what it does with a fee whose span goes on over the boundary."""
    period, subscription = following.period, following.subscription
    done = TierChange.objects.create(
        public_id=scheduled.public_id,
        tenant_id=scheduled.tenant_id,
        subscription=subscription,
        period=period,
        from_version=replaced,
        to_version_id=scheduled.to_version_id,
        effective_at=period.starts_at,
        fee=scheduled.fee,
        grain=scheduled.grain,
        allowance=ChangeAllowance.RESET.value if following.resets else scheduled.allowance,
        bill=scheduled.bill,
    )
    settle(scheduled, ScheduledChange.Status.DONE)
    if terms_of(done.from_version_id).tier_code != following.terms.tier_code:
        publications.join(subscription=subscription, at=period.starts_at)
    if following.resets:
        grain = done.choices.grain
        fees.credit_unused(subscription=subscription, period=period, at=period.starts_at, grain=grain, change=done)
    elif not following.opens_fee:
        fees.exchange(subscription=subscription, period=period, change=done)
    announce_change(done, actor=ACTOR_SYSTEM)


def why_void(change: ScheduledChange, version: TierVersion) -> str | None:
    """Return what a publication's change becomes of a subscription on this version, if there is nothing to carry out; None if there is."""
    publication = change.publication
    if publication is None:
        return None
    if publication.undone_at is not None:
        return ScheduledChange.Status.UNDONE
    is_elsewhere = publication.version.tier_id != version.tier_id or publication.version_id == version.pk
    return ScheduledChange.Status.DROPPED if is_elsewhere else None


def settle(change: ScheduledChange, status: str) -> ScheduledChange:
    """Note what has become of a scheduled change."""
    change.status, change.due_at = status, None
    change.save(update_fields=["status", "due_at"])
    return change


def _was_cut(period: BillingPeriod) -> bool:
    """Whether a period ended before its time: a change that begins another one has ended it."""
    return period.ends_at < period.full_ends_at


def _end_of_trial(subscription: Subscription, last: BillingPeriod | None) -> None:
    """Pause or end a subscription whose newest period was its trial, where its version says so."""
    if last is None or last.kind != BillingPeriod.Kind.TRIAL or last.starts_at < subscription.run_starts_at:
        return
    if _was_cut(last):
        return
    match terms_of(subscription.version_id).trial_end:
        case "pause" if subscription.paused_at is None and subscription.ends_at is None:
            subscription.paused_at = last.ends_at
            subscription.save(update_fields=["paused_at"])
            _tell_of_end(subscription, "pause", "subscription.paused", {"paused_at": last.ends_at})
        case "cancel" if subscription.ends_at is None:
            subscription.ends_at, subscription.end_credit = last.ends_at, "none"
            subscription.save(update_fields=["ends_at", "end_credit"])
            _tell_of_end(subscription, "cancel", "subscription.cancelled", {"ends_at": last.ends_at})


def _tell_of_end(subscription: Subscription, action: str, message: str, after: Mapping[str, datetime]) -> None:
    announce(
        subscription,
        action=action,
        type=message,
        actor=ACTOR_SYSTEM,
        before=dict.fromkeys(after),
        after=after,
        reason="The trial ended.",
    )


def _give_back(subscription: Subscription, last: BillingPeriod | None) -> None:
    """Give back what is unused of a fee whose span goes on beyond the end that a cancellation has set for the end of a period."""
    if last is None or subscription.due_at is None or subscription.end_credit != "unused":
        return
    fees.credit_unused(subscription=subscription, period=last, at=last.ends_at)


def _awaits_opening_invoice(following: _Following) -> bool:
    """
    Say whether the subscription stays due at the start of its run: the first fee in advance has an invoice of its own.

    Whoever opens that period (ingestion may), the due time moves on only with that invoice (`periods.opening_billed`).
    """
    terms, subscription = following.terms, following.subscription
    in_advance = terms.fee > 0 and terms.fee_timing == TierVersion.FeeTiming.ADVANCE
    bills_fee = in_advance and following.period.kind != BillingPeriod.Kind.TRIAL
    return bills_fee and following.period.begins_run and subscription.due_at == subscription.run_starts_at


def _trial_of(subscription: Subscription) -> Period:
    assert subscription.trial_ends_at is not None  # the caller has looked
    return Period(subscription.starts_at, subscription.trial_ends_at)


def _whole_period(subscription: Subscription, terms: VersionTerms, starts_at: datetime) -> Period:
    """Return the whole interval in which a period that starts then lies: it starts earlier where that is a stub."""
    if _rezone(subscription):
        return periods.next_period(subscription.anchor, terms.cadence, starts_at, rezoned=True)
    return periods.period_containing(subscription.anchor, terms.cadence, starts_at)


def _rezone(subscription: Subscription) -> bool:
    """Read the anchor in the zone that the tenant has now; whether that is another one."""
    if subscription.tenant.timezone == subscription.anchor_zone:
        return False
    subscription.anchor_zone = subscription.tenant.timezone
    subscription.save(update_fields=["anchor_zone"])
    return True


def _fee_span(subscription: Subscription, terms: VersionTerms, whole: Period, *, is_trial: bool) -> Period:
    """Return the span that one fee pays for, of which `whole` is the first period."""
    ends_at = whole.ends_at
    for _ in range(0 if is_trial else terms.fee_every - 1):
        ends_at = periods.next_period(subscription.anchor, terms.cadence, ends_at).ends_at
    return Period(whole.starts_at, ends_at)
