"""Prorated figures of other billing systems: cases/proration.json."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from subscriptions.core import money
from subscriptions.core.periods import Period
from subscriptions.core.proration import (
    Grain,
    Share,
    credit_for,
    prorate,
    prorate_precise,
    prorated_allowance,
    remaining_share,
    share_of,
)

FAMILY = json.loads((Path(__file__).parent.parent / "cases" / "proration.json").read_text())
CASES = FAMILY["cases"]
CURRENCY_BY_PLACES = {0: "JPY", 2: "USD"}

SKIPPED = {
    "fx-cap-5": "Flexprice's negative potential credit, which it cuts to nothing; here a share below nothing is refused",
    "me-one-time": "Meteroid's one-time fees, charged in full on whatever day; here a tier has one fee, and it recurs",
}


def instant(text):
    if text.endswith("Z"):
        return datetime.fromisoformat(text)
    return datetime.combine(date.fromisoformat(text), time.min, tzinfo=UTC)


def period_of(given):
    return Period(instant(given["period_start"]), instant(given["period_end"]))


def currency_of(given):
    assert given["rounding"]["mode"] == "half_up"
    return CURRENCY_BY_PLACES[given["rounding"]["places"]]


def part(given, used_from, used_until):
    return share_of(instant(used_from), instant(used_until), period_of(given), grain=Grain(given["unit"]), zone="UTC")


def remaining(given):
    return remaining_share(period_of(given), instant(given["change_at"]), grain=Grain(given["unit"]), zone="UTC")


def partial(given):
    return rounded_part(given, part(given, given["used_start"], given["used_end"]))


def trial(given):
    """After a trial that ends within a calendar period, the first paid period is a stub."""
    return rounded_part(given, part(given, given["trial_end"], given["period_end"]))


def rounded_part(given, share):
    amount = Decimal(given["amount"])
    answered = {"factor": share.fraction, "exact": prorate_precise(amount, share)}
    if given["rounding"] is None:
        return answered
    if given["rounding"]["places"] == 8:  # units of credit, not money
        return answered | {"amount": prorated_allowance([(amount, share)], precision=8)}
    return answered | {"amount": prorate(amount, share, currency=currency_of(given))}


def plan_change(given):
    share, currency = remaining(given), currency_of(given)
    paid = Decimal(given.get("paid", given["old_amount"]))
    credit = credit_for(charged=paid, share=share, already_credited=Decimal(0), currency=currency)
    new_share = Share(1, 1) if given.get("new_full") else share
    charge = prorate(Decimal(given["new_amount"]), new_share, currency=currency)
    return {"credit": credit, "charge": charge, "net": credit + charge}


def multi_change(given):
    """Split a fixed discount over the fees of the old and of the new tier, then credit the one and charge the other."""
    share, currency = remaining(given), currency_of(given)
    answered = []
    for side in ("old", "new"):
        lines = [line for line in given["lines"] if line["share_of"] == side]
        amounts = [Decimal(line["amount"]) for line in lines]
        discounts = money.allocate(Decimal(given["fixed_discount"]), amounts, currency=currency)
        for line, amount, discount in zip(lines, amounts, discounts, strict=True):
            fee = amount - discount
            if line["sign"] < 0:
                answered.append(credit_for(charged=fee, share=share, already_credited=Decimal(0), currency=currency))
            else:
                answered.append(prorate(fee, share, currency=currency))
    return {"lines": answered, "net": sum(answered)}


def commitment(given):
    """The prorated minimum is ours; what fees leave of it is a top-up, which rating computes."""
    share = part(given, given["used_start"], given["used_end"])
    minimum = prorate(Decimal(given["minimum"]), share, currency=currency_of(given))
    return {"true_up": max(minimum - sum(Decimal(fee) for fee in given["fees"]), Decimal(0))}


def cap_credit(given):
    paid, potential = Decimal(given["paid"]), Decimal(given["potential"])
    share = Share(int(potential), int(paid)) if paid else Share(1, 1)
    credit = credit_for(charged=paid, share=share, already_credited=Decimal(given["already_credited"]), currency="USD")
    return {"credit": abs(credit)}


ANSWERS = {
    "partial": partial,
    "trial": trial,
    "plan_change": plan_change,
    "multi_change": multi_change,
    "commitment": commitment,
    "cap_credit": cap_credit,
}


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_shares_of_fees_are_those_of_other_systems(case):
    if case["id"] in SKIPPED:
        pytest.skip(SKIPPED[case["id"]])
    expected = dict(case.get("expect_ours", case["expect"]))

    answered = ANSWERS[case["given"]["kind"]](case["given"])

    if "exact" in expected:  # printed by its source from a binary float
        assert abs(answered["exact"] - Fraction(expected.pop("exact"))) < Fraction(1, 10**10)
    if "factor" in expected:
        assert answered["factor"] == Fraction(expected.pop("factor"))
    if "lines" in expected:
        assert answered["lines"] == [Decimal(line) for line in expected.pop("lines")]
    assert {name: answered[name] for name in expected} == {name: Decimal(figure) for name, figure in expected.items()}


def test_every_skipped_case_exists_and_names_whose_convention_it_needs():
    assert set(SKIPPED) <= {case["id"] for case in CASES}
    systems = {system for names in FAMILY["conventions"] for system in names.split(" / ")} - {"adopt"}
    assert all(reason.split("'s ")[0] in systems for reason in SKIPPED.values())
