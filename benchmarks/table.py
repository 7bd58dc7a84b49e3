"""Prints what was measured: the table of ratios with gates and aims, and each path by itself."""

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.client import BROKEN, MISSING, UNANSWERED
from benchmarks.rounds import Path, ratio
from benchmarks.scenarios import Row, Wanted

MEMORY_GATE_MB, MEMORY_AIM_MB = 200, 120
_NAMES = {BROKEN: "broken", UNANSWERED: "unanswered", MISSING: "missing"}


def document(
    *,
    facts: Mapping[str, str],
    rows: Sequence[Row],
    paths: Mapping[str, Path],
    memory: Sequence[int],
    notes: Iterable[str],
    seconds: float,
) -> str:
    """Return the whole page, as Markdown."""
    parts = [
        "# Measured",
        "Written by `make bench`. Only ratios count: each is the median over interleaved rounds of one run, and absolute figures depend on the"
        " machine and its neighbours. † marks a figure in which an answer was not the expected one.",
        "\n".join(f"- {name}: {value}" for name, value in facts.items()),
        f"{ratios(rows, paths)}\n{resident(memory)}",
        each_path(paths.values()),
        "\n".join(f"- {note}" for note in notes),
        f"The run took {seconds:,.0f} seconds.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def ratios(rows: Sequence[Row], paths: Mapping[str, Path]) -> str:
    """Return the table of ratios."""
    lines = [
        "| figure | ratio | gate | aim | reached | events/s | against |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    for row in rows:
        ours, theirs = paths[row.ours], paths[row.theirs]
        found = ratio(ours, theirs)
        gate, aim = row.wanted or (None, None)
        mark = "†" if ours.errors or theirs.errors else ""
        lines.append(
            f"| {row.title} | {_short(found)}{mark} | {_short(gate)} | {_short(aim)} | {_reached(found, row.wanted)} |"
            f" {ours.rate:,.0f} | {theirs.rate:,.0f} |"
        )
    return "\n".join(lines)


def resident(memory: Sequence[int]) -> str:
    """Return the row of the largest web process; it is the one figure that is no ratio."""
    megabytes = max(memory, default=0) / 1e6
    reached = "aim" if megabytes <= MEMORY_AIM_MB else "gate" if megabytes <= MEMORY_GATE_MB else "**missed**"
    return f"| resident memory of a web process after the run, MB | {megabytes:.0f} | {MEMORY_GATE_MB} | {MEMORY_AIM_MB} | {reached} | | |"


def each_path(paths: Iterable[Path]) -> str:
    """Return the table of paths: rate, latency, CPU per event, and what went wrong."""
    lines = [
        "| path | events/s | p50 ms | p95 ms | p99 ms | web µs | PostgreSQL µs | Redis µs | unexpected answers |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for path in paths:
        latencies = " | ".join(_milliseconds(path.latency(share)) for share in (0.5, 0.95, 0.99))
        cpu = " | ".join(f"{path.cpu_per_event(server) * 1e6:,.0f}" for server in ("web", "postgres", "redis"))
        errors = ", ".join(f"{number} × {_NAMES.get(status, status)}" for status, number in path.errors.items())
        lines.append(f"| {path.name} | {path.rate:,.0f} | {latencies} | {cpu} | {errors} |")
    return (
        "CPU is each server's time per event, user and system, over all of its processes; for paths without HTTP, web stands for the processes that write.\n\n"
        + "\n".join(lines)
    )


def _reached(found: float, wanted: Wanted) -> str:
    if wanted is None:
        return ""
    gate, aim = wanted
    return "aim" if found >= aim else "gate" if found >= gate else "**missed**"


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}" if number < 10 else f"{number:.0f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:,.1f}"
