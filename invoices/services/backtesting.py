"""
Runs backtests: in chunks of tenants, by whichever worker has the lease, until all are done or somebody cancels it.

The past is read in a transaction that cannot write; then what was found is stored, unless the run was cancelled or another worker did that
chunk meanwhile. So a worker that dies leaves a run that goes on where it was. Owns nothing of how the past is read (`selectors.backtest_inputs`)
or played again (`core.backtest`).
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from math import ceil
from time import monotonic
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Sum
from django.db.models.functions import Now

from billing_site.database import claim
from billing_site.doorbell import ring
from billing_site.http.problems import DomainError, FieldError, Invalid
from billing_site.http.wire import timestamp
from invoices.core.backtest import OBSTACLE_WORDS, BacktestTerms, ReplayedPeriod, TenantPast, replay
from invoices.models import BacktestResult, BacktestRun
from invoices.selectors.backtest_inputs import backtest_terms, pasts, scope_of, tenants_of
from subscriptions.core.money import exact
from subscriptions.models import TestClock, TierVersion
from subscriptions.selectors.catalog import money_text
from subscriptions.services import audit

logger = logging.getLogger(__name__)

CHUNK_TENANTS = 250
LEASE = timedelta(minutes=5)
TRIES_MAX = 3
PERIODS_MAX = 36

_ZERO = Decimal(0)


class BacktestNotRunning(DomainError):
    """It is done, has failed, or was cancelled before."""

    code = "backtest_not_running"
    title = "The backtest is not running"


@transaction.atomic
def start_backtest(
    *,
    version: TierVersion,
    periods: int | None,
    from_at: datetime | None,
    to_at: datetime | None,
    test_clock: TestClock | None,
    now: datetime,
    actor: str,
) -> BacktestRun:
    """
    Ask for a backtest of a version, a draft or not, over the last closed periods of each tenant, or over those in [from_at, to_at).

    Of the tier's tenants in wall time, or of those on a test clock. `now` is wall time. Raises Invalid (422) unless the periods are said in one
    way.
    """
    is_span = from_at is not None and to_at is not None
    if (periods is None) != is_span or (is_span and (from_at is None or to_at is None or from_at >= to_at)):
        raise Invalid("Say either `periods`, or `from` and a later `to`.", errors=[_ONE_WAY])
    run = BacktestRun(
        version=version,
        revision=version.revision,
        periods=periods,
        from_at=from_at,
        to_at=to_at,
        test_clock=test_clock,
        actor=actor,
        due_at=now,
    )
    run.tenants = tenants_of(scope_of(run)).count()
    run.save()
    audit.record(actor=actor, action="create", instance=run, after={"version": str(version), "tenants": run.tenants})
    ring("invoices.run_backtests")
    return run


_ONE_WAY = FieldError("periods", "one_form", "Give the number of periods, or a span of time.")


@transaction.atomic
def cancel_backtest(*, run_id: int, actor: str) -> BacktestRun:
    """Stop a running backtest; what it found so far stays. Raises BacktestNotRunning (409)."""
    run = _locked(run_id)
    if run.status != BacktestRun.Status.RUNNING:
        raise BacktestNotRunning(f"The backtest is {run.status}.")
    run.status, run.due_at = BacktestRun.Status.CANCELLED, None
    run.save(update_fields=["status", "due_at"])
    audit.record(actor=actor, action="cancel", instance=run)
    return run


def run_backtests(*, seconds_max: float | None = None) -> int:
    """
    Go on with the backtests that no other worker has, and return how many chunks were done.

    After `seconds_max` the rest is left to the next call, for which the doorbell is rung: a worker has other things to do, too.
    """
    started, chunks = monotonic(), 0
    while leased := claim(BacktestRun.objects.all(), lease_seconds=LEASE.total_seconds(), limit=1):
        [run] = leased
        try:
            while _do_chunk(run.pk):
                chunks += 1
                if seconds_max is not None and monotonic() - started >= seconds_max:
                    BacktestRun.objects.filter(pk=run.pk).update(leased_until=None, attempts=0)
                    ring("invoices.run_backtests")
                    return chunks
        except Exception:
            logger.exception("backtest %s failed, try %d", run.public_id, run.attempts)
            if run.attempts < TRIES_MAX:
                return chunks  # its lease ends, and another tick takes it up
            _fail(run.pk, "It could not be computed; the log has the reason.")
    return chunks


def _do_chunk(run_id: int) -> bool:
    """Replay the next tenants and store what was found; False where nothing is left to do."""
    run = BacktestRun.objects.select_related("version").get(pk=run_id)
    if run.status != BacktestRun.Status.RUNNING:
        return False
    if run.version.revision != run.revision:
        _fail(run_id, "The draft was edited while the backtest ran; ask for another.")
        return False
    tenant_ids, results = _replayed(run)
    return _store(run, tenant_ids, results)


def _replayed(run: BacktestRun) -> tuple[list[int], list[BacktestResult]]:
    """Read and replay the next tenants' pasts, in a transaction that sees one state and cannot write."""
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        scope = scope_of(run)
        following = tenants_of(scope).filter(tenant_id__gt=run.done_to_id).order_by("tenant_id")
        tenant_ids = list(following[:CHUNK_TENANTS])
        terms = backtest_terms(run.version)
        found = pasts(tenant_ids, scope=scope, terms=terms, version=run.version)
    return tenant_ids, [_result(run, past, replay(past, terms), terms) for past in found]


def _store(run: BacktestRun, tenant_ids: Sequence[int], results: Sequence[BacktestResult]) -> bool:
    """Store a chunk, or, where there is none any more, that the run is done; nothing where somebody else moved the run on."""
    with transaction.atomic():
        fresh = _locked(run.pk)
        if (fresh.status, fresh.done_to_id) != (BacktestRun.Status.RUNNING, run.done_to_id):
            return False
        if not tenant_ids:
            fresh.status, fresh.due_at, fresh.summary = BacktestRun.Status.DONE, None, _summary(run)
            fresh.save(update_fields=["status", "due_at", "summary"])
            return False
        BacktestResult.objects.bulk_create(results)
        # Progress is a new lease, and a new first try.
        BacktestRun.objects.filter(pk=run.pk).update(
            tenants_done=F("tenants_done") + len(tenant_ids),
            done_to_id=tenant_ids[-1],
            leased_until=Now() + LEASE,
            attempts=1,
        )
    return True


def _fail(run_id: int, reason: str) -> None:
    BacktestRun.objects.filter(pk=run_id, status=BacktestRun.Status.RUNNING).update(
        status=BacktestRun.Status.FAILED, due_at=None, failure=reason
    )


def _result(
    run: BacktestRun, past: TenantPast, replayed: Sequence[ReplayedPeriod], terms: BacktestTerms
) -> BacktestResult:
    spans = {
        period.id: {"starts_at": timestamp(period.span.starts_at), "ends_at": timestamp(period.span.ends_at)}
        for period in past.periods
    }
    with exact():
        before = sum((one.before for one in replayed), _ZERO)
        after = sum((one.after for one in replayed), _ZERO)
        difference = after - before
    return BacktestResult(
        run=run,
        tenant_id=past.tenant_id,
        before=before,
        after=after,
        difference=difference,
        periods=sum(one.obstacle is None for one in replayed),
        lines=[
            {
                "period": spans[one.period_id],
                "kind": line.key.kind.value,
                "meter": line.key.meter or None,
                "dimensions": dict(line.key.dimensions),
                "before": money_text(line.before, terms.currency),
                "after": money_text(line.after, terms.currency),
            }
            for one in replayed
            for line in one.lines
            if line.before != line.after
        ],
        skipped=[
            {"period": spans[one.period_id], "reason": one.obstacle.value, "detail": OBSTACLE_WORDS[one.obstacle]}
            for one in replayed
            if one.obstacle is not None
        ],
    )


def _summary(run: BacktestRun) -> dict[str, Any]:
    """Sum up a run: of the tenants' differences the median, the 95th percentile by nearest rank, and the largest rise."""
    currency = run.version.currency
    compared = BacktestResult.objects.filter(run=run, periods__gt=0)
    sums = compared.aggregate(
        before=Sum("before"), after=Sum("after"), difference=Sum("difference"), count=Sum("periods")
    )
    differences = list(compared.order_by("difference").values_list("difference", flat=True))

    def rank(percent: int) -> str | None:
        if not differences:
            return None
        return money_text(differences[max(ceil(percent * len(differences) / 100), 1) - 1], currency)

    skipped = BacktestResult.objects.filter(run=run).exclude(skipped=[]).values_list("skipped", flat=True)
    return {
        **{name: money_text(sums[name] or _ZERO, currency) for name in ("before", "after", "difference")},
        "currency": currency,
        "tenants": len(differences),
        "periods": sums["count"] or 0,
        "skipped": sum(len(of_one) for of_one in skipped),
        "p50": rank(50),
        "p95": rank(95),
        "worst": rank(100),
    }


def _locked(run_id: int) -> BacktestRun:
    return BacktestRun.objects.select_for_update(no_key=True, of=("self",)).get(pk=run_id)
