"""
The life of an invoice: which status follows which.

draft → open → paid, or void. Owns the table and nothing else: what a step writes stands in `services.invoicing`.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum


class InvoiceStatus(StrEnum):
    """Stripe's statuses. A draft has no number; from `open` on, the content is final."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    VOID = "void"


TRANSITIONS: Mapping[InvoiceStatus, frozenset[InvoiceStatus]] = {
    InvoiceStatus.DRAFT: frozenset({InvoiceStatus.OPEN, InvoiceStatus.PAID}),
    InvoiceStatus.OPEN: frozenset({InvoiceStatus.PAID, InvoiceStatus.VOID}),
    InvoiceStatus.PAID: frozenset(),
    InvoiceStatus.VOID: frozenset(),
}
"""What may follow each status. Nothing follows the last two: what was paid or voided is corrected by later invoices."""


def may_become(current: str, following: str) -> bool:
    """
    Return whether an invoice may move from one status to another. Staying is not moving.

    >>> may_become("open", "void"), may_become("draft", "void"), may_become("paid", "void")
    (True, False, False)
    """
    return InvoiceStatus(following) in TRANSITIONS[InvoiceStatus(current)]


def status_when_finalized(amount_due: Decimal) -> InvoiceStatus:
    """Return the first status of a final invoice: nothing due is paid already, by credit or because it costs nothing."""
    return InvoiceStatus.OPEN if amount_due > 0 else InvoiceStatus.PAID
