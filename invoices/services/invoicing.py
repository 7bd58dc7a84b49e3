"""
Makes invoices: drafts what is unbilled, finalises, voids. The only writer of invoices, numbers and the tenant's credit.

Locks are taken in the documented order, the number series last. That last lock also guards the tenant's credit: every movement
of credit is written while it is held, so that no two invoices use the same credit.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Max, Sum

from billing_site.http.problems import DomainError
from invoices.core.status import InvoiceStatus, may_become, status_when_finalized
from invoices.core.totals import Totals, total_up
from invoices.models import Invoice, InvoiceLine, InvoiceLineSource
from invoices.selectors.billable import BillableLine, billable_lines
from invoices.selectors.invoices import InvoiceNotFound, credit_balance
from invoices.services.series import lock_series, take_number, write_credit
from subscriptions.core.money import plain, precise
from subscriptions.models import BillingPeriod, Subscription, Tenant
from subscriptions.selectors.catalog import money_text
from subscriptions.services import audit, outbox, periods

SOURCES_PER_STATEMENT = 1000


class InvoiceNotDraft(DomainError):
    """The invoice is final already; its content never changes."""

    code = "state_conflict"
    title = "The invoice is not a draft"


class NothingToBill(DomainError):
    """The subscription has nothing that an invoice could name."""

    code = "nothing_to_bill"
    title = "There is nothing to bill"


class InvoiceNotOpen(DomainError):
    """Only an invoice that is open and unpaid can be voided."""

    code = "state_conflict"
    title = "The invoice is not open"


def draft(
    *, subscription: Subscription, period: BillingPeriod, reason: str, now: datetime, sequence: int = 1
) -> Invoice | None:
    """
    Draft an invoice of everything that the subscription owes and no line bills yet; None when there is nothing.

    The caller holds the subscription's lock. The drafts of opening, period and final look at the time that they are for, not at `now`,
    so that an invoice made late, after days without a worker, is the one that would have been made in time. Once the subscription
    has ended, everything is billable.
    """
    tenant = subscription.tenant
    until = _billable_until(subscription, period, reason, now)
    lines = billable_lines(subscription_id=subscription.pk, zone=tenant.timezone, until=until)
    if not lines:
        return None
    totals = total_up([line.values.amount for line in lines], currency=period.version.currency)
    invoice = Invoice.objects.create(
        tenant=tenant,
        subscription=subscription,
        period=period,
        reason=reason,
        sequence=sequence,
        currency=period.version.currency,
        subtotal=totals.subtotal,
        tax=totals.tax,
        total=totals.total,
        amount_due=totals.amount_due,
        drafted_at=now,
    )
    _write_lines(invoice, lines)
    return invoice


def finalize(*, invoice_id: int, now: datetime, actor: str) -> Invoice:
    """
    Make a draft final: use the tenant's credit, take the next number of its series, and tell the world.

    An invoice with nothing due is paid at once; one below zero leaves the rest as credit. Raises InvoiceNotFound (404),
    InvoiceNotDraft (409).
    """
    with transaction.atomic():
        invoice = _locked(invoice_id)
        if invoice.status != Invoice.Status.DRAFT:
            raise InvoiceNotDraft(f"The invoice {invoice} is {invoice.status}.")
        tenant = invoice.tenant
        series = lock_series(tenant)
        totals = use_credit(invoice)
        take_number(invoice, series)
        invoice.status = status_when_finalized(totals.amount_due).value
        invoice.billed_to = _billed_to(tenant)
        invoice.finalized_at = now
        invoice.save()
        write_credit(invoice, surplus=totals.surplus, applied=-totals.credit_applied)
        audit.record(actor=actor, action="finalize", instance=invoice, after={"number": invoice.printed_number})
        outbox.write(tenant=tenant, type="invoice.finalized", payload=_announcement(invoice))
        return invoice


def use_credit(invoice: Invoice) -> Totals:
    """
    Set the figures of a draft from its lines and the tenant's credit, without saving them, and return them.

    The caller holds the lock of the number series where the credit is to be used in earnest.
    """
    totals = total_up(
        invoice.lines.values_list("amount", flat=True),
        currency=invoice.currency,
        credit_available=credit_balance(tenant_id=invoice.tenant_id, currency=invoice.currency),
    )
    invoice.subtotal, invoice.tax, invoice.total = totals.subtotal, totals.tax, totals.total
    invoice.credit_applied, invoice.amount_due = totals.credit_applied, totals.amount_due
    return totals


def void(*, invoice_id: int, now: datetime, actor: str, reason: str) -> Invoice:
    """
    Void an open invoice: what it billed is free to be billed again, and the credit that it used is returned. Its number stays.

    What was released stands on the subscription's next invoice; when all of its periods are closed for good, the last one falls due at
    once for a late invoice. Takes the locks of subscription and periods first. Raises InvoiceNotFound (404), InvoiceNotOpen (409).
    """
    with transaction.atomic():
        subscription = _lock_subscription_of(invoice_id)
        due_again = last_closed_for_good(subscription)
        invoice = _locked(invoice_id)
        if not may_become(invoice.status, InvoiceStatus.VOID):
            raise InvoiceNotOpen(f"The invoice {invoice} is {invoice.status}.")
        lock_series(invoice.tenant)
        invoice.status = Invoice.Status.VOID
        invoice.voided_at = now
        invoice.save(update_fields=["status", "voided_at"])
        InvoiceLineSource.objects.filter(line__invoice=invoice, released_at=None).update(released_at=now)
        moved = invoice.credit_entries.aggregate(total=Sum("amount"))["total"] or Decimal(0)
        write_credit(invoice, returned=-moved)
        audit.record(
            actor=actor,
            action="void",
            instance=invoice,
            before={"status": Invoice.Status.OPEN.value},
            after={"status": invoice.status},
            reason=reason,
        )
        outbox.write(tenant=invoice.tenant, type="invoice.voided", payload=_announcement(invoice))
        if due_again is not None:
            periods.look_again(period=due_again, at=now)
        return invoice


def draft_unbilled(*, subscription_id: int, now: datetime, actor: str) -> Invoice:
    """
    Draft a manual invoice of what is unbilled, for staff to look at and finalise.

    It names the subscription's newest period, and holds what it bills until it is finalised. Raises NothingToBill (409), also before the
    first period has begun.
    """
    with transaction.atomic():
        subscription = lock_subscription(subscription_id)
        period = subscription.periods.select_related("version").order_by("-sequence").first()
        if period is None:
            raise NothingToBill("The subscription has no period yet.")
        sequence = next_sequence(period, Invoice.Reason.MANUAL)
        invoice = draft(
            subscription=subscription, period=period, reason=Invoice.Reason.MANUAL, now=now, sequence=sequence
        )
        if invoice is None:
            raise NothingToBill("Everything that is billable stands on an invoice.")
        audit.record(actor=actor, action="draft", instance=invoice, after={"subtotal": plain(invoice.subtotal)})
        return invoice


def next_sequence(period: BillingPeriod, reason: str) -> int:
    """Return the number that the period's next late or manual invoice has; void ones keep theirs."""
    last = period.invoices.filter(reason=reason).aggregate(last=Max("sequence"))["last"]
    return (last or 0) + 1


def lock_subscription(subscription_id: int) -> Subscription:
    """Lock the subscription, first of all locks that an invoice needs; its tenant is loaded."""
    subscriptions = Subscription.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant")
    return subscriptions.get(pk=subscription_id)


def last_closed_for_good(subscription: Subscription) -> BillingPeriod | None:
    """
    Lock and return the last period of a subscription that has ended with all of its periods closed; None when a closing is to come.

    Only then does nothing else come by that would bill what is left.
    """
    if subscription.ends_at is None:
        return None
    last = (
        subscription.periods.select_for_update(no_key=True, of=("self",))
        .select_related("version")
        .order_by("-sequence")
        .first()
    )
    is_last = last is not None and last.ends_at >= subscription.ends_at
    return last if is_last and not subscription.periods.filter(closed_at=None).exists() else None


def _billable_until(subscription: Subscription, period: BillingPeriod, reason: str, now: datetime) -> datetime | None:
    """Return up to when fee items are billable on this invoice; None when no later invoice would take the rest."""
    reach = now
    if reason == Invoice.Reason.OPENING:
        reach = period.starts_at
    elif reason in (Invoice.Reason.PERIOD, Invoice.Reason.FINAL):
        reach = period.ends_at
    has_ended = subscription.ends_at is not None and subscription.ends_at <= reach
    return None if has_ended else reach


def _write_lines(invoice: Invoice, billable: Sequence[BillableLine]) -> None:
    lines = InvoiceLine.objects.bulk_create(
        InvoiceLine(
            invoice=invoice,
            number=number,
            kind=line.values.kind,
            description=line.values.description,
            quantity=precise(line.values.quantity),
            unit_amount=line.values.unit_amount,
            currency=invoice.currency,
            amount=line.values.amount,
            amount_precise=precise(line.values.amount_precise),
            components=list(line.values.components),
            period_id=line.period_id,
            tier_version_id=line.version_id,
            charge_id=line.charge_id,
        )
        for number, line in enumerate(billable, start=1)
    )
    sources = [
        InvoiceLineSource(line=line, fee_item_id=source.fee_item_id)
        for line, source in zip(lines, billable, strict=True)
        if source.fee_item_id is not None
    ]
    sources += [
        InvoiceLineSource(line=line, overage_charge_id=booking_id)
        for line, source in zip(lines, billable, strict=True)
        for booking_id in source.booking_ids
    ]
    InvoiceLineSource.objects.bulk_create(sources, batch_size=SOURCES_PER_STATEMENT)


def _lock_subscription_of(invoice_id: int) -> Subscription:
    subscription_id = Invoice.objects.filter(pk=invoice_id).values_list("subscription_id", flat=True).first()
    if subscription_id is None:
        raise InvoiceNotFound("There is no such invoice.")
    return lock_subscription(subscription_id)


def _locked(invoice_id: int) -> Invoice:
    invoices = Invoice.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant")
    invoice = invoices.filter(pk=invoice_id).first()
    if invoice is None:
        raise InvoiceNotFound("There is no such invoice.")
    return invoice


def _billed_to(tenant: Tenant) -> dict[str, Any]:
    return {"name": tenant.name, "email": tenant.email, "country": tenant.country, "tax_ids": tenant.tax_ids}


def _announcement(invoice: Invoice) -> dict[str, Any]:
    return {
        "id": str(invoice.public_id),
        "number": invoice.printed_number,
        "tenant": invoice.tenant.code,
        "reason": invoice.reason,
        "status": invoice.status,
        "currency": invoice.currency,
        "total": money_text(invoice.total, invoice.currency),
        "amount_due": money_text(invoice.amount_due, invoice.currency),
    }
