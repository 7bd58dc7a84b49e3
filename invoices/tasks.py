"""Celery doors: an id, one call."""

from celery import shared_task

from invoices.services import auditing, backtesting, closing, due, publishing
from metering.models import MeterBalance
from subscriptions.selectors.clock import now_for, wall_now

# A sweep ends before the next tick of beat, so that ticks do not pile up.
SWEEP_SECONDS = 12.0
PLANNING_SECONDS = 50.0


@shared_task(name="invoices.run_due")
def run_due() -> None:
    """Open, book and close what is due."""
    due.sweep(now=wall_now(), seconds_max=SWEEP_SECONDS)


@shared_task(name="invoices.book_overage")
def book_overage(balance_id: int) -> None:
    """Book a balance's overage now; the doorbell rang for it."""
    balance = MeterBalance.objects.select_related("tenant__test_clock").get(pk=balance_id)
    if balance.tenant.parked_at is None:
        closing.book_balance(balance_id=balance_id, now=now_for(balance.tenant))


@shared_task(name="invoices.plan_publications")
def plan_publications() -> None:
    """Schedule what publications ask for, and settle what was undone; the doorbell rang for one, or beat looks."""
    publishing.plan(now=wall_now(), seconds_max=PLANNING_SECONDS)


@shared_task(name="invoices.audit_books")
def audit_books() -> None:
    """Look for books that do not balance, and park whose they are."""
    auditing.audit_books()


@shared_task(name="invoices.run_backtests")
def run_backtests() -> None:
    """Go on with the backtests that are not done."""
    backtesting.run_backtests(seconds_max=SWEEP_SECONDS)
