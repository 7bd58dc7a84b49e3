"""What the answers of invoices look like: JSON-safe documents, and their shapes for the published schema."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from rest_framework import serializers

from billing_site.http.schema import PeriodDocument
from billing_site.http.serializers import TimestampField
from billing_site.http.wire import timestamp
from invoices.models import Invoice, InvoiceLine
from subscriptions.core.money import plain
from subscriptions.models import BillingPeriod, ScheduledChange, Subscription, TestClock
from subscriptions.selectors.catalog import money_text
from subscriptions.selectors.pending import CANCEL, PendingChange, pending_changes

PERIODS_SHOWN = 24  # two years of months; older ones are found by their invoices


class LineDocument(serializers.Serializer[Any]):
    """One line of an invoice, with the components that explain its amount."""

    number = serializers.IntegerField()
    kind = serializers.CharField()
    description = serializers.CharField()
    quantity = serializers.CharField()
    unit_amount = serializers.CharField(allow_null=True)
    amount = serializers.CharField()
    amount_precise = serializers.CharField()
    components = serializers.ListField(child=serializers.DictField())
    period = PeriodDocument()
    tier_version = serializers.DictField(help_text="The tier and the number of the version that priced it.")


class InvoiceDocument(serializers.Serializer[Any]):
    """An invoice. Amounts are strings in the currency's units."""

    id = serializers.UUIDField(allow_null=True)
    number = serializers.CharField(allow_null=True, help_text="Taken when it is finalised.")
    tenant = serializers.CharField()
    subscription = serializers.UUIDField()
    reason = serializers.ChoiceField(Invoice.Reason.choices)
    status = serializers.ChoiceField(Invoice.Status.choices)
    currency = serializers.CharField()
    period = PeriodDocument(allow_null=True)
    subtotal = serializers.CharField()
    tax = serializers.CharField()
    total = serializers.CharField()
    credit_applied = serializers.CharField()
    amount_due = serializers.CharField()
    billed_to = serializers.DictField()
    drafted_at = TimestampField()
    finalized_at = TimestampField(allow_null=True)
    voided_at = TimestampField(allow_null=True)
    lines = LineDocument(many=True)


class LineEventDocument(serializers.Serializer[Any]):
    """An event behind an invoice line."""

    event = serializers.UUIDField(help_text="Our id of it.")
    id = serializers.CharField(help_text="The sender's.")
    source = serializers.CharField()  # type: ignore[assignment]
    type = serializers.CharField()
    subject = serializers.CharField()
    time = TimestampField()
    recorded_at = TimestampField()
    data = serializers.DictField()  # type: ignore[assignment]
    status = serializers.CharField()
    code = serializers.CharField()


class BillingPeriodDocument(PeriodDocument):
    """A stored billing period of a subscription."""

    id = serializers.UUIDField()
    sequence = serializers.IntegerField()
    kind = serializers.CharField()
    closed_at = TimestampField(allow_null=True)


class VersionReference(serializers.Serializer[Any]):
    """A tier's version."""

    tier = serializers.CharField()
    version = serializers.IntegerField()


class PendingChangeDocument(serializers.Serializer[Any]):
    """What is still to come of a subscription, and may be undone."""

    id = serializers.CharField(help_text=f"That of the change; `{CANCEL}` for the cancellation.")
    kind = serializers.ChoiceField(["tier", "anchor", "cancel"])
    to = VersionReference(allow_null=True, help_text="Of a change of tier.")
    anchor_at = TimestampField(allow_null=True, help_text="Of a move of the anchor.")
    effective_at = TimestampField(
        allow_null=True, help_text="When it is expected; null where the subscription ends before, or is paused."
    )
    at_boundary = serializers.BooleanField(help_text="Whether it comes with the beginning of a period.")


class SubscriptionDocument(serializers.Serializer[Any]):
    """A tenant on a tier, with its newest periods, and what is still to come."""

    id = serializers.UUIDField()
    tenant = serializers.CharField()
    tier = serializers.CharField()
    version = serializers.IntegerField()
    status = serializers.ChoiceField(
        ["scheduled", "trialing", "active", "ending", "paused", "ended"],
        help_text="`scheduled`: starts later. `ending`: is cancelled and runs on, perhaps in a trial, until `ends_at`.",
    )
    starts_at = TimestampField()
    trial_ends_at = TimestampField(allow_null=True)
    paused_at = TimestampField(allow_null=True, help_text="Since when it is paused; null again when it is resumed.")
    ends_at = TimestampField(allow_null=True)
    anchor_at = serializers.CharField(help_text="The anchor's local wall time.")
    timezone = serializers.CharField(help_text="The zone in which the anchor is read.")
    pending_changes = PendingChangeDocument(many=True)
    periods = BillingPeriodDocument(
        many=True, help_text=f"The newest first, at most {PERIODS_SHOWN}; earlier ones stand on their invoices."
    )


class ClockDocument(serializers.Serializer[Any]):
    """A test clock."""

    id = serializers.CharField()
    now = TimestampField()
    status = serializers.ChoiceField(TestClock.Status.choices)
    advancing_to = TimestampField(
        allow_null=True,
        help_text="The goal of an advance that is running, or was cut off and waits to be asked for again.",
    )


def invoice_document(invoice: Invoice) -> dict[str, Any]:
    """Return an invoice with its lines. A preview, which is not stored, has no id."""
    currency = invoice.currency
    return {
        "id": str(invoice.public_id),
        "number": invoice.printed_number,
        "tenant": invoice.tenant.code,
        "subscription": str(invoice.subscription.public_id),
        "reason": invoice.reason,
        "status": invoice.status,
        "currency": currency,
        "period": None if invoice.period is None else _span(invoice.period),
        **{name: money_text(getattr(invoice, name), currency) for name in _AMOUNTS},
        "billed_to": invoice.billed_to,
        "drafted_at": timestamp(invoice.drafted_at),
        "finalized_at": _instant(invoice.finalized_at),
        "voided_at": _instant(invoice.voided_at),
        "lines": [line_document(line) for line in invoice.lines.all()],
    }


_AMOUNTS = ("subtotal", "tax", "total", "credit_applied", "amount_due")


def line_document(line: InvoiceLine) -> dict[str, Any]:
    """Return one line."""
    return {
        "number": line.number,
        "kind": line.kind,
        "description": line.description,
        "quantity": plain(line.quantity),
        "unit_amount": _plain(line.unit_amount),
        "amount": money_text(line.amount, line.currency),
        "amount_precise": plain(line.amount_precise),
        "components": line.components,
        "period": _span(line.period),
        "tier_version": {"tier": line.tier_version.tier.code, "number": line.tier_version.number},
    }


def subscription_document(subscription: Subscription, *, now: datetime) -> dict[str, Any]:
    """
    Return a subscription, of which the caller has prefetched the `newest_periods` (the newest first, at most PERIODS_SHOWN), and the
    `waiting_changes`, in the order in which they were asked for.
    """
    periods: list[BillingPeriod] = subscription.newest_periods  # type: ignore[attr-defined]
    newest = periods[0] if periods else None
    waiting: list[ScheduledChange] = subscription.waiting_changes  # type: ignore[attr-defined]
    anchor = datetime.combine(subscription.anchor_date, subscription.anchor_time)
    return {
        "id": str(subscription.public_id),
        "tenant": subscription.tenant.code,
        "tier": subscription.version.tier.code,
        "version": subscription.version.number,
        "status": _status(subscription, newest, now),
        "starts_at": timestamp(subscription.starts_at),
        "trial_ends_at": _instant(subscription.trial_ends_at),
        "paused_at": _instant(subscription.paused_at),
        "ends_at": _instant(subscription.ends_at),
        "anchor_at": anchor.isoformat(),
        "timezone": subscription.anchor_zone,
        "pending_changes": [
            _pending_change(one) for one in pending_changes(subscription, scheduled=waiting, newest=newest, now=now)
        ],
        "periods": [_period(period) for period in periods],
    }


def clock_document(clock: TestClock) -> dict[str, Any]:
    """Return a test clock."""
    return {
        "id": clock.code,
        "now": timestamp(clock.now),
        "status": clock.status,
        "advancing_to": _instant(clock.advancing_to),
    }


def _status(subscription: Subscription, newest: BillingPeriod | None, now: datetime) -> str:
    if now < subscription.starts_at:
        return "scheduled"
    if subscription.ends_at is not None and subscription.ends_at <= now:
        return "ended"
    if subscription.paused_at is not None:
        return "paused"
    if subscription.ends_at is not None:
        return "ending"
    is_trial = newest is not None and newest.kind == BillingPeriod.Kind.TRIAL and now < newest.ends_at
    return "trialing" if is_trial else "active"


def _pending_change(pending: PendingChange) -> dict[str, Any]:
    change = pending.scheduled
    version = change.to_version if change is not None and pending.kind == "tier" else None
    return {
        "id": pending.id,
        "kind": pending.kind,
        "to": None if version is None else {"tier": version.tier.code, "version": version.number},
        "anchor_at": None if change is None else _instant(change.anchor_at),
        "effective_at": _instant(pending.effective_at),
        "at_boundary": pending.at_boundary,
    }


def _period(period: BillingPeriod) -> dict[str, Any]:
    return {
        "id": str(period.public_id),
        "sequence": period.sequence,
        "kind": period.kind,
        **_span(period),
        "closed_at": _instant(period.closed_at),
    }


def _span(period: BillingPeriod) -> dict[str, str]:
    return {"starts_at": timestamp(period.starts_at), "ends_at": timestamp(period.ends_at)}


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else timestamp(instant)


def _plain(number: Decimal | None) -> str | None:
    return None if number is None else plain(number)
