"""
Runs backtests: in chunks of tenants, each by whichever worker has its lease, until all are done or somebody cancels it.

A chunk is read and compared in a transaction that cannot write; then what was found is stored, unless the run is over or another worker did the
chunk meanwhile. So a worker that dies leaves a chunk that another takes up. Owns nothing of how the past is read (`selectors.backtest_inputs`),
played again (`core.backtest`) or summed up (`selectors.backtests`).
"""

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from billing_site.database import claim, read_only, wall_now
from billing_site.doorbell import ring
from billing_site.http.problems import DomainError, FieldError, Invalid
from billing_site.http.wire import timestamp
from invoices.core.backtest import OBSTACLE_WORDS, BacktestTerms, ReplayedPeriod, TenantPast, replay
from invoices.models import BacktestChunk, BacktestResult, BacktestRun
from invoices.selectors.backtest_inputs import backtest_terms, pasts, scope_of, tenants_of
from invoices.selectors.backtests import guard_figures, summary_of
from subscriptions.core.money import exact
from subscriptions.models import Tenant, TestClock, TierVersion
from subscriptions.selectors.catalog import money_text
from subscriptions.services import audit, guards

logger = logging.getLogger(__name__)

CHUNK_TENANTS = 250
LEASE = timedelta(minutes=5)
TRIES_MAX = 3
PERIODS_MAX = 36
TENANTS_NAMED_MAX = 1_000
# How many workers compare at the same time, over all runs: they have other things to do, too.
WORKERS_MAX = 4

_ZERO = Decimal(0)


class BacktestNotRunning(DomainError):
    """It is done, has failed, or was cancelled before."""

    code = "backtest_not_running"
    title = "The backtest is not running"


@transaction.atomic
def start_backtest(
    *,
    version: TierVersion,
    periods: int | None = None,
    from_at: datetime | None = None,
    to_at: datetime | None = None,
    test_clock: TestClock | None = None,
    tenants: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    now: datetime,
    actor: str,
) -> BacktestRun:
    """
    Ask for a backtest of a version, a draft or not, over the last closed periods of each tenant, or over those in [from_at, to_at).

    Of the tier's tenants in wall time, or of those on a test clock; of these, where `metadata` is given, of those with whom all of it stands.
    Or of the `tenants` that are named, in whichever time they live; those without such a period are not compared. `now` is wall time. Where
    there is nobody to compare, it is done at once. Raises Invalid (422) unless periods and tenants are said in one way, and for a code that no tenant has.
    """
    is_span = from_at is not None and to_at is not None
    if (periods is None) != is_span or (is_span and (from_at is None or to_at is None or from_at >= to_at)):
        raise Invalid("Say either `periods`, or `from` and a later `to`.", errors=[_ONE_WAY])
    who, cohort = _cohort(test_clock, tenants, metadata)
    run = BacktestRun(
        version=version,
        revision=version.revision,
        periods=periods,
        from_at=from_at,
        to_at=to_at,
        test_clock=test_clock,
        cohort=cohort,
        actor=actor,
    )
    tenant_ids = tenants_of(scope_of(run), who)
    run.tenants = len(tenant_ids)
    run.save()
    audit.record(actor=actor, action="create", instance=run, after={"version": str(version), "tenants": run.tenants})
    if not tenant_ids:
        _finish(run)
    BacktestChunk.objects.bulk_create(
        BacktestChunk(run=run, tenant_ids=tenant_ids[first : first + CHUNK_TENANTS], due_at=now)
        for first in range(0, len(tenant_ids), CHUNK_TENANTS)
    )
    for _ in range(min(WORKERS_MAX, -(-len(tenant_ids) // CHUNK_TENANTS))):
        ring("invoices.run_backtests")
    return run


_ONE_WAY = FieldError("periods", "one_form", "Give the number of periods, or a span of time.")
_ONE_COHORT = FieldError(
    "tenants", "one_form", "Name the tenants, or say which clock they are on and what stands with them."
)


def _cohort(
    test_clock: TestClock | None, tenants: Sequence[str] | None, metadata: Mapping[str, Any] | None
) -> tuple[Q, dict[str, Any]]:
    """Return who is compared as a condition on periods, and as it is kept with the run."""
    if tenants is None:
        in_time = Q(tenant__test_clock=test_clock)
        return (
            (in_time & Q(tenant__metadata__contains=metadata), {"metadata": dict(metadata)})
            if metadata
            else (in_time, {})
        )
    if test_clock is not None or metadata:
        raise Invalid("Tenants that are named live in whatever time they do.", errors=[_ONE_COHORT])
    named = dict(Tenant.objects.filter(code__in=tenants).values_list("code", "pk"))
    if unknown := [code for code in tenants if code not in named]:
        detail = f"There is no tenant {', '.join(unknown[:10])}."
        raise Invalid("Some tenants do not exist.", errors=[FieldError("tenants", "unknown", detail)])
    return Q(tenant__in=named.values()), {"tenants": sorted(named)}


@transaction.atomic
def cancel_backtest(*, run_id: int, actor: str) -> BacktestRun:
    """Stop a running backtest; what it found so far stays. Raises BacktestNotRunning (409)."""
    run = _locked(run_id)
    if run.status != BacktestRun.Status.RUNNING:
        raise BacktestNotRunning(f"The backtest is {run.status}.")
    _end(run, BacktestRun.Status.CANCELLED)
    audit.record(actor=actor, action="cancel", instance=run)
    return run


def run_backtests(*, seconds_max: float | None = None) -> int:
    """
    Compare chunks that no other worker has, and return how many were tried.

    After `seconds_max` the rest is left to the next call, for which the doorbell is rung: a worker has other things to do, too. Where WORKERS_MAX
    are at it already, nothing is done.
    """
    started, chunks = monotonic(), 0
    while _has_room() and (leased := claim(BacktestChunk.objects.all(), lease_seconds=LEASE.total_seconds(), limit=1)):
        [chunk] = leased
        chunks += 1
        try:
            _compare(chunk)
        except Exception:
            logger.exception("a chunk of backtest %d failed, try %d", chunk.run_id, chunk.attempts)
            if chunk.attempts >= TRIES_MAX:  # else its lease ends, and another tick takes it up
                _fail(chunk.run_id, "It could not be computed; the log has the reason.")
        if seconds_max is not None and monotonic() - started >= seconds_max:
            if BacktestChunk.objects.exists():
                ring("invoices.run_backtests")
            break
    return chunks


def _has_room() -> bool:
    return BacktestChunk.objects.filter(leased_until__gt=Now()).count() < WORKERS_MAX


def _compare(chunk: BacktestChunk) -> None:
    """Compare a chunk's tenants and store what was found."""
    run = BacktestRun.objects.select_related("version").get(pk=chunk.run_id)
    if run.version.revision != run.revision:
        _fail(run.pk, "The draft was edited while the backtest ran; ask for another.")
        return
    with read_only(), _no_collection():
        results = _replayed(run, chunk.tenant_ids)
    with transaction.atomic():
        run = _locked(run.pk)
        # It is gone where the run is over, or where this worker's lease had ended and another one was faster.
        if not BacktestChunk.objects.filter(pk=chunk.pk).delete()[0]:
            return
        BacktestResult.objects.bulk_create(results)
        run.tenants_done += len(chunk.tenant_ids)
        run.save(update_fields=["tenants_done"])
        if not run.chunks.exists():
            _finish(run)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no garbage: what a chunk makes is needed until it is stored, and looking took a sixth of its time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _replayed(run: BacktestRun, tenant_ids: Sequence[int]) -> list[BacktestResult]:
    terms = backtest_terms(run.version)
    found = pasts(tenant_ids, scope=scope_of(run), terms=terms, version=run.version)
    return [_result(run, past, replay(past, terms), terms) for past in found]


def _finish(run: BacktestRun) -> None:
    """Sum up a run of which nothing is left to do, and tell the guards of its tier."""
    run.summary = summary_of(run)
    _end(run, BacktestRun.Status.DONE)
    figures = guard_figures(run)
    if figures is not None and run.finished_at is not None:
        guards.record_verdict(
            version_id=run.version_id,
            revision=run.revision,
            largest_rise_percent=figures.largest_rise_percent,
            revenue_change_percent=figures.revenue_change_percent,
            source=f"backtest {run.public_id}",
            now=run.finished_at,
        )


def _fail(run_id: int, reason: str) -> None:
    with transaction.atomic():
        run = _locked(run_id)
        if run.status == BacktestRun.Status.RUNNING:
            run.failure = reason
            _end(run, BacktestRun.Status.FAILED)


def _end(run: BacktestRun, status: str) -> None:
    run.status, run.finished_at = status, wall_now()
    run.save(update_fields=["status", "finished_at", "summary", "failure"])
    BacktestChunk.objects.filter(run=run).delete()


def _locked(run_id: int) -> BacktestRun:
    runs = BacktestRun.objects.select_for_update(no_key=True, of=("self",))
    return runs.select_related("version").get(pk=run_id)


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
