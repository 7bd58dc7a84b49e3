"""A backtest in the words of people who make prices. Owns no figure: it says those that `invoices` has found."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

from billing_site.http.wire import parse_timestamp
from billing_site.staff import readable
from invoices.core.comparison import change_percent
from invoices.models import BacktestResult, BacktestRun
from subscriptions.core import words
from subscriptions.core.money import exact, round_half_up
from subscriptions.models import Tenant

STATUS: Mapping[str, str] = {
    BacktestRun.Status.RUNNING: "running",
    BacktestRun.Status.DONE: "done",
    BacktestRun.Status.FAILED: "failed",
    BacktestRun.Status.CANCELLED: "cancelled",
}
_KINDS: Mapping[str, str] = {"fee": "Fee", "overage": "Usage to be paid", "minimum": "Minimum spend"}
_NONE = "–"


@dataclass(frozen=True, slots=True)
class Amounts:
    """A bill as it was and would be; `direction` is "more", "less" or "same"."""

    before: str
    after: str
    difference: str
    share: str
    direction: str


def amounts(before: Decimal, after: Decimal, currency: str) -> Amounts:
    """Write a bill before and after, and what lies between."""
    with exact():
        difference = after - before
    return Amounts(
        before=words.money(before, currency),
        after=words.money(after, currency),
        difference=signed(difference, currency),
        share=share(change_percent(before, after, rounded=ceil)),
        direction=_direction(difference),
    )


def _direction(difference: Decimal) -> str:
    if not difference:
        return "same"
    return "more" if difference > 0 else "less"


def signed(difference: Decimal, currency: str) -> str:
    """Write a difference with its sign, "no change" where there is none."""
    if not difference:
        return "no change"
    return f"+{words.money(difference, currency)}" if difference > 0 else words.money(difference, currency)


def share(percent: Decimal) -> str:
    """
    Write a change in hundredths of what was.

    >>> share(Decimal("33.3334")), share(Decimal("-2")), share(Decimal("Infinity"))
    ('+33.33 %', '−2 %', 'from nothing')
    """
    if not percent.is_finite():
        return "from nothing"
    if not percent:
        return _NONE
    written = words.percent(round_half_up(percent.copy_abs(), places=2))
    return f"{'+' if percent > 0 else '−'}{written}"


def who(run: BacktestRun) -> str:
    """Say whose bills were compared."""
    if tenants := run.cohort.get("tenants"):
        return f"the customer {tenants[0]}" if len(tenants) == 1 else f"{len(tenants):,} chosen customers"
    everybody = f"all customers of {run.version.tier.name}"
    if notes := run.cohort.get("metadata"):
        everybody += f" with {readable(notes)}"
    return f"{everybody} on the test clock {run.test_clock}" if run.test_clock else everybody


def asked_by(run: BacktestRun) -> str:
    """Say who asked for it: staff by their name, others as the audit does."""
    return run.actor.removeprefix("staff:")


def which_periods(run: BacktestRun) -> str:
    """Say which of their periods were."""
    if run.periods is None:
        return f"periods between {run.from_at:%-d %b %Y} and {run.to_at:%-d %b %Y}"
    return "the last closed period of each" if run.periods == 1 else f"the last {run.periods} closed periods of each"


def bars(summary: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return how many customers' bills move by how much, as rows of a chart: the largest falls first."""
    return [(_bar(one, summary["currency"]), one["tenants"]) for one in summary["histogram"]]


def _bar(one: Mapping[str, Any], currency: str) -> str:
    if one["direction"] == "same":
        return "no change"
    way = "more" if one["direction"] == "rise" else "less"
    over = Decimal(one["over"])
    if one["up_to"] is None:
        return f"over {words.short_money(over, currency)} {way}"
    up_to = words.short_money(Decimal(one["up_to"]), currency)
    return f"{words.short_money(over, currency)}–{up_to} {way}" if over else f"up to {up_to} {way}"


def figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a run that is done says of all customers together, each with its name."""
    currency = summary["currency"]
    largest, change = summary["largest_rise_percent"], summary["change_percent"]
    return [
        ("Billed then", words.money(Decimal(summary["before"]), currency)),
        ("Would have been", words.money(Decimal(summary["after"]), currency)),
        ("Difference", signed(Decimal(summary["difference"]), currency)),
        ("Difference in %", _NONE if change is None else share(Decimal(change))),
        ("Customers compared", f"{summary['tenants']:,}"),
        ("Would pay more", f"{summary['rises']:,}"),
        ("Would pay less", f"{summary['falls']:,}"),
        ("Half of them rise by at most", _moved(summary["p50"], currency)),
        ("95 of 100 rise by at most", _moved(summary["p95"], currency)),
        ("Largest rise", _moved(summary["worst"], currency)),
        ("Largest rise in %", _NONE if largest is None else share(Decimal(largest))),
    ]


def _moved(difference: str | None, currency: str) -> str:
    return _NONE if difference is None else signed(Decimal(difference), currency)


def lines(result: BacktestResult, currency: str) -> list[dict[str, Any]]:
    """Return the lines of a customer's invoices that would have been others, in time order; `result` has its tenant at hand."""
    found = sorted(result.lines, key=lambda line: line["period"]["starts_at"])
    return [
        {
            "period": span(line["period"], result.tenant),
            "what": _what(line),
            "amounts": amounts(Decimal(line["before"]), Decimal(line["after"]), currency),
        }
        for line in found
    ]


def _what(line: Mapping[str, Any]) -> str:
    if not line["meter"]:
        return _KINDS[line["kind"]]
    of_what = f"{line['meter']}, {readable(line['dimensions'])}" if line["dimensions"] else line["meter"]
    return f"{_KINDS[line['kind']]}: {of_what}"


def span(period: Mapping[str, str], tenant: Tenant) -> str:
    """Write a period by its first day and the day on which the next one begins, in the customer's own time zone."""
    zone = ZoneInfo(tenant.timezone)
    starts_at, ends_at = (parse_timestamp(period[name]).astimezone(zone) for name in ("starts_at", "ends_at"))
    return f"{starts_at:%-d %b %Y} to {ends_at:%-d %b %Y}"
