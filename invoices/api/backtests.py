"""`/backtests`: what closed periods would have cost under another version. Writes nothing but what it found."""

import csv
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.http import StreamingHttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.queries import NO_PARAMETERS, PAGE_PARAMETERS
from billing_site.http.schema import PAGING, PeriodDocument
from billing_site.http.serializers import CodeField, MetadataField, StrictSerializer, TimestampField
from invoices.core.comparison import Direction
from invoices.models import BacktestResult, BacktestRun
from invoices.selectors.backtests import get_backtest, percent_done, results_of
from invoices.services.backtesting import PERIODS_MAX, TENANTS_NAMED_MAX, cancel_backtest, start_backtest
from subscriptions.selectors.catalog import get_tier, get_version, money_text
from subscriptions.selectors.clock import get_clock, wall_now


class BacktestInput(StrictSerializer):
    """What is to be compared, with which periods (the last so many of each tenant, or those in a span of time), and for whom."""

    tier = CodeField()
    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1)
    periods = serializers.IntegerField(min_value=1, max_value=PERIODS_MAX, required=False)
    to = TimestampField(required=False)
    test_clock = CodeField(
        required=False, help_text="Compare the tenants on this clock, instead of those in wall time."
    )
    tenants = serializers.ListField(
        child=CodeField(),
        required=False,
        min_length=1,
        max_length=TENANTS_NAMED_MAX,
        help_text="Compare these tenants alone, in whichever time they live.",
    )
    metadata = MetadataField(
        required=False, help_text="Compare those tenants alone with whom all of these names and values stand."
    )

    def get_fields(self) -> dict[str, Any]:
        """Add `from`, which cannot be an attribute's name."""
        return super().get_fields() | {"from": TimestampField(required=False)}


class BacktestBinDocument(serializers.Serializer[Any]):
    """How many tenants' bills rise or fall by more than `over`, and not more than `up_to`; the largest falls first."""

    direction = serializers.ChoiceField([one.value for one in Direction])
    over = serializers.CharField()
    up_to = serializers.CharField(allow_null=True)
    tenants = serializers.IntegerField()


class BacktestSummaryDocument(serializers.Serializer[Any]):
    """
    All tenants together. p50, p95 and worst are of the tenants' differences; null where no period could be compared.

    Percentages are of what was billed before, "Infinity" where that was nothing: the largest of a tenant's rounded up, that of all rounded down.
    """

    before = serializers.CharField()
    after = serializers.CharField()
    difference = serializers.CharField()
    currency = serializers.CharField()
    tenants = serializers.IntegerField(help_text="Those of whom a period was compared.")
    periods = serializers.IntegerField()
    skipped = serializers.IntegerField(help_text="Periods that could not be compared; each tenant says why.")
    p50 = serializers.CharField(allow_null=True)
    p95 = serializers.CharField(allow_null=True)
    worst = serializers.CharField(allow_null=True, help_text="The largest rise.")
    rises = serializers.IntegerField(help_text="Tenants who would pay more.")
    falls = serializers.IntegerField(help_text="Tenants who would pay less.")
    largest_rise_percent = serializers.CharField(allow_null=True)
    change_percent = serializers.CharField(allow_null=True)
    histogram = BacktestBinDocument(many=True)


class BacktestDocument(serializers.Serializer[Any]):
    """A backtest."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(BacktestRun.Status.values)
    progress = serializers.IntegerField(help_text="Percent.")
    tier = serializers.CharField()
    version = serializers.IntegerField()
    failure = serializers.CharField(help_text="Why it failed; else empty.")


class ChangedLineDocument(serializers.Serializer[Any]):
    """What one charge, or the fee, comes to in a period, where that differs."""

    period = PeriodDocument()
    kind = serializers.ChoiceField(["fee", "overage", "minimum"])
    meter = serializers.CharField(allow_null=True)
    dimensions = serializers.DictField(child=serializers.CharField())
    before = serializers.CharField()
    after = serializers.CharField()


class SkippedPeriodDocument(serializers.Serializer[Any]):
    """A period that could not be compared, and is in no sum."""

    period = PeriodDocument()
    reason = serializers.CharField()
    detail = serializers.CharField()


class BacktestTenantDocument(serializers.Serializer[Any]):
    """A tenant's periods together, with the lines that differ."""

    tenant = serializers.CharField()
    before = serializers.CharField()
    after = serializers.CharField()
    difference = serializers.CharField()
    lines = ChangedLineDocument(many=True)
    skipped = SkippedPeriodDocument(many=True)


class BacktestResultDocument(BacktestDocument):
    """A backtest with what it found: of all tenants once it is done, and of those that are done so far, the largest rise first."""

    summary = BacktestSummaryDocument(allow_null=True)
    tenants = BacktestTenantDocument(many=True)
    next = serializers.URLField(allow_null=True)


class Backtests(APIView):
    """Asks for backtests."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="start_backtest",
        summary="Compare a version with what was billed",
        request=BacktestInput,
        responses={202: BacktestDocument},
    )
    def post(self, request: Request) -> Response:
        """A draft or a published version, over closed periods of the tier's tenants. It runs in the background."""
        NO_PARAMETERS.read(request)
        values = BacktestInput.checked(request.data)
        run = start_backtest(
            version=get_version(get_tier(values["tier"]), values["version"]),
            periods=values.get("periods"),
            from_at=values.get("from"),
            to_at=values.get("to"),
            test_clock=get_clock(values["test_clock"]) if "test_clock" in values else None,
            tenants=values.get("tenants"),
            metadata=values.get("metadata"),
            now=wall_now(),
            actor=actor_of(request),
        )
        return Response(_document(run), status=202)


class BacktestDetail(APIView):
    """One backtest."""

    required_scopes = {"GET": "read"}

    @extend_schema(
        operation_id="get_backtest",
        summary="Show a backtest",
        parameters=[*PAGING],
        responses=BacktestResultDocument,
    )
    def get(self, request: Request, backtest: UUID) -> Response:
        """Its progress, the summary once it is done, and a page of tenants."""
        PAGE_PARAMETERS.read(request)
        run = get_backtest(backtest)
        tenants = page(request, results_of(run), ordering=("-difference", "-id"), serialize=_tenant_of(run)).data
        found = {"summary": run.summary or None, "tenants": tenants["results"], "next": tenants["next"]}
        return Response(_document(run) | found)


class BacktestCancellation(APIView):
    """Cancels a backtest."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="cancel_backtest",
        summary="Cancel a running backtest",
        request=None,
        responses=BacktestDocument,
    )
    def post(self, request: Request, backtest: UUID) -> Response:
        """What it has found so far stays."""
        NO_PARAMETERS.read(request)
        run = cancel_backtest(run_id=get_backtest(backtest).pk, actor=actor_of(request))
        return Response(_document(run))


class BacktestTable(APIView):
    """What a backtest found, as a table."""

    required_scopes = {"GET": "read"}

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Take whoever asks for CSV, which is what this answers; only its errors are JSON."""
        return super().perform_content_negotiation(request, force=True)

    @extend_schema(
        operation_id="export_backtest",
        summary="Export what a backtest found as CSV",
        responses={(200, "text/csv"): str},
    )
    def get(self, request: Request, backtest: UUID) -> StreamingHttpResponse:
        """A row for each tenant, the largest rise first."""
        NO_PARAMETERS.read(request)
        return csv_of(get_backtest(backtest))


def csv_of(run: BacktestRun) -> StreamingHttpResponse:
    """Return what a run found as a file: a row for each tenant, the largest rise first."""
    return StreamingHttpResponse(
        _rows(run),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="backtest-{run.public_id}.csv"'},
    )


class _Echo:
    """A file whose `write` returns what it was given, as `csv` wants one."""

    def write(self, text: str) -> str:
        return text


def _rows(run: BacktestRun) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(["tenant", "currency", "before", "after", "difference", "periods", "skipped"])
    currency = run.version.currency
    for row in results_of(run).order_by("-difference", "-pk").iterator(chunk_size=1000):
        amounts = [money_text(amount, currency) for amount in (row.before, row.after, row.difference)]
        # Codes of tenants may begin with @ or -: a spreadsheet would take those for formulas.
        code = row.tenant.code
        yield writer.writerow(
            [f"'{code}" if code[0] in "@-" else code, currency, *amounts, row.periods, len(row.skipped)]
        )


def _tenant_of(run: BacktestRun) -> Any:
    def document(row: BacktestResult) -> dict[str, Any]:
        amounts = {
            name: money_text(getattr(row, name), run.version.currency) for name in ("before", "after", "difference")
        }
        return {"tenant": row.tenant.code, **amounts, "lines": row.lines, "skipped": row.skipped}

    return document


def _document(run: BacktestRun) -> dict[str, Any]:
    return {
        "id": str(run.public_id),
        "status": run.status,
        "progress": percent_done(run),
        "tier": run.version.tier.code,
        "version": run.version.number,
        "failure": run.failure,
    }
