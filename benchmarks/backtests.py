"""
What a backtest takes: two drafts against three closed periods of each of many tenants, on servers of its own, by two processes.

    python -m benchmarks.backtests --tenants 10000

One tier has two meters at a price per unit; the other has six pools of them: by model, graduated, by volume, in packages, with a minimum and
rollover. Their tenants are copies of one that was billed through the services.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.stage import Stage
from benchmarks.workers import PROCESSES, Workers
from billing_site.instance import READER_ROLE

PERIODS = 3
DAYS = 100  # since the tenants began: three closed months
USED = 25_000
_BANDS = [
    {"up_to": "10000", "unit_amount": "0.0003"},
    {"up_to": "40000", "unit_amount": "0.0002"},
    {"up_to": None, "unit_amount": "0.0001"},
]
_PRICES: dict[str, dict[str, Any]] = {
    "": {"model": "per_unit", "unit_amount": "0.0002", "amount_min": "2.50"},
    "opus": {"model": "graduated", "bands": _BANDS},
    "haiku": {"model": "package", "size": "1000", "amount": "0.30"},
}


def _pools(meters: Iterable[str], *, included: int) -> list[dict[str, Any]]:
    """Return three charges per meter, one for two of the models and one for all others."""
    return [
        {
            "kind": "usage",
            "meter": meter,
            "dimensions": {"model": model} if model else {},
            "included": str(included),
            "rollover_max": "900",
            "rollover_periods": 2,
            "price": price,
        }
        for meter in meters
        for model, price in _PRICES.items()
    ]


def main() -> None:
    """Fill, compare, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backtests", description="Time backtests.")
    parser.add_argument("--tenants", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tierbook-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # root's servers step down to another account, which has to pass
        with Stage(directory) as stage:
            environment = stage.environment() | {"DATABASE_READER_ROLE": READER_ROLE}
            os.environ.update(environment)
            import django
            from django.core.management import call_command

            django.setup()
            call_command("migrate", verbosity=0)
            print(
                "| tier | tenants | seconds | of them asking | tenants that would pay otherwise |\n|---|---:|---:|---:|---:|"
            )
            with stage.superuser() as administrator, Workers(environment) as workers:
                for code in ("plain", "rich"):
                    draft_id = build(administrator, code, tenants=options.tenants)
                    print(f"| {code} | {report(draft_id, workers)} |", flush=True)


def build(administrator: psycopg.Connection, code: str, *, tenants: int) -> int:
    """Make a tier, a tenant of it with three closed months, and copies of that tenant; return the key of a draft that asks for more."""
    from benchmarks import population
    from subscriptions.services import catalog

    now = datetime.now(tz=UTC)
    began = now - timedelta(days=DAYS)
    charges = {"plain": population.usual_charges, "rich": _pools}[code]
    meters = {f"{code}-{number}": f"{code}.{number}" for number in "12"}
    version = population.publish(code, meters=meters, now=began, charges=charges(meters, included=10_000))
    tenant = population.subscribe(code, version=version, starts_at=began, now=began)
    population.live(tenant, types=meters.values(), quantity=USED, since=began, until=now)
    population.clone(administrator, tenant, copies=tenants - 1)
    administrator.execute("VACUUM (ANALYZE)")
    dearer = population.document(charges(meters, included=9_000), fee="109.00")
    return catalog.create_version(tier=version.tier, actor=population.ACTOR, document=dearer).pk


def report(draft_id: int, workers: Workers) -> str:
    """Run a backtest to its end, and return what it took as cells of the table."""
    from benchmarks import population
    from invoices.models import BacktestRun
    from invoices.services.backtesting import start_backtest
    from subscriptions.models import TierVersion

    began = time.perf_counter()
    draft = TierVersion.objects.get(pk=draft_id)
    run = start_backtest(version=draft, periods=PERIODS, now=datetime.now(tz=UTC), actor=population.ACTOR)
    asking = time.perf_counter() - began
    comparing, _ = workers.timed("benchmarks.backtests:comparing", [()] * PROCESSES)
    run.refresh_from_db()
    assert run.status == BacktestRun.Status.DONE, run.failure
    changed = run.results.exclude(difference=0).filter(periods=PERIODS).count()
    return f"{run.tenants:,} | {asking + comparing:.1f} | {asking:.1f} | {changed:,}"


def comparing() -> Callable[[], int]:
    """Compare what is left to compare, as a worker does."""
    from invoices.services.backtesting import run_backtests

    return run_backtests


if __name__ == "__main__":
    main()
