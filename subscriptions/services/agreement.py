"""
The agreement's own rows: subscriptions, their periods and fees.

Called by `metering` and `invoices`, whose use cases these are parts of; no door calls it, and the audit entry is the use case's. Does not own
allowances, overage or invoices. The caller holds the subscription's lock wherever a subscription is passed in.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from django.db import IntegrityError, connection, transaction
from psycopg.errors import ExclusionViolation

from billing_site.http.problems import DomainError, Invalid
from subscriptions.core import periods, proration
from subscriptions.core.periods import Anchor, Period
from subscriptions.core.proration import Grain, Share
from subscriptions.models import BillingPeriod, FeeItem, Subscription, Tenant, TierVersion
from subscriptions.selectors.agreement import newest_periods
from subscriptions.selectors.catalog import VersionTerms, terms_of

# A start is carried out period by period in one transaction; further back it would be a migration, not a start.
BACK_DATED_DAYS_MAX = 3 * 366
_SMALLEST_SPAN = timedelta(microseconds=1)


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


@transaction.atomic
def start(
    *, tenant: Tenant, version: TierVersion, starts_at: datetime, anchor_at: datetime, now: datetime
) -> Subscription:
    """
    Write a subscription that runs from `starts_at` until it is cancelled. It opens nothing: its first period is due at `starts_at`.

    Boundaries are counted from `anchor_at`, read as local time in the tenant's zone. Raises VersionNotPublished and AlreadySubscribed (409),
    CurrencyMismatch and StartsTooEarly (422: more than three years before `now`).
    """
    # Before the currency is read: see `tenants.update_tenant`. Two starts of one tenant come one after the other, too.
    locked = Tenant.objects.select_for_update(no_key=True, of=("self",)).get(pk=tenant.pk)
    if not version.is_published:
        raise VersionNotPublished(f"{version} is a draft.")
    if version.currency != locked.currency:
        raise CurrencyMismatch(
            f"{version} is priced in {version.currency}, and {locked.code} pays in {locked.currency}."
        )
    if starts_at < now - timedelta(days=BACK_DATED_DAYS_MAX):
        raise StartsTooEarly("A subscription starts at most three years back.")
    anchor = Anchor.at(anchor_at, locked.timezone)
    try:
        with transaction.atomic():
            return Subscription.objects.create(
                tenant=locked,
                version=version,
                anchor_date=anchor.wall.date(),
                anchor_time=anchor.wall.time(),
                anchor_zone=anchor.zone,
                starts_at=starts_at,
                due_at=starts_at,
            )
    except IntegrityError as error:
        if not isinstance(error.__cause__, ExclusionViolation):
            raise
        raise AlreadySubscribed(f"{locked.code} has a subscription at that time; change or cancel it first.") from error


@transaction.atomic
def next_periods(*, subscriptions: Sequence[Subscription], now: datetime) -> list[BillingPeriod]:
    """
    Write, for each subscription whose time has come, the period that follows its newest one, and the fee that falls due with it.

    A subscription that has ended has none. A first period that does not start on a boundary, and one that the subscription's end cuts, is a
    stub: its fee is the share of local days, unless the cancellation gave nothing back. After a change of the tenant's zone the anchor is
    read in the new one, and no period is shorter than half an interval for it. The number of statements does not grow with that of the
    subscriptions.
    """
    newest = newest_periods(subscription.pk for subscription in subscriptions)
    following: list[tuple[BillingPeriod, Subscription]] = []
    due_at: dict[Subscription, datetime | None] = {}
    for subscription in subscriptions:
        last = newest.get(subscription.pk)
        starts_at = last.ends_at if last else subscription.starts_at
        if starts_at > now:
            continue
        if subscription.ends_at is not None and subscription.ends_at <= starts_at:
            due_at[subscription] = None
            continue
        period = _following(subscription, last, starts_at)
        following.append((period, subscription))
        if not _awaits_opening_invoice(subscription, terms_of(subscription.version_id)):
            due_at[subscription] = None if period.ends_at == subscription.ends_at else period.ends_at
    opened = BillingPeriod.objects.bulk_create(period for period, _ in following)
    fees = (_fee(period, subscription, terms_of(period.version_id)) for period, subscription in following)
    FeeItem.objects.bulk_create(fee for fee in fees if fee is not None)
    opening_due(due_at)
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


@transaction.atomic
def end(*, subscription: Subscription, ends_at: datetime, credit: str, now: datetime) -> FeeItem | None:
    """
    End the subscription at an instant, now or later, and cut the running period there; return the credit item, if there is one.

    `credit` is "unused", which gives back the unused part of the running fee (on day grain the day of cancelling counts as used, but not the
    day that begins where a period ends by itself; a fee in arrears stays whole as an item and gets the credit beside it), or "none". An end
    may be brought forward, not put off. A half-open period cannot be empty, so an end at the very instant in which it started is a
    microsecond later.

    Raises EndsInThePast (422), SubscriptionEnded and SubscriptionNotStarted (409).
    """
    _check_end(subscription, ends_at, now)
    running = subscription.periods.filter(closed_at__isnull=True, starts_at__lte=ends_at, ends_at__gt=ends_at).first()
    began_at = subscription.starts_at if running is None else running.starts_at
    ends_at = max(ends_at, began_at + _SMALLEST_SPAN)
    if subscription.ends_at is not None and subscription.ends_at <= ends_at:
        raise SubscriptionEnded(f"The subscription ends at {subscription.ends_at:%Y-%m-%dT%H:%M:%SZ} already.")
    if running is not None and ends_at < running.ends_at:
        running.ends_at = ends_at
        running.kind = BillingPeriod.Kind.STUB
        running.due_at = ends_at + timedelta(hours=terms_of(running.version_id).grace_hours)
        running.save(update_fields=["ends_at", "kind", "due_at"])
    subscription.ends_at = ends_at
    subscription.end_credit = credit
    subscription.save(update_fields=["ends_at", "end_credit"])
    newest = subscription.periods.order_by("-sequence").first()
    if newest is None:
        return None
    if newest.ends_at >= ends_at:
        opening_due({subscription: None})
    return _write_credit(subscription, newest, ends_at, is_cut=running is not None) if credit == "unused" else None


def _check_end(subscription: Subscription, ends_at: datetime, now: datetime) -> None:
    if ends_at < now:
        raise EndsInThePast("A subscription ends now or later.")
    if ends_at < subscription.starts_at:
        raise SubscriptionNotStarted(f"The subscription starts only at {subscription.starts_at:%Y-%m-%dT%H:%M:%SZ}.")
    newest = subscription.periods.order_by("-sequence").first()
    if newest is not None and ends_at < newest.starts_at:
        raise EndsInThePast("A later period has begun.")


def _following(subscription: Subscription, last: BillingPeriod | None, starts_at: datetime) -> BillingPeriod:
    """Return the period, not yet saved, that follows `last` (None: the first)."""
    terms = terms_of(subscription.version_id)
    whole = _whole_period(subscription, terms, starts_at, is_first=last is None)
    ends_at = whole.ends_at if subscription.ends_at is None else min(whole.ends_at, subscription.ends_at)
    return BillingPeriod(
        tenant_id=subscription.tenant_id,
        subscription=subscription,
        sequence=last.sequence + 1 if last else 1,
        kind=BillingPeriod.Kind.REGULAR if Period(starts_at, ends_at) == whole else BillingPeriod.Kind.STUB,
        version_id=subscription.version_id,
        starts_at=starts_at,
        ends_at=ends_at,
        full_starts_at=whole.starts_at,
        full_ends_at=whole.ends_at,
        due_at=ends_at + timedelta(hours=terms.grace_hours),
    )


def _awaits_opening_invoice(subscription: Subscription, terms: VersionTerms) -> bool:
    """
    Say whether the subscription stays due at its start: its first fee in advance has an invoice of its own.

    Whoever opens the first period (ingestion may), the due time moves on only with that invoice (`periods.opening_billed`).
    """
    in_advance = terms.fee > 0 and terms.fee_timing == TierVersion.FeeTiming.ADVANCE
    return in_advance and subscription.due_at == subscription.starts_at


def _whole_period(subscription: Subscription, terms: VersionTerms, starts_at: datetime, *, is_first: bool) -> Period:
    """Return the whole interval in which the period lies: it starts earlier than the period where that is a first stub."""
    rezoned = subscription.tenant.timezone != subscription.anchor_zone
    if rezoned:
        subscription.anchor_zone = subscription.tenant.timezone
        subscription.save(update_fields=["anchor_zone"])
    anchor = subscription.anchor
    if is_first and not rezoned:
        return periods.period_containing(anchor, terms.cadence, starts_at)
    return periods.next_period(anchor, terms.cadence, starts_at, rezoned=rezoned)


def _fee(period: BillingPeriod, subscription: Subscription, terms: VersionTerms) -> FeeItem | None:
    """Return the fee item that the period opens; None in a free tier, or within the span of an earlier period's fee."""
    if not terms.fee or (period.sequence - 1) % terms.fee_every:
        return None
    whole_ends_at = period.full_ends_at
    for _ in range(terms.fee_every - 1):
        whole_ends_at = periods.next_period(subscription.anchor, terms.cadence, whole_ends_at).ends_at
    whole = Period(period.full_starts_at, whole_ends_at)
    span = Period(period.starts_at, min(whole_ends_at, subscription.ends_at or whole_ends_at))
    share, grain = _fee_share(span, whole, subscription)
    return FeeItem(
        tenant_id=period.tenant_id,
        subscription=subscription,
        period=period,
        version_id=period.version_id,
        kind=FeeItem.Kind.FEE,
        span_starts_at=span.starts_at,
        span_ends_at=span.ends_at,
        share_numerator=share.numerator,
        share_divisor=share.divisor,
        share_grain=grain,
        currency=terms.currency,
        amount=proration.prorate(terms.fee, share, currency=terms.currency),
        billable_at=span.starts_at if terms.fee_timing == TierVersion.FeeTiming.ADVANCE else span.ends_at,
    )


def _fee_share(span: Period, whole: Period, subscription: Subscription) -> tuple[Share, str]:
    """Return the part of the fee that the span pays for, and its grain; a whole fee is 1/1 and has none."""
    if subscription.end_credit != "unused":
        span = Period(span.starts_at, whole.ends_at)
    if span == whole:
        return Share(1, 1), ""
    zone = subscription.anchor_zone
    from_start = proration.share_of(span.starts_at, whole.ends_at, whole, grain=Grain.DAY, zone=zone)
    if span.ends_at == whole.ends_at:
        return from_start, Grain.DAY.value
    # The end was known before the period began: pay for what a cancellation within it would have left.
    unused = proration.unused_share(whole, span.ends_at, grain=Grain.DAY, zone=zone)
    divisor = max(from_start.divisor, unused.divisor)  # equal, or seconds and their microseconds
    used = max(from_start.fraction - unused.fraction, Fraction(0))
    return Share(int(used * divisor), divisor), Grain.DAY.value


def _write_credit(
    subscription: Subscription, period: BillingPeriod, ends_at: datetime, *, is_cut: bool
) -> FeeItem | None:
    """
    Give back the part of the running fee item after `ends_at`, less what an earlier cancellation gave back of it.

    `is_cut` says that `ends_at` cuts a period: by day, that day counts as used. A period that ends by itself leaves its last day to the next.
    """
    fees = subscription.fee_items.filter(kind=FeeItem.Kind.FEE, span_starts_at__lte=ends_at, span_ends_at__gt=ends_at)
    fee = fees.order_by("-span_starts_at").first()
    if fee is None:
        return None
    grain = Grain(terms_of(fee.version_id).change_terms.get("grain", Grain.DAY))
    span = Period(fee.span_starts_at, fee.span_ends_at)
    left = proration.unused_share if is_cut else proration.remaining_share
    share = left(span, ends_at, grain=grain, zone=subscription.anchor_zone)
    credited = -sum((credit.amount for credit in fee.credited_by.all()), Decimal(0))
    unused = proration.credit_for(charged=fee.amount, share=share, already_credited=Decimal(0), currency=fee.currency)
    amount = unused + credited
    if amount >= 0:
        return None
    return FeeItem.objects.create(
        tenant_id=fee.tenant_id,
        subscription=subscription,
        period=period,
        version_id=fee.version_id,
        kind=FeeItem.Kind.CREDIT,
        credits=fee,
        span_starts_at=ends_at,
        span_ends_at=fee.span_ends_at,
        share_numerator=share.numerator,
        share_divisor=share.divisor,
        share_grain=grain.value,
        currency=fee.currency,
        amount=amount,
        billable_at=ends_at,
    )
