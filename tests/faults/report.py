"""
What the long forms found, as one table: per fault its runs, violations, slowest recovery and throughput.

A fault is a test; its name says what must hold. A test tells its figures by pytest's own `record_property`: "runs" (how often the fault
was brought about; else once, or as often as there was a recovery), "recovery_seconds" (from the fault until the next success),
"throughput" (a text with its unit), and, where many runs share a line, "operations" and "seconds".

`make faults` runs several pytests: with `FAULTS_FOUND` each appends what it found to that file instead of printing it, and
`python -m tests.faults.report FILE` prints all of it.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

ROOM = "tests/faults/"
FOUND = "FAULTS_FOUND"


@dataclass
class Fault:
    runs: int = 0
    violations: int = 0
    recovery_seconds: float | None = None
    throughput: str = ""
    operations: int = 0
    seconds: float = 0

    def add(self, other: "Fault") -> None:
        """Take another run of the same fault in."""
        self.runs += other.runs
        self.violations += other.violations
        recoveries = [each for each in (self.recovery_seconds, other.recovery_seconds) if each is not None]
        self.recovery_seconds = max(recoveries, default=None)
        self.throughput = other.throughput or self.throughput
        self.operations += other.operations
        self.seconds += other.seconds

    def line(self, name: str) -> str:
        recovery = "" if self.recovery_seconds is None else f"{self.recovery_seconds:.2f}"
        rate = f"{self.operations / self.seconds:.1f} " if self.seconds else ""
        return f"{name:<92.92} {self.runs:>6} {self.violations:>10} {recovery:>10}  {rate}{self.throughput}"


def table(found: Iterable[tuple[str, Fault]]) -> Iterator[str]:
    """Yield a line for each fault, whose runs are summed; a title before, and the sum of the violations after."""
    faults: dict[str, Fault] = {}
    for name, fault in found:
        faults.setdefault(name, Fault()).add(fault)
    yield f"{'what must hold':<92} {'runs':>6} {'violations':>10} {'recovery s':>10}  throughput"
    yield from (fault.line(name) for name, fault in faults.items())
    yield f"{len(faults)} faults, {sum(fault.violations for fault in faults.values())} violations"


class Report:
    """A plugin that listens to the tests' results."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Fault]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.nodeid.startswith(ROOM) or not (report.when == "call" or report.failed):
            return
        fault = Fault(violations=int(report.failed))
        if report.when == "call":
            recoveries = [float(value) for key, value in report.user_properties if key == "recovery_seconds"]
            told = dict(report.user_properties)
            fault.runs = int(told.get("runs", len(recoveries) or 1))
            fault.recovery_seconds = max(recoveries, default=None)
            fault.throughput = str(told.get("throughput", ""))
            fault.operations, fault.seconds = int(told.get("operations", 0)), float(told.get("seconds", 0))
        self.found.append((_name(report.nodeid), fault))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if path := os.environ.get(FOUND):
            lines = "".join(json.dumps([name, asdict(fault)]) + "\n" for name, fault in self.found)
            with open(path, "ab", buffering=0) as file:  # in one write: others append to it, too
                file.write(lines.encode())
            return
        terminalreporter.section("what must hold under faults")
        for line in table(self.found):
            terminalreporter.line(line)


def _name(nodeid: str) -> str:
    """Return a test's name as a sentence, with its parameters; stories differ in their seed alone and are one fault."""
    name = re.sub(r"\[seed \d+\]$", "", nodeid.rpartition("::")[2])
    return name.removeprefix("test_").replace("_", " ").replace("[", " [")


def _read(path: Path) -> Iterator[tuple[str, Fault]]:
    for line in path.read_text().splitlines():
        name, fault = json.loads(line)
        yield name, Fault(**fault)


if __name__ == "__main__":
    print("\n".join(table(_read(Path(sys.argv[1])))))
