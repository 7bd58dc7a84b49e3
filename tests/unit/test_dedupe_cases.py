"""What other systems do with an event that arrives twice: cases/dedupe.json, as far as identity alone decides it."""

import json
from pathlib import Path

import pytest

from metering.core.identity import digest, fingerprint

CASES = {
    case["id"]: case for case in json.loads((Path(__file__).parent.parent / "cases/dedupe.json").read_text())["cases"]
}
WHOLE_BATCH = "the peer refuses the whole batch for one duplicate; here each event of a batch has a standing of its own"
SKIPPED = {
    "lago-batch-consecutive": WHOLE_BATCH,
    "lago-batch-existing-end": WHOLE_BATCH,
    "lago-batch-three-same": WHOLE_BATCH,
    "lago-clickhouse-timestamp": "the time is content here, never identity: the second event is a conflict",
}
CONFLICTS = {"om-first-wins": "the type is content: the second event is not counted, and reported as a conflict"}


def test_the_tables_name_cases_that_exist():
    assert SKIPPED.keys() | CONFLICTS.keys() <= CASES.keys()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_first_event_of_an_identity_is_kept(case):
    if case["id"] in SKIPPED:
        pytest.skip(SKIPPED[case["id"]])
    given, known = case["given"], {}
    standings_of_existing = [keep_first(event, known) for event in given["existing"]]
    assert standings_of_existing == ["new"] * len(given["existing"])

    standings = [keep_first(event, known) for event in given["batch"]]

    assert standings.count("new") == case["expect"]["stored"]
    not_counted = [index for index, each in enumerate(standings) if each != "new"]
    assert not_counted == case["expect"]["duplicates"]
    expected = "conflict" if case["id"] in CONFLICTS else "duplicate"
    assert {standings[index] for index in not_counted} <= {expected}


@pytest.mark.parametrize("case_id", sorted(SKIPPED))
def test_in_the_skipped_cases_each_event_stands_alone(case_id):
    given, known = CASES[case_id]["given"], {}
    standings = [keep_first(event, known) for event in [*given["existing"], *given["batch"]]]
    ours = {
        "lago-batch-consecutive": ["new", "duplicate"],
        "lago-batch-existing-end": ["new", "new", "new", "new", "new", "duplicate"],
        "lago-batch-three-same": ["new", "duplicate", "duplicate"],
        "lago-clickhouse-timestamp": ["new", "conflict"],
    }
    assert standings == ours[case_id]


def keep_first(event, known):
    """Say what becomes of an event beside the known ones, and make a new one known."""
    event_id = next(event[name] for name in ("id", "transaction_id", "external_id") if name in event)
    key = digest(event.get("source", "default"), event_id)
    content = fingerprint(event.get("type", "usage"), {"timestamp": event.get("timestamp")}, None)
    if key not in known:
        known[key] = content
        return "new"
    return "duplicate" if known[key] == content else "conflict"
