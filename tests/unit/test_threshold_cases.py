"""Thresholds in other systems: cases/thresholds.json. A position is reached from the one before, and what was told stays told."""

import doctest
import json
from fractions import Fraction
from pathlib import Path

import pytest

from metering.core import thresholds as core
from metering.core.thresholds import Position, reached, threshold_of

CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent.parent / "cases/thresholds.json").read_text())["cases"]
}
STEPS = "Lago's recurring thresholds fire again at every further step of an amount; here a threshold lies at one figure"


def needs_steps(given):
    """Whether a recurring threshold has a part in the answer: it is the only one, the next one, or its first step is reached."""
    if given["recurring"] is None:
        return False
    if not given["fixed"] or given["kind"] == "next":
        return True
    comes_to = given["value"] if "value" in given else given["historical"] + given["invoiced"] + given["current"]
    return comes_to >= given["fixed"][-1] + given["recurring"]


SKIPPED = {case_id: STEPS for case_id, case in CASES.items() if needs_steps(case["given"])}


def step(thresholds, amount, told):
    """Return the values of the thresholds that are told of at this amount, and note them."""
    new = [one.threshold for one in reached(thresholds, Position(amount=Fraction(amount))) if one.threshold not in told]
    told.update(new)
    return [int(threshold.value) for threshold in new]


def of_life(values):
    return [threshold_of({"amount": str(value), "once": "life"}) for value in values]


def test_the_examples_of_the_core_are_true():
    assert doctest.testmod(core).failed == 0


def test_every_kind_of_case_is_known():
    assert {case["given"]["kind"] for case in CASES.values()} == {"passed", "next", "progressive", "alert"}


def test_exactly_the_cases_of_recurring_thresholds_are_skipped():
    assert len(SKIPPED) == 16


@pytest.mark.parametrize("case_id", sorted(CASES))
def test_thresholds_are_reached_as_elsewhere(case_id):
    if case_id in SKIPPED:
        pytest.skip(SKIPPED[case_id])
    given, expected = CASES[case_id]["given"], CASES[case_id]["expect"]
    told: set = set()
    if given["kind"] == "passed":
        before = given["historical"] + given["invoiced"] + given["billed_by_threshold"]
        thresholds = of_life(given["fixed"])
        step(thresholds, before, told)
        after = given["historical"] + given["invoiced"] + given["current"]
        assert step(thresholds, after, told) == expected["passed"]
    elif given["kind"] == "alert":
        thresholds = of_life(given["fixed"])
        step(thresholds, given["previous"], told)
        assert step(thresholds, given["value"], told) == expected["crossed"]
    elif given["kind"] == "next":
        passed = step(of_life(given["fixed"]), given["usage"], told)
        to_come = set(given["fixed"]) - set(passed)
        assert (max(passed), min(to_come, default=None)) == (expected["last"], expected["next"])
    else:
        # By Lago's progressive billing a crossing bills all usage at once, and the period's invoice credits it; here it is only told, so
        # the crossings are the same, and there are no amounts billed, credited or left to compare.
        thresholds = of_life(given["fixed"])
        used = 0
        for period, outcome in zip(given["periods"], expected["periods"], strict=True):
            for added, billed in zip(period["adds"], outcome["threshold_invoices"], strict=True):
                used += added
                assert bool(step(thresholds, used, told)) == bool(billed)
