"""
`make bench`: ingestion against a floor and a naive baseline, in one run, on servers of its own.

Each row is the median of interleaved rounds. Only ratios count: absolute figures depend on the neighbours. The servers are durable (fsync on),
as in production. Prints a table and writes it to `benchmarks/results.md`.
"""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROUNDS = 5
BATCH = 1000
SINGLES = 200
HOT = 400
THREADS = 64


def main() -> None:
    """Start the servers, measure, and write the table."""
    from billing_site.embedded import servers

    with tempfile.TemporaryDirectory(prefix="tierbook-bench-") as directory:
        data_dir = Path(directory)
        data_dir.chmod(0o711)
        with servers(data_dir) as running:
            os.environ.update(
                DATABASE_URL=running.database_url,
                REDIS_URL=running.redis_url,
                SECRET_KEY=running.secret_key,
                DJANGO_SETTINGS_MODULE="billing_site.settings",
                ENV_FILE="",
                LOG_LEVEL="ERROR",
            )
            table = _measure()
    print(table)
    (Path(__file__).parent / "results.md").write_text(table)


def _measure() -> str:
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from benchmarks.paths import Bench

    bench = Bench()
    rates: dict[str, list[float]] = {}

    def timed(name: str, events: int, action: Callable[[], None]) -> None:
        started = time.perf_counter()
        action()
        rates.setdefault(name, []).append(events / (time.perf_counter() - started))

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(ROUNDS + 1):
            for name, size in (("batch 1000", BATCH), ("batch 100", 100)):
                timed(f"{name}: floor (unnest)", size, bench.floor(size))
                timed(f"{name}: full path", size, bench.full_path(size))
            timed("batch 1000: naive", BATCH // 5, bench.naive(BATCH // 5))
            timed("single: full path", SINGLES, bench.singles(SINGLES))
            timed("single: naive", SINGLES, bench.naive(SINGLES))
            timed("hot tenant, 64 at once: group commit", HOT, bench.hot(HOT, threads))
            timed("hot tenant, 64 at once: naive", HOT // 2, bench.hot_naive(HOT // 2, threads))
    medians = {name: statistics.median(found[1:]) for name, found in rates.items()}  # the first round warms up
    return _table(medians)


def _table(medians: dict[str, float]) -> str:
    compared = [
        ("batch 1000: full path", "batch 1000: floor (unnest)"),
        ("batch 1000: full path", "batch 1000: naive"),
        ("batch 100: full path", "batch 100: floor (unnest)"),
        ("single: full path", "single: naive"),
        ("hot tenant, 64 at once: group commit", "hot tenant, 64 at once: naive"),
    ]
    lines = [
        "# Ingestion, measured",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}.",
    ]
    lines += ["", "| path | against | ratio | events/s | events/s |", "|---|---|---|---|---|"]
    for ours, theirs in compared:
        ratio = medians[ours] / medians[theirs]
        lines.append(f"| {ours} | {theirs} | {ratio:.2f} | {medians[ours]:,.0f} | {medians[theirs]:,.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
