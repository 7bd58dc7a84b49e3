"""Backtests as they are read: runs, and what they found, for each tenant and together."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.db.models import F, IntegerField, Q, QuerySet, Sum
from django.db.models.expressions import Func

from billing_site.http.problems import DomainError
from invoices.core.comparison import Bill, Bin, compare
from invoices.models import BacktestResult, BacktestRun
from subscriptions.core.money import plain
from subscriptions.models import BillingPeriod, TestClock, TierVersion
from subscriptions.selectors.catalog import money_text


class BacktestNotFound(DomainError):
    """There is no backtest of this id."""

    status = 404
    code = "not_found"
    title = "There is no such backtest"


class Shown(StrEnum):
    """Which of a run's tenants are listed."""

    ALL = "all"
    MORE = "more"
    LESS = "less"
    SAME = "same"
    LEFT_OUT = "left-out"


_COMPARED = Q(periods__gt=0)
_CONDITIONS: dict[Shown, Q] = {
    Shown.ALL: Q(),
    Shown.MORE: Q(difference__gt=0),
    Shown.LESS: Q(difference__lt=0),
    Shown.SAME: _COMPARED & Q(difference=0),
    Shown.LEFT_OUT: ~Q(skipped=[]),
}


@dataclass(frozen=True, slots=True)
class GuardFigures:
    """
    What a run says to the guards of its tier's prices. See `core.comparison.Comparison`.

    The rise is None where nobody was compared, and infinite where a tenant paid nothing then; the change of revenue is None where all paid nothing.
    """

    largest_rise_percent: Decimal | None
    revenue_change_percent: Decimal | None


def backtests() -> QuerySet[BacktestRun]:
    """Return all runs, their versions and tiers at hand, unordered."""
    return BacktestRun.objects.select_related("version__tier", "test_clock")


def get_backtest(public_id: UUID) -> BacktestRun:
    """Return the run, its version and tier at hand. Raises BacktestNotFound (404)."""
    run = backtests().filter(public_id=public_id).first()
    if run is None:
        raise BacktestNotFound(f"There is no backtest {public_id}.")
    return run


def results_of(run: BacktestRun, shown: Shown = Shown.ALL) -> QuerySet[BacktestResult]:
    """Return what was found so far, a row for each tenant, unordered."""
    return BacktestResult.objects.filter(_CONDITIONS[shown], run=run).select_related("tenant")


def percent_done(run: BacktestRun) -> int:
    """Return how much of the run is done, 0 to 100; all of it only when it is done."""
    if run.status == BacktestRun.Status.DONE:
        return 100
    return min(100 * run.tenants_done // run.tenants, 99) if run.tenants else 0


def clocks_with_tenants_of(version: TierVersion) -> QuerySet[TestClock]:
    """Return the test clocks on which tenants have closed periods of the version's tier, by code."""
    tenants = _closed_periods(version).values("tenant__test_clock")
    return TestClock.objects.filter(pk__in=tenants).order_by("code")


def has_tenants_in_wall_time(version: TierVersion) -> bool:
    """Whether anybody in wall time has a closed period of the version's tier."""
    return _closed_periods(version).filter(tenant__test_clock__isnull=True).exists()


def _closed_periods(version: TierVersion) -> QuerySet[BillingPeriod]:
    return BillingPeriod.objects.filter(version__tier_id=version.tier_id, closed_at__isnull=False)


def summary_of(run: BacktestRun) -> dict[str, Any]:
    """
    Return all tenants' figures together, as they are kept with the run: amounts and percentages as texts.

    `rises` and `falls` count tenants. For p50, p95, worst and the percentages see `core.comparison.Comparison`; what is infinite is "Infinity".
    """
    currency = run.version.currency
    results = BacktestResult.objects.filter(run=run)
    rows = results.filter(_COMPARED).values_list("before", "after")
    found = compare([Bill(before, after) for before, after in rows], currency)
    lengths = Func(F("skipped"), function="jsonb_array_length", output_field=IntegerField())
    counts = results.aggregate(periods=Sum("periods"), skipped=Sum(lengths))

    def money(amount: Decimal | None) -> str | None:
        return None if amount is None else money_text(amount, currency)

    return {
        **{name: money(getattr(found, name)) for name in ("before", "after", "difference", "p50", "p95", "worst")},
        **{name: getattr(found, name) for name in ("tenants", "rises", "falls")},
        **{name: _text(getattr(found, name)) for name in ("largest_rise_percent", "change_percent")},
        "currency": currency,
        "periods": counts["periods"] or 0,
        "skipped": counts["skipped"] or 0,
        "histogram": [_bin(one, currency) for one in found.bins],
    }


def guard_figures(run: BacktestRun) -> GuardFigures | None:
    """
    Return what a run that is done says to its tier's guards; None where it does not speak for the tier.

    It does where it compared all of the tier's tenants in wall time. Where there are none, all those on one test clock stand for them.
    """
    is_whole = not run.cohort and (run.test_clock_id is None or not has_tenants_in_wall_time(run.version))
    if run.status != BacktestRun.Status.DONE or not is_whole:
        return None
    rise, change = (_number(run.summary[name]) for name in ("largest_rise_percent", "change_percent"))
    return GuardFigures(rise, None if change is None or change.is_infinite() else change)


def _bin(one: Bin, currency: str) -> dict[str, Any]:
    return {
        "direction": one.direction.value,
        "over": money_text(one.over, currency),
        "up_to": None if one.up_to is None else money_text(one.up_to, currency),
        "tenants": one.tenants,
    }


def _text(percent: Decimal | None) -> str | None:
    if percent is None:
        return None
    return plain(percent) if percent.is_finite() else str(percent)


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
