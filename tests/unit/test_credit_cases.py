"""How other systems burn credits: cases/credits.json, with recurrences written as the successive grants that they are here."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from metering.core.burndown import Grant, GrantKind, walk
from metering.core.segments import VersionSpan, cut, segment_at
from subscriptions.core.periods import Period

CASES = {
    case["id"]: case for case in json.loads((Path(__file__).parent.parent / "cases/credits.json").read_text())["cases"]
}
ROLLOVER = "what is left moves into a grant of the next period at closing: tests/services/test_rollover.py"
SKIPPED = {"om-reset-max": ROLLOVER, "om-reset-at-end": ROLLOVER}
EVERY = {"day": timedelta(days=1), "week": timedelta(days=7)}


def of_kind(kind):
    chosen = [case for case in CASES.values() if case["given"]["kind"] == kind]
    return pytest.mark.parametrize("case", chosen, ids=[case["id"] for case in chosen])


def test_every_case_is_of_a_kind_that_is_tested_here():
    assert {case["given"]["kind"] for case in CASES.values()} == {"burndown", "active", "effective_period"}
    assert SKIPPED.keys() <= CASES.keys()


@of_kind("burndown")
def test_grants_burn_as_elsewhere(case):
    if case["id"] in SKIPPED:
        pytest.skip(SKIPPED[case["id"]])
    given, expected = case["given"], case.get("expect_ours") or case["expect"]
    period = Period(instant(given["from"]), instant(given["until"]))
    grants = [grant for document in given["grants"] for grant in successive_grants(document, given)]
    segments = cut(period, [VersionSpan("v1", period.starts_at)], grants)
    totals = {segment.starts_at: Decimal(0) for segment in segments}
    for usage in given["usage"]:
        totals[segment_at(segments, instant(usage["at"])).starts_at] += Decimal(usage["amount"])

    position = walk(totals.items(), grants)

    in_force = {grant.id: position.remaining[grant.id] for grant in grants if grant.covers(period.ends_at)}
    balances = {
        document["id"]: sum(left for grant_id, left in in_force.items() if grant_id.split("#")[0] == document["id"])
        for document in given["grants"]
    }
    assert balances == {grant_id: Decimal(balance) for grant_id, balance in expected["balances"].items()}
    assert position.overage == Decimal(expected["overage"])


@of_kind("active")
def test_a_grant_is_active_from_its_start_until_just_before_its_end(case):
    given = case["given"]
    assert grant_of(given).covers(instant(given["at"])) is case["expect"]["active"]


@of_kind("effective_period")
def test_a_grant_is_effective_until_the_first_of_its_ends(case):
    given = case["given"]
    # To delete a grant is to void it here.
    grant = grant_of({**given, "voided_at": given["voided_at"] or given["deleted_at"]})
    assert grant.effective_at == instant(case["expect"]["from"])
    assert grant.ends_at == instant(case["expect"]["to"])


def successive_grants(document, given):
    """A recurrence tops the grant up to full: what is left is lost, and a new grant of the whole amount begins."""
    whole = grant_of(document)
    starts_before = whole.effective_at <= instant(given["from"])
    first_quantity = Decimal(given["start"][document["id"]] if starts_before else document["amount"])
    starts = [whole.effective_at]
    if "recurrence" in document:
        at, until = instant(document["recurrence"]["anchor"]), instant(given["until"])
        while at <= until:
            starts += [at] if at > whole.effective_at else []
            at += EVERY[document["recurrence"]["interval"]]
    ends = [*starts[1:], whole.expires_at]
    return [
        grant_of(
            {**document, "effective_at": start.isoformat(), "expires_at": end.isoformat()},
            grant_id=f"{document['id']}#{number}",
            quantity=Decimal(document["amount"]) if number else first_quantity,
        )
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def grant_of(document, *, grant_id="grant", quantity=Decimal(1)):
    return Grant(
        id=grant_id,
        quantity=quantity,
        priority=document.get("priority", 0),
        effective_at=instant(document["effective_at"]),
        expires_at=instant(document.get("expires_at")),
        voided_at=instant(document.get("voided_at")),
        kind=GrantKind.PROMOTIONAL,
        created_at=instant(document["effective_at"]),
    )


def instant(text):
    return None if text is None else datetime.fromisoformat(text)
