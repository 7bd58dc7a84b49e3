"""The table at the end of `make faults`, from the results of several runs of pytest."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from billing_site.launcher import BASE_DIR
from tests.faults.report import FOUND, Report


def result(name: str, *properties: tuple[str, object], when: str = "call", failed: bool = False) -> SimpleNamespace:
    return SimpleNamespace(nodeid=name, when=when, failed=failed, user_properties=list(properties))


@pytest.fixture
def printed(tmp_path, monkeypatch):
    """Report some results as one run of pytest each, and return the table of all."""
    file = tmp_path / "found"
    monkeypatch.setenv(FOUND, str(file))

    def printed(*runs: list[SimpleNamespace]) -> list[str]:
        for results in runs:
            report = Report()
            for one in results:
                report.pytest_runtest_logreport(one)
            report.pytest_terminal_summary(None)
        command = [sys.executable, "-m", "tests.faults.report", str(file)]
        completed = subprocess.run(command, cwd=BASE_DIR, env=os.environ, capture_output=True, text=True, check=True)
        return completed.stdout.splitlines()

    return printed


def test_runs_are_summed_over_all_parts_and_the_slowest_recovery_stands(printed):
    killed = "tests/faults/test_any.py::TestKilled::test_kill_9_loses_nothing[5]"
    story = "tests/faults/test_simulator.py::test_a_story_agrees[seed {}]"
    rate = ("operations", 500), ("throughput", "operations/s")
    lines = printed(
        [
            result(killed, ("recovery_seconds", 0.5), ("recovery_seconds", 3.25), ("throughput", "290 events/s")),
            result("tests/faults/test_any.py::test_cuts", ("runs", 500)),
            result("tests/services/test_any.py::test_of_another_room"),
        ],
        [result(story.format(0), *rate, ("seconds", 20)), result(story.format(1), *rate, ("seconds", 30))],
        [result(story.format(2), *rate, ("seconds", 50)), result(story.format(2), when="teardown")],
    )
    assert [line.split() for line in lines] == [
        ["what", "must", "hold", "runs", "violations", "recovery", "s", "throughput"],
        ["kill", "9", "loses", "nothing", "[5]", "2", "0", "3.25", "290", "events/s"],
        ["cuts", "500", "0"],
        ["a", "story", "agrees", "3", "0", "15.0", "operations/s"],
        ["3", "faults,", "0", "violations"],
    ]


def test_what_fails_in_a_test_or_in_the_audit_after_it_is_a_violation(printed):
    name = "tests/faults/test_any.py::test_any"
    lines = printed([result(name, failed=True)], [result(name), result(name, when="teardown", failed=True)])
    assert lines[1].split() == ["any", "2", "2"]
    assert lines[-1] == "1 faults, 2 violations"
