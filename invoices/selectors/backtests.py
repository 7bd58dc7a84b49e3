"""Backtests as they are read: a run, and what it found."""

from uuid import UUID

from django.db.models import QuerySet

from billing_site.http.problems import DomainError
from invoices.models import BacktestResult, BacktestRun


class BacktestNotFound(DomainError):
    """There is no backtest of this id."""

    status = 404
    code = "not_found"
    title = "There is no such backtest"


def get_backtest(public_id: UUID) -> BacktestRun:
    """Return the run, its version and tier at hand. Raises BacktestNotFound (404)."""
    run = BacktestRun.objects.select_related("version__tier", "test_clock").filter(public_id=public_id).first()
    if run is None:
        raise BacktestNotFound(f"There is no backtest {public_id}.")
    return run


def results_of(run: BacktestRun) -> QuerySet[BacktestResult]:
    """Return what was found so far, a row for each tenant, unordered."""
    return BacktestResult.objects.filter(run=run).select_related("tenant")


def percent_done(run: BacktestRun) -> int:
    """Return how much of the run is done, 0 to 100; all of it only when it is done."""
    if run.status == BacktestRun.Status.DONE:
        return 100
    return min(100 * run.tenants_done // run.tenants, 99) if run.tenants else 0
