"""Finding invoices and their lines, what stands behind a line, and a tenant's credit."""

from collections.abc import Collection
from decimal import Decimal
from uuid import UUID

from django.db.models import Max, Min, Q, QuerySet, Sum

from billing_site.database import among
from billing_site.http.problems import DomainError
from invoices.models import Invoice, InvoiceLine, TenantCreditEntry
from metering.core.measuring import dimension_set
from metering.models import OverageCharge, SegmentTotal, UsageEvent
from metering.selectors.event_details import EventDetail
from metering.selectors.events import events_behind
from metering.selectors.terms import pools_of_version


class InvoiceNotFound(DomainError):
    """No invoice has this id."""

    status = 404
    code = "not_found"
    title = "There is no such invoice"


class LineNotFound(DomainError):
    """The invoice has no line of this number."""

    status = 404
    code = "not_found"
    title = "There is no such invoice line"


def with_parts(queryset: QuerySet[Invoice]) -> QuerySet[Invoice]:
    """Load all that an answer about an invoice reads, in a fixed number of queries."""
    return queryset.select_related("tenant", "subscription", "period").prefetch_related(
        "lines__tier_version__tier", "lines__period", "lines__charge__meter"
    )


def get_invoice(public_id: UUID) -> Invoice:
    """Return the invoice with its lines. Raises InvoiceNotFound (404)."""
    invoice = with_parts(Invoice.objects.filter(public_id=public_id)).first()
    if invoice is None:
        raise InvoiceNotFound(f"There is no invoice {public_id}.")
    return invoice


def invoices_of(*, tenant: str | None = None, status: str | None = None) -> QuerySet[Invoice]:
    """Return the invoices of a tenant (None: all) in a status (None: any)."""
    queryset = with_parts(Invoice.objects.all())
    if tenant is not None:
        queryset = queryset.filter(tenant__code=tenant)
    if status is not None:
        queryset = queryset.filter(status=status)
    return queryset


def get_line(invoice: Invoice, number: int) -> InvoiceLine:
    """Return one line of the invoice. Raises LineNotFound (404)."""
    line = invoice.lines.select_related("charge__meter", "period").filter(number=number).first()
    if line is None:
        raise LineNotFound(f"The invoice has no line {number}.")
    return line


def bookings_of(line: InvoiceLine) -> QuerySet[OverageCharge]:
    """Return the bookings that the line bills, oldest first; also those that voiding its invoice has released."""
    return OverageCharge.objects.filter(billed_by__line=line).order_by("sequence")


def events_of_line(line: InvoiceLine) -> QuerySet[UsageEvent]:
    """
    Return the events behind a line: those of its pool that its charge prices, from the last booking billed before up to its own.

    They are all events of that stretch, covered by the allowance or not: which of them were overage depends on all. A fee has none.
    """
    bounds = bookings_of(line).aggregate(first=Min("sequence"), last_entry=Max("last_entry_id"), balance=Max("balance"))
    if bounds["first"] is None:
        return UsageEvent.objects.none()
    balance = OverageCharge.objects.select_related("balance").filter(balance=bounds["balance"])[0].balance
    assert line.charge_id is not None  # it has bookings
    earlier = OverageCharge.objects.filter(
        period_id=line.period_id, charge_id=line.charge_id, kind=line.kind, sequence__lt=bounds["first"]
    ).aggregate(entry=Max("last_entry_id"))
    return events_behind(
        balance=balance,
        dimension_keys=_keys_priced_by(line, balance.pk),
        after_entry_id=earlier["entry"] or 0,
        up_to_entry_id=bounds["last_entry"],
    )


def lines_of_event(event: EventDetail) -> list[InvoiceLine]:
    """Return the lines, of invoices that are not void, that bill the charges by which the event was counted, in its periods."""
    condition = Q(pk__in=[])
    for counted in event.counted_as:
        if counted.charge_id is not None:
            condition |= Q(period_id=counted.balance.period_id, charge_id=counted.charge_id)
    lines = InvoiceLine.objects.filter(condition).exclude(invoice__status=Invoice.Status.VOID)
    return list(lines.select_related("invoice").order_by("invoice_id", "number"))


def credit_balance(*, tenant_id: int, currency: str) -> Decimal:
    """Return what the tenant has to its credit: the sum of all movements."""
    entries = TenantCreditEntry.objects.filter(tenant_id=tenant_id, currency=currency)
    return entries.aggregate(balance=Sum("amount"))["balance"] or Decimal(0)


def credit_balances(*, tenant_ids: Collection[int]) -> dict[tuple[int, str], Decimal]:
    """Return the same of several tenants, by tenant and currency; nothing where nothing was ever moved."""
    entries = TenantCreditEntry.objects.filter(among("tenant_id", tenant_ids)).values_list("tenant_id", "currency")
    return {(tenant_id, currency): total for tenant_id, currency, total in entries.annotate(Sum("amount"))}


def _keys_priced_by(line: InvoiceLine, balance_id: int) -> list[str]:
    """Return the balance's dimension sets that the line's charge prices, as they are stored."""
    charge = line.charge
    assert charge is not None  # only lines of usage have bookings
    assert charge.meter_id is not None  # a constraint: usage has its meter
    pools = pools_of_version(charge.version_id)[charge.meter_id]
    keys = SegmentTotal.objects.filter(balance_id=balance_id).values_list("dimension_key", flat=True).distinct()
    matches = ((key, pools.charge_for(dimension_set(key))) for key in keys)
    return [key for key, found in matches if found is not None and found.charge_id == charge.pk]
