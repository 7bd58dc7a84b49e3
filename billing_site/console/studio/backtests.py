"""Backtests in the studio: asking for one, its progress, and what it found, for all customers together and for each."""

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST, require_safe

from billing_site.console.studio import backtest_words, charts
from billing_site.console.studio.pages import MAY_EDIT, MAY_LOOK, page, permitted
from billing_site.http.pagination import rows_after
from billing_site.http.problems import DomainError, Invalid
from billing_site.staff import actor_of, explain
from invoices.api.backtests import csv_of
from invoices.models import BacktestResult, BacktestRun
from invoices.selectors.backtests import (
    BacktestNotFound,
    Shown,
    backtests,
    clocks_with_tenants_of,
    get_backtest,
    has_tenants_in_wall_time,
    percent_done,
    results_of,
)
from invoices.services.backtesting import PERIODS_MAX, TENANTS_NAMED_MAX, cancel_backtest, start_backtest
from subscriptions.models import TestClock, TierVersion
from subscriptions.selectors.clock import wall_now

PERIODS = 3
# Of those who would pay most more, and most less.
OUTLIERS = 5
MOST_MORE, MOST_LESS = ("-difference", "-id"), ("difference", "id")

_TITLES = {
    Shown.ALL: "All customers",
    Shown.MORE: "Customers who would pay more",
    Shown.LESS: "Customers who would pay less",
    Shown.SAME: "Customers who would pay the same",
    Shown.LEFT_OUT: "Customers with a period that is left out",
}


class Question(forms.Form):
    """What is to be compared, and for whom; what belongs to a choice that was not made counts for nothing."""

    which = forms.ChoiceField(choices=[("last", "last"), ("between", "between")], initial="last")
    periods = forms.IntegerField(
        label="How many",
        help_text=f"1 to {PERIODS_MAX}.",
        min_value=1,
        max_value=PERIODS_MAX,
        initial=PERIODS,
        required=False,
    )
    from_day = forms.DateField(
        label="From",
        help_text="From the beginning of this day, in UTC.",
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
    )
    to_day = forms.DateField(
        label="Up to",
        help_text="To the beginning of this day, in UTC.",
        required=False,
        widget=forms.DateInput(attrs={"type": "date"}),
    )
    who = forms.ChoiceField(choices=[("all", "all"), ("clock", "clock"), ("named", "named")], initial="all")
    test_clock = forms.ModelChoiceField(
        label="Test clock",
        help_text="Its customers are there to try things out; its time moves only when it is told to.",
        queryset=TestClock.objects.none(),
        required=False,
        empty_label=None,
    )
    tenants = forms.CharField(
        label="Their ids, one to a line",
        help_text="Guards ask for a backtest of all customers; one of a few says nothing to them.",
        required=False,
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false"}),
    )

    def __init__(self, version: TierVersion, data: Any = None) -> None:
        super().__init__(data)
        clocks = clocks_with_tenants_of(version)
        self.fields["test_clock"].queryset = clocks  # type: ignore[attr-defined]
        self.fields["test_clock"].initial = clocks.first()
        # Where a tier has nobody in wall time yet, those on a clock are whom a backtest is about.
        if self.fields["test_clock"].initial is not None and not has_tenants_in_wall_time(version):
            self.fields["who"].initial = "clock"

    def clean(self) -> dict[str, Any]:
        """Ask for what belongs to the choices that were made."""
        values = super().clean() or {}
        needed = {"last": ["periods"], "between": ["from_day", "to_day"], "clock": ["test_clock"], "named": ["tenants"]}
        for choice in (values.get("which", ""), values.get("who", "")):
            for name in needed.get(choice, []):
                if not values.get(name) and name not in self.errors:
                    self.add_error(name, "Fill this in, or choose otherwise.")
        if len(self._codes(values)) > TENANTS_NAMED_MAX:
            self.add_error("tenants", f"Name at most {TENANTS_NAMED_MAX:,}.")
        return values

    def asked(self) -> dict[str, Any]:
        """Return the arguments for `start_backtest`."""
        values = self.cleaned_data
        is_between = values["which"] == "between"
        return {
            "periods": None if is_between else values["periods"],
            "from_at": _midnight(values["from_day"]) if is_between else None,
            "to_at": _midnight(values["to_day"]) if is_between else None,
            "test_clock": values["test_clock"] if values["who"] == "clock" else None,
            "tenants": self._codes(values) if values["who"] == "named" else None,
        }

    def refuse(self, refusal: Invalid) -> None:
        """Show why the service refused, at the field that it names."""
        for error in refusal.errors:
            if error.path == "periods" and self.cleaned_data["which"] == "between":
                self.add_error("to_day", "The end must lie after the beginning.")
            else:
                self.add_error(error.path if error.path in self.fields else None, error.message)

    @staticmethod
    def _codes(values: dict[str, Any]) -> list[str]:
        return list(dict.fromkeys((values.get("tenants") or "").replace(",", " ").split()))


def _midnight(day: Any) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


@permitted(MAY_EDIT)
def start(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask what is to be compared, and start the run."""
    version = get_object_or_404(TierVersion.objects.select_related("tier"), pk=pk)
    form = Question(version, request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            run = start_backtest(version=version, **form.asked(), now=wall_now(), actor=actor_of(request))
        except Invalid as refusal:
            form.refuse(refusal)
        else:
            return HttpResponseRedirect(reverse("admin:studio_backtest", args=[run.public_id]))
    return page(
        request,
        "studio/backtest_start.html",
        title=f"Backtest version {version.number} of {version.tier.name}",
        status=422 if form.errors else 200,
        form=form,
        version=version,
        has_clocks=form.fields["test_clock"].initial is not None,
    )


@permitted(MAY_LOOK)
@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """List the backtests that were asked for, the newest first."""
    runs, following = _rows(request, backtests(), ("-id",))
    return page(
        request, "studio/backtests.html", title="Backtests", runs=[_about(run) for run in runs], following=following
    )


@permitted(MAY_LOOK)
@require_safe
def show(request: HttpRequest, backtest: UUID) -> HttpResponse:
    """Show a run: how far it is, or what it found."""
    run = _run(backtest)
    context: dict[str, Any] = {}
    if run.status == BacktestRun.Status.DONE:
        context = {
            "figures": backtest_words.figures(run.summary),
            "chart": charts.histogram(
                backtest_words.bars(run.summary), title="How many customers' bills would change, and by how much"
            ),
            "outliers": [_outliers(run, Shown.MORE), _outliers(run, Shown.LESS)],
        }
    return page(request, "studio/backtest.html", title=_title(run), **_about(run), **context)


@permitted(MAY_LOOK)
@require_safe
def progress(request: HttpRequest, backtest: UUID) -> JsonResponse:
    """Say how far a run is."""
    run = _run(backtest)
    answer = {"status": run.status, "percent": percent_done(run), "words": _progress_words(run)}
    return JsonResponse(answer, headers={"Cache-Control": "no-store"})


@permitted(MAY_EDIT)
@require_POST
def cancel(request: HttpRequest, backtest: UUID) -> HttpResponse:
    """Stop a run."""
    try:
        cancel_backtest(run_id=_run(backtest).pk, actor=actor_of(request))
    except DomainError as refusal:
        messages.error(request, explain(refusal))
    else:
        messages.success(request, "The backtest was stopped.")
    return HttpResponseRedirect(reverse("admin:studio_backtest", args=[backtest]))


@permitted(MAY_LOOK)
@require_safe
def export(request: HttpRequest, backtest: UUID) -> StreamingHttpResponse:
    """Hand out what a run found as a table."""
    return csv_of(_run(backtest))


@permitted(MAY_LOOK)
@require_safe
def tenants(request: HttpRequest, backtest: UUID) -> HttpResponse:
    """List a run's customers, or some of them, in pages."""
    run = _run(backtest)
    chosen = request.GET.get("show", Shown.ALL)
    if chosen not in set(Shown):
        raise Http404
    shown = Shown(chosen)
    found, following = _rows(request, results_of(run, shown), MOST_LESS if shown == Shown.LESS else MOST_MORE)
    return page(
        request,
        "studio/backtest_tenants.html",
        title=_TITLES[shown],
        choices=[(one.value, title, one == shown) for one, title in _TITLES.items()],
        shown=shown.value,
        rows=[_row(result, run) for result in found],
        following=following,
        **_about(run),
    )


@permitted(MAY_LOOK)
@require_safe
def tenant(request: HttpRequest, backtest: UUID, pk: int) -> HttpResponse:
    """Show the lines of a customer's invoices that would have been others, and why a period is left out."""
    run = _run(backtest)
    result = get_object_or_404(results_of(run), tenant_id=pk)
    return page(
        request,
        "studio/backtest_tenant.html",
        title=result.tenant.name,
        result=result,
        bill=backtest_words.amounts(result.before, result.after, run.version.currency),
        lines=backtest_words.lines(result, run.version.currency),
        skipped=[(backtest_words.span(one["period"], result.tenant), one["detail"]) for one in result.skipped],
        **_about(run),
    )


def _title(run: BacktestRun) -> str:
    return f"Backtest of {run.version.tier.name}, version {run.version.number}"


def _run(public_id: UUID) -> BacktestRun:
    try:
        return get_backtest(public_id)
    except BacktestNotFound as missing:
        raise Http404 from missing


def _rows(request: HttpRequest, rows: Any, ordering: tuple[str, ...]) -> tuple[list[Any], str | None]:
    """Return the page of a list that an address names, and the cursor of the next one."""
    try:
        return rows_after(rows, request.GET.get("after"), ordering=ordering)
    except ValueError as error:
        raise Http404 from error


def _about(run: BacktestRun) -> dict[str, Any]:
    """Return what every page says of a run."""
    summary = run.summary
    return {
        "run": run,
        "state": backtest_words.STATUS[run.status],
        "is_running": run.status == BacktestRun.Status.RUNNING,
        "who": backtest_words.who(run),
        "asked_by": backtest_words.asked_by(run),
        "which_periods": backtest_words.which_periods(run),
        "percent": percent_done(run),
        "progress_words": _progress_words(run),
        "difference": backtest_words.signed(Decimal(summary["difference"]), summary["currency"]) if summary else "",
        "is_outdated": run.version.revision != run.revision,
    }


def _progress_words(run: BacktestRun) -> str:
    return f"{run.tenants_done:,} of {run.tenants:,} customers compared"


def _outliers(run: BacktestRun, shown: Shown) -> dict[str, Any]:
    ordering = MOST_MORE if shown == Shown.MORE else MOST_LESS
    found = results_of(run, shown).order_by(*ordering)[:OUTLIERS]
    count = run.summary["rises" if shown == Shown.MORE else "falls"]
    return {
        "title": "Largest rises" if shown == Shown.MORE else "Largest falls",
        "way": "more" if shown == Shown.MORE else "less",
        "shown": shown.value,
        "count": count,
        "rows": [_row(result, run) for result in found],
    }


def _row(result: BacktestResult, run: BacktestRun) -> dict[str, Any]:
    return {
        "tenant": result.tenant,
        "bill": backtest_words.amounts(result.before, result.after, run.version.currency),
        "periods": result.periods,
        "left_out": len(result.skipped),
    }


paths: list[URLPattern] = [
    path("versions/<int:pk>/backtest/", start, name="studio_backtest_start"),
    path("backtests/", overview, name="studio_backtests"),
    path("backtests/<uuid:backtest>/", show, name="studio_backtest"),
    path("backtests/<uuid:backtest>/progress/", progress, name="studio_backtest_progress"),
    path("backtests/<uuid:backtest>/cancel/", cancel, name="studio_backtest_cancel"),
    path("backtests/<uuid:backtest>/tenants.csv", export, name="studio_backtest_table"),
    path("backtests/<uuid:backtest>/tenants/", tenants, name="studio_backtest_tenants"),
    path("backtests/<uuid:backtest>/tenants/<int:pk>/", tenant, name="studio_backtest_tenant"),
]
