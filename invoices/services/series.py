"""
The number series, and the tenant's credit that its lock guards.

A number is taken from a locked row, not from a sequence, because a sequence leaves a gap for every transaction that fails. The row is
the last lock of all. Whoever moves credit holds it too, so that no two invoices use the same credit.
"""

from decimal import Decimal

from invoices.models import Invoice, NumberSequence, TenantCreditEntry
from subscriptions.models import Tenant

SERIES = "INV"
SERIES_ON_TEST_CLOCK = "TEST"


def lock_series(tenant: Tenant) -> NumberSequence:
    """Lock the row of the tenant's number series until the transaction ends, making it where it is the first."""
    series = SERIES_ON_TEST_CLOCK if tenant.test_clock_id is not None else SERIES
    NumberSequence.objects.bulk_create([NumberSequence(series=series)], ignore_conflicts=True)
    return NumberSequence.objects.select_for_update(no_key=True).get(series=series)


def take_number(invoice: Invoice, series: NumberSequence) -> None:
    """Give the invoice the next number of the locked series; the caller saves it. A failing transaction gives the number back."""
    series.last_number += 1
    series.save(update_fields=["last_number"])
    invoice.series, invoice.number = series.series, series.last_number


def write_credit(invoice: Invoice, **amounts: Decimal) -> None:
    """Write movements of the tenant's credit by kind (`surplus`, `applied`, `returned`), signed; those of nothing are left out."""
    TenantCreditEntry.objects.bulk_create(
        TenantCreditEntry(tenant=invoice.tenant, currency=invoice.currency, kind=kind, amount=amount, invoice=invoice)
        for kind, amount in amounts.items()
        if amount
    )
