"""
What the long forms found, as one table at the end of the run: per fault its runs, violations, slowest recovery and throughput.

A fault is a test; its name says what must hold. A test tells its figures by pytest's own `record_property`: "recovery_seconds" (from the
fault until the next success) and "throughput" (a text with its unit).
"""

from dataclasses import dataclass, field

import pytest

ROOM = "tests/faults/"


@dataclass
class Fault:
    runs: int = 0
    violations: int = 0
    recoveries: list[float] = field(default_factory=list)
    throughput: str = ""

    def line(self, name: str) -> str:
        recovery = f"{max(self.recoveries):.2f}" if self.recoveries else ""
        return f"{name:<88.88} {self.runs:>5} {self.violations:>10} {recovery:>10}  {self.throughput}"


class Report:
    """A plugin that listens to the tests' results."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.nodeid.startswith(ROOM) or not (report.when == "call" or report.failed):
            return
        name = report.nodeid.rpartition("::")[2].partition("[")[0].removeprefix("test_").replace("_", " ")
        fault = self.faults.setdefault(name, Fault())
        fault.runs += report.when == "call"
        fault.violations += report.failed
        for key, value in report.user_properties:
            if key == "recovery_seconds":
                fault.recoveries.append(float(value))
            elif key == "throughput":
                fault.throughput = str(value)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("what must hold under faults")
        terminalreporter.line(f"{'fault':<88} {'runs':>5} {'violations':>10} {'recovery s':>10}  throughput")
        for name, fault in self.faults.items():
            terminalreporter.line(fault.line(name))
