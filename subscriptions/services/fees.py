"""
Fee items: the fee that a period opens, the credit for what is unused of one, and the charge for what remains of another version's.

Never edited; what bills them is an invoice line. The caller holds the subscription's lock. Source: semantics, "Changing tier in mid-period".
"""

from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from subscriptions.core import proration
from subscriptions.core.changes import ChangeFee, Choices
from subscriptions.core.periods import Period
from subscriptions.core.proration import Grain, Share
from subscriptions.models import BillingPeriod, FeeItem, Subscription, TierChange, TierVersion
from subscriptions.selectors.catalog import VersionTerms, terms_of

_WHOLE = Share(1, 1)


def fee_of_period(period: BillingPeriod, subscription: Subscription, terms: VersionTerms) -> FeeItem | None:
    """
    Return the fee item, not yet saved, that the period opens; None in a free tier, in a trial, and within the span of an earlier fee.

    A span that the run's start or the subscription's end cuts costs the share of its local days, unless the cancellation gave nothing back.
    """
    whole = Period(period.fee_starts_at, period.fee_ends_at)
    if not terms.fee or period.kind == BillingPeriod.Kind.TRIAL:
        return None
    span = Period(period.starts_at, min(whole.ends_at, subscription.ends_at or whole.ends_at))
    share, grain = _opening_share(span, whole, subscription)
    return _item(
        FeeItem.Kind.FEE,
        subscription,
        period,
        terms,
        span,
        share,
        grain,
        proration.prorate(terms.fee, share, currency=terms.currency),
    )


def credit_unused(
    *,
    subscription: Subscription,
    period: BillingPeriod,
    at: datetime,
    grain: Grain | None = None,
    is_day_used: bool = False,
    change: TierChange | None = None,
    before_period: bool = False,
) -> FeeItem | None:
    """
    Give back the part of the running fee after `at`, less what was given back of it before; None where that is nothing.

    The running fee is the newest item whose span `at` lies in: a period's, or the charge of a change. `grain` is that of its version if
    absent. With `before_period` the fee of the period itself, which begins at `at`, is no running one. `is_day_used` says that by day the
    day of `at` counts as used (cancelling, pausing); else it belongs to what comes after. A fee in arrears stays whole as an item and gets
    the credit beside it.
    """
    fee = running_fee(subscription, at=at, not_of=period if before_period else None)
    if fee is None:
        return None
    grain = grain or Grain(terms_of(fee.version_id).change_terms.get("grain", Grain.DAY))
    left = proration.unused_share if is_day_used else proration.remaining_share
    span = Period(fee.span_starts_at, fee.span_ends_at)
    share = left(span, at, grain=grain, zone=subscription.anchor_zone)
    credited = -sum((credit.amount for credit in fee.credited_by.all()), Decimal(0))
    unused = proration.credit_for(charged=fee.amount, share=share, already_credited=Decimal(0), currency=fee.currency)
    amount = unused + credited
    if amount >= 0:
        return None
    item = _item(
        FeeItem.Kind.CREDIT,
        subscription,
        period,
        terms_of(fee.version_id),
        Period(at, fee.span_ends_at),
        share,
        grain.value,
        amount,
    )
    item.credits, item.change = fee, change
    # What is due in arrears is not given back before it is due.
    item.billable_at = max(at, fee.billable_at)
    item.save()
    return item


def exchange(*, subscription: Subscription, period: BillingPeriod, change: TierChange) -> None:
    """Do with the fees of a span that goes on what a change of version chose: prorate, the new one in full, or nothing."""
    choices, at = change.choices, change.effective_at
    if choices.fee is ChangeFee.NONE or period.kind == BillingPeriod.Kind.TRIAL:
        return
    if choices.fee is ChangeFee.PRORATE:
        credit_unused(subscription=subscription, period=period, at=at, grain=choices.grain, change=change)
    _charge_remaining(subscription=subscription, period=period, at=at, choices=choices, change=change)


def _charge_remaining(
    *, subscription: Subscription, period: BillingPeriod, at: datetime, choices: Choices, change: TierChange
) -> FeeItem | None:
    """
    Charge the fee of the version that comes into force at `at`, for the rest of the running fee span; None where that is nothing.

    The share is one of the whole span, so that any number of changes sums to the time that each version had; with the fee `full` it is the
    whole.
    """
    terms = terms_of(change.to_version_id)
    whole = Period(period.fee_starts_at, period.fee_ends_at)
    ends_at = min(whole.ends_at, subscription.ends_at or whole.ends_at)
    share, grain = _WHOLE, ""
    if choices.fee is not ChangeFee.FULL:
        grain = choices.grain.value
        share = proration.share_of(at, ends_at, whole, grain=choices.grain, zone=subscription.anchor_zone)
    amount = proration.prorate(terms.fee, share, currency=terms.currency)
    if not amount:
        return None
    item = _item(FeeItem.Kind.CHARGE, subscription, period, terms, Period(at, ends_at), share, grain, amount)
    item.change = change
    item.save()
    return item


def running_fee(subscription: Subscription, *, at: datetime, not_of: BillingPeriod | None = None) -> FeeItem | None:
    """
    Return the fee or charge of the present run that pays for the instant: the newest, where changes have put one beside another.

    A pause or an end has settled what an earlier run paid. `not_of` is a period whose items do not count.
    """
    paying = subscription.fee_items.exclude(kind=FeeItem.Kind.CREDIT)
    paying = paying.filter(span_starts_at__gte=subscription.run_starts_at)
    if not_of is not None:
        paying = paying.exclude(period=not_of)
    return paying.filter(span_starts_at__lte=at, span_ends_at__gt=at).order_by("-pk").first()


def _item(
    kind: str,
    subscription: Subscription,
    period: BillingPeriod,
    terms: VersionTerms,
    span: Period,
    share: Share,
    grain: str,
    amount: Decimal,
) -> FeeItem:
    in_advance = terms.fee_timing == TierVersion.FeeTiming.ADVANCE
    return FeeItem(
        tenant_id=subscription.tenant_id,
        subscription=subscription,
        period=period,
        version_id=terms.id,
        kind=kind,
        span_starts_at=span.starts_at,
        span_ends_at=span.ends_at,
        share_numerator=share.numerator,
        share_divisor=share.divisor,
        share_grain=grain,
        currency=terms.currency,
        amount=amount,
        billable_at=span.starts_at if in_advance else span.ends_at,
    )


def _opening_share(span: Period, whole: Period, subscription: Subscription) -> tuple[Share, str]:
    """Return the part of the fee that the span pays for, and its grain; a whole fee is 1/1 and has none."""
    if subscription.end_credit != "unused":
        span = Period(span.starts_at, whole.ends_at)
    if span == whole:
        return _WHOLE, ""
    zone = subscription.anchor_zone
    from_start = proration.share_of(span.starts_at, whole.ends_at, whole, grain=Grain.DAY, zone=zone)
    if span.ends_at == whole.ends_at:
        return from_start, Grain.DAY.value
    # The end was known before the period began: pay for what a cancellation within it would have left.
    unused = proration.unused_share(whole, span.ends_at, grain=Grain.DAY, zone=zone)
    divisor = max(from_start.divisor, unused.divisor)  # equal, or seconds and their microseconds
    used = max(from_start.fraction - unused.fraction, Fraction(0))
    return Share(int(used * divisor), divisor), Grain.DAY.value
