"""Where periods start and end in other billing systems: cases/periods.json, none of them skipped."""

import json
from calendar import monthrange
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest

from subscriptions.core.periods import (
    Alignment,
    Anchor,
    Cadence,
    Interval,
    first_period,
    index_of,
    local_day,
    next_period,
    nth_boundary,
    nth_period,
    resolve_wall,
)

CASES = json.loads((Path(__file__).parent.parent / "cases" / "periods.json").read_text())["cases"]


def instant(text):
    """Plain dates, which some systems bill by, are midnights in UTC here."""
    if text.endswith("Z"):
        return datetime.fromisoformat(text)
    return datetime.combine(date.fromisoformat(text), time.min, tzinfo=UTC)


def local_midnight(moment, zone):
    return datetime.combine(local_day(moment, zone), time.min)


def anchor_of(given):
    zone = given["tz"] or "UTC"
    if given["align"] == "billing_day":
        start = date.fromisoformat(given["start"])
        billing_day = min(given["billing_day"], monthrange(start.year, start.month)[1])
        return Anchor(datetime(start.year, start.month, billing_day), zone)
    moment = instant(given.get("anchor") or given.get("started_at") or given["at"])
    if given.get("anchor_floor") == "day":
        return Anchor(local_midnight(moment, zone), zone)
    return Anchor.at(moment, zone)


def cadence_of(given):
    alignment = Alignment.CALENDAR if given["align"] == "calendar" else Alignment.ANNIVERSARY
    return Cadence(Interval(given["interval"]), given.get("count", 1), alignment)


def run_until(anchor, cadence, starts_at, at):
    """The periods of a subscription that starts at `starts_at`, up to the one that contains `at`."""
    periods = [first_period(anchor, cadence, starts_at)]
    while at not in periods[-1]:
        periods.append(next_period(anchor, cadence, periods[-1].ends_at))
    return periods


def answer(given):
    anchor, cadence = anchor_of(given), cadence_of(given)
    if given["ask"] == "boundary_n":
        return {"boundary": nth_boundary(anchor, cadence, given["n"])}

    at = instant(given["at"])
    if given["ask"] == "next_boundary":
        return {"boundary": next_period(anchor, cadence, at).ends_at}

    steps_back = {"containing": 0, "previous": 1}[given["ask"]]
    starts_at = instant(given["start"]) if "start" in given else None
    if "started_at" in given:
        assert given["clamp"] == "day"
        starts_at = resolve_wall(local_midnight(instant(given["started_at"]), anchor.zone), anchor.zone)
    if starts_at:
        period = run_until(anchor, cadence, starts_at, at)[-1 - steps_back]
    else:
        period = nth_period(anchor, cadence, index_of(anchor, cadence, at) - steps_back)
    return {"start": period.starts_at, "end": period.ends_at}


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_periods_are_those_of_other_systems(case):
    expected = {name: instant(text) for name, text in case.get("expect_ours", case["expect"]).items()}

    answered = answer(case["given"])

    assert {name: answered[name] for name in expected} == expected
