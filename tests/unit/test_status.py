"""The table of an invoice's life."""

from decimal import Decimal

import pytest

from invoices.core.status import TRANSITIONS, InvoiceStatus, may_become, status_when_finalized


@pytest.mark.parametrize(
    ("current", "following"),
    [("draft", "open"), ("draft", "paid"), ("open", "paid"), ("open", "void")],
)
def test_these_steps_and_no_others_are_allowed(current, following):
    assert may_become(current, following)
    assert sum(len(statuses) for statuses in TRANSITIONS.values()) == 4


@pytest.mark.parametrize(
    ("current", "following"),
    [("draft", "void"), ("open", "draft"), ("paid", "void"), ("paid", "open"), ("void", "open"), ("open", "open")],
)
def test_what_is_final_never_goes_back(current, following):
    assert not may_become(current, following)


def test_an_unknown_status_is_an_error_and_not_a_no():
    with pytest.raises(ValueError, match="uncollectible"):
        may_become("open", "uncollectible")


def test_an_invoice_with_nothing_due_is_paid_at_once():
    assert status_when_finalized(Decimal("0.00")) is InvoiceStatus.PAID
    assert status_when_finalized(Decimal("0.01")) is InvoiceStatus.OPEN
