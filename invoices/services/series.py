"""
The number series, and the tenants' credit that its lock guards.

A number is taken from a locked row, not from a sequence, because a sequence leaves a gap for every transaction that fails. The row is
the last lock of all. Whoever moves credit holds it too, so that no two invoices use the same credit.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from invoices.models import Invoice, NumberSequence, TenantCreditEntry
from subscriptions.models import Tenant

SERIES = "INV"
SERIES_ON_TEST_CLOCK = "TEST"

CreditMovement = tuple[Invoice, str, Decimal]
"""The invoice that moves its tenant's credit, the kind (`surplus`, `applied`, `returned`), and the signed amount."""


def series_of(tenant: Tenant) -> str:
    """Return the series from which the tenant's invoices take their numbers."""
    return SERIES_ON_TEST_CLOCK if tenant.test_clock_id is not None else SERIES


def lock_series(names: Iterable[str]) -> dict[str, NumberSequence]:
    """Lock the rows of number series, in the order of their names, until the transaction ends; make those that are new."""
    wanted = sorted(set(names))
    locked = _locked(wanted)
    if len(locked) < len(wanted):
        NumberSequence.objects.bulk_create([NumberSequence(series=name) for name in wanted], ignore_conflicts=True)
        locked = _locked(wanted)
    return locked


def take_numbers(invoices: Sequence[Invoice], series: NumberSequence) -> None:
    """
    Give the invoices the next numbers of the locked series, in their order; the caller saves them.

    A failing transaction gives the numbers back; a number taken and not saved fails the transaction (a trigger counts).
    """
    for number, invoice in enumerate(invoices, start=series.last_number + 1):
        invoice.series, invoice.number = series.series, number
    series.last_number += len(invoices)
    series.save(update_fields=["last_number"])


def write_credit(movements: Iterable[CreditMovement]) -> None:
    """Write movements of credit; those of nothing are left out."""
    TenantCreditEntry.objects.bulk_create(
        TenantCreditEntry(
            tenant_id=invoice.tenant_id, currency=invoice.currency, kind=kind, amount=amount, invoice=invoice
        )
        for invoice, kind, amount in movements
        if amount
    )


def _locked(names: Sequence[str]) -> dict[str, NumberSequence]:
    rows = NumberSequence.objects.select_for_update(no_key=True).filter(series__in=names).order_by("series")
    return {row.series: row for row in rows}
