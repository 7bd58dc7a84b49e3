"""
Makes invoices: drafts what is unbilled, finalises, voids. The only writer of invoices, numbers and the tenant's credit.

Locks are taken in the documented order, the number series last. That last lock also guards the tenant's credit: every movement
of credit is written while it is held, so that no two invoices use the same credit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max, Sum

from billing_site.database import among, uuid7s
from billing_site.http.problems import DomainError
from invoices.core.status import InvoiceStatus, may_become, status_when_finalized
from invoices.core.totals import Totals, total_up
from invoices.models import Invoice, InvoiceLine, InvoiceLineSource
from invoices.selectors.billable import BillableLine, billable_lines
from invoices.selectors.invoices import InvoiceNotFound, credit_balances
from invoices.services.series import lock_series, series_of, take_numbers, write_credit
from metering.services.rows import insert_rows, update_rows
from subscriptions.core.money import plain, precise
from subscriptions.models import BillingPeriod, Subscription, Tenant, TierChange
from subscriptions.selectors.catalog import money_text, terms_of
from subscriptions.selectors.tenants import refuse_parked
from subscriptions.services import audit, outbox, periods

_DRAFT_COLUMNS = (
    "public_id",
    "tenant_id",
    "subscription_id",
    "period_id",
    "reason",
    "change_id",
    "sequence",
    "status",
    "currency",
    "series",
    "subtotal",
    "tax",
    "total",
    "credit_applied",
    "amount_due",
    "billed_to",
    "drafted_at",
)
_FINAL_COLUMNS = (
    "id",
    "status",
    "series",
    "number",
    "subtotal",
    "tax",
    "total",
    "credit_applied",
    "amount_due",
    "billed_to",
    "finalized_at",
)
_LINE_COLUMNS = (
    "invoice_id",
    "number",
    "kind",
    "description",
    "quantity",
    "unit_amount",
    "currency",
    "amount",
    "amount_precise",
    "components",
    "period_id",
    "tier_version_id",
    "charge_id",
)
_draft_values, _final_values = attrgetter(*_DRAFT_COLUMNS), attrgetter(*_FINAL_COLUMNS)


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """An invoice that is to be drafted."""

    subscription: Subscription
    period: BillingPeriod
    reason: str
    # 1, 2, … of the late, manual and change invoices of a period.
    sequence: int = 1
    # The change that it bills.
    change: TierChange | None = None


def draft(
    *, subscription: Subscription, period: BillingPeriod, reason: str, now: datetime, sequence: int = 1
) -> Invoice | None:
    """Draft one invoice, as `draft_all` does; None when there is nothing to bill."""
    drafts = draft_all([Wanted(subscription, period, reason, sequence)], now=now)
    return drafts[0] if drafts else None


def draft_all(wanted: Sequence[Wanted], *, now: datetime) -> list[Invoice]:
    """
    Draft invoices of everything that subscriptions owe and no line bills yet, one of each at most; none where there is nothing.

    The caller holds the subscriptions' locks. The drafts of opening, period and final look at the time that they are for, not at `now`,
    so that an invoice made late, after days without a worker, is the one that would have been made in time. Once a subscription
    has ended, everything of it is billable. The number of statements does not grow with that of the drafts.
    """
    if not wanted:
        return []
    billable = billable_lines(
        until={one.subscription.pk: _billable_until(one, now) for one in wanted},
        zones={one.subscription.pk: one.subscription.tenant.timezone for one in wanted},
    )
    owed = [one for one in wanted if billable[one.subscription.pk]]
    drafts = [
        _draft(one, billable[one.subscription.pk], now, public_id)
        for one, public_id in zip(owed, uuid7s(len(owed)), strict=True)
    ]
    ids = dict(
        insert_rows(
            Invoice,
            _DRAFT_COLUMNS,
            [_draft_values(invoice) for invoice in drafts],
            returning=("public_id", "id"),
        )
    )
    for invoice in drafts:
        invoice.pk = ids[invoice.public_id]
        invoice._state.adding = False
    _write_lines([(invoice, billable[invoice.subscription_id]) for invoice in drafts])
    return drafts


def finalize(*, invoice_id: int, now: datetime, actor: str) -> Invoice:
    """Make one draft final, as `finalize_all` does. Raises InvoiceNotFound (404), InvoiceNotDraft and TenantParked (409)."""
    with transaction.atomic():
        invoice = _locked(invoice_id)
        if invoice.status != Invoice.Status.DRAFT:
            raise InvoiceNotDraft(f"The invoice {invoice} is {invoice.status}.")
        finalize_all([invoice], now=now, actor=actor)
        return invoice


def finalize_all(invoices: Sequence[Invoice], *, now: datetime, actor: str) -> None:
    """
    Make drafts final, in their order: use the tenants' credit, take the next numbers of their series, and tell the world.

    An invoice with nothing due is paid at once; one below zero leaves the rest as credit. The caller holds the drafts' locks, or has made
    them in this transaction; their tenants are at hand. Takes the locks of the number series, so that it comes last in its transaction.
    Raises TenantParked (409).
    """
    if not invoices:
        return
    for invoice in invoices:
        refuse_parked(invoice.tenant)
    check_references()
    series = lock_series(series_of(invoice.tenant) for invoice in invoices)
    totals = use_credit(invoices)
    for name, row in series.items():
        take_numbers([invoice for invoice in invoices if series_of(invoice.tenant) == name], row)
    for invoice in invoices:
        invoice.status = status_when_finalized(invoice.amount_due).value
        invoice.billed_to = _billed_to(invoice.tenant)
        invoice.finalized_at = now
    update_rows(Invoice, _FINAL_COLUMNS, [_final_values(invoice) for invoice in invoices])
    surpluses = [(invoice, "surplus", each.surplus) for invoice, each in zip(invoices, totals, strict=True)]
    write_credit([*surpluses, *((invoice, "applied", -invoice.credit_applied) for invoice in invoices)])
    numbers = [(invoice, {"number": invoice.printed_number}) for invoice in invoices]
    audit.record_all(actor=actor, action="finalize", after=numbers)
    outbox.write_all(
        type="invoice.finalized", payloads=[(invoice.tenant, _announcement(invoice)) for invoice in invoices]
    )


def check_references() -> None:
    """
    Let PostgreSQL check now what was written so far, which it would do at the commit, and a preview has none.

    Who waits for the number series waits until the commit; so as little as can be is left to that.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


def use_credit(invoices: Sequence[Invoice]) -> list[Totals]:
    """
    Set the figures of drafts from their lines and the tenants' credit, in their order, without saving them, and return them.

    The caller holds the locks of the number series where the credit is to be used in earnest.
    """
    amounts: dict[int, list[Decimal]] = {invoice.pk: [] for invoice in invoices}
    for invoice_id, amount in InvoiceLine.objects.filter(among("invoice_id", amounts)).values_list(
        "invoice_id", "amount"
    ):
        amounts[invoice_id].append(amount)
    available = credit_balances(tenant_ids={invoice.tenant_id for invoice in invoices})
    used = []
    for invoice in invoices:
        account = (invoice.tenant_id, invoice.currency)
        credit = available.get(account, Decimal(0))
        totals = total_up(amounts[invoice.pk], currency=invoice.currency, credit_available=credit)
        available[account] = credit - totals.credit_applied + totals.surplus
        invoice.subtotal, invoice.tax, invoice.total = totals.subtotal, totals.tax, totals.total
        invoice.credit_applied, invoice.amount_due = totals.credit_applied, totals.amount_due
        used.append(totals)
    return used


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
        lock_series([series_of(invoice.tenant)])
        invoice.status = Invoice.Status.VOID
        invoice.voided_at = now
        invoice.save(update_fields=["status", "voided_at"])
        InvoiceLineSource.objects.filter(line__invoice=invoice, released_at=None).update(released_at=now)
        moved = invoice.credit_entries.aggregate(total=Sum("amount"))["total"] or Decimal(0)
        write_credit([(invoice, "returned", -moved)])
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
    return lock_subscriptions([subscription_id])[subscription_id]


def lock_subscriptions(subscription_ids: Iterable[int]) -> dict[int, Subscription]:
    """Lock several, in id order."""
    rows = Subscription.objects.select_for_update(no_key=True, of=("self",))
    locked = list(rows.filter(among("pk", set(subscription_ids))).order_by("pk"))
    # Not joined: for a chunk PostgreSQL would read the whole table of tenants.
    tenants = {tenant.pk: tenant for tenant in Tenant.objects.filter(among("pk", {one.tenant_id for one in locked}))}
    for subscription in locked:
        subscription.tenant = tenants[subscription.tenant_id]
    return {subscription.pk: subscription for subscription in locked}


def last_closed_for_good(subscription: Subscription) -> BillingPeriod | None:
    """
    Lock and return the last period of a subscription that has ended or is paused, all of its periods closed; None when a closing is to come.

    Only then does nothing else come by that would bill what is left.
    """
    stops = [at for at in (subscription.ends_at, subscription.paused_at) if at is not None]
    if not stops:
        return None
    last = (
        subscription.periods.select_for_update(no_key=True, of=("self",))
        .select_related("version")
        .order_by("-sequence")
        .first()
    )
    is_last = last is not None and last.ends_at >= min(stops)
    return last if is_last and not subscription.periods.filter(closed_at=None).exists() else None


def _billable_until(wanted: Wanted, now: datetime) -> datetime | None:
    """Return up to when fee items are billable on this invoice; None when no later invoice would take the rest."""
    reach = now
    if wanted.reason == Invoice.Reason.OPENING:
        reach = wanted.period.starts_at
    elif wanted.reason in (Invoice.Reason.PERIOD, Invoice.Reason.FINAL):
        reach = wanted.period.ends_at
    # A paused one has no closing either until it is resumed.
    ends = [at for at in (wanted.subscription.ends_at, wanted.subscription.paused_at) if at is not None]
    return None if any(at <= reach for at in ends) else reach


def _draft(wanted: Wanted, lines: Sequence[BillableLine], now: datetime, public_id: UUID) -> Invoice:
    currency = terms_of(wanted.period.version_id).currency
    totals = total_up([line.values.amount for line in lines], currency=currency)
    return Invoice(
        public_id=public_id,
        tenant=wanted.subscription.tenant,
        subscription_id=wanted.subscription.pk,
        period_id=wanted.period.pk,
        reason=wanted.reason,
        change=wanted.change,
        sequence=wanted.sequence,
        currency=currency,
        subtotal=totals.subtotal,
        tax=totals.tax,
        total=totals.total,
        amount_due=totals.amount_due,
        drafted_at=now,
    )


def _write_lines(invoices: Sequence[tuple[Invoice, Sequence[BillableLine]]]) -> None:
    numbered = [(invoice, number, line) for invoice, lines in invoices for number, line in enumerate(lines, start=1)]
    rows = [
        (
            invoice.pk,
            number,
            line.values.kind.value,
            line.values.description,
            precise(line.values.quantity),
            line.values.unit_amount,
            invoice.currency,
            line.values.amount,
            precise(line.values.amount_precise),
            line.values.components,
            line.period_id,
            line.version_id,
            line.charge_id,
        )
        for invoice, number, line in numbered
    ]
    written = insert_rows(InvoiceLine, _LINE_COLUMNS, rows, returning=("invoice_id", "number", "id"))
    ids = {(invoice_id, number): pk for invoice_id, number, pk in written}
    sources: list[tuple[int, int | None, int | None]] = []
    for invoice, number, line in numbered:
        line_id = ids[invoice.pk, number]
        sources += [(line_id, item_id, None) for item_id in line.fee_item_ids]
        sources += [(line_id, None, booking_id) for booking_id in line.booking_ids]
    insert_rows(InvoiceLineSource, ("line_id", "fee_item_id", "overage_charge_id"), sources)


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
