"""Rounding figures of other billing systems: the kinds of cases/invoices.json that concern `money.quantize`."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from subscriptions.core import money

CASES = json.loads((Path(__file__).parent.parent / "cases" / "invoices.json").read_text())["cases"]
CURRENCY_BY_PLACES = {0: "JPY", 2: "USD", 3: "KWD"}

SKIPPED = {
    **dict.fromkeys(
        [
            "lago-coupon-first-covers",
            "lago-coupon-two-fixed",
            "lago-coupon-two-pct",
            "lago-coupon-scoped-mixed",
            "lago-coupon-spread-remaining",
            "lago-coupon-state-2",
            "lago-coupon-state-3",
            "lago-coupon-state-4",
            "lago-coupon-state-5",
            "lago-coupon-state-6",
        ],
        "coupons have no door yet",
    ),
    **dict.fromkeys(
        [
            "lago-tax-two-subs-covered",
            "lago-tax-two-rates",
            "lago-tax-coupon-breakdown",
            "fx-tax-1",
            "fx-tax-2",
            "fx-tax-4",
            "fx-tax-5",
            "fx-tax-6",
            "fx-tax-7",
            "fx-tax-10",
            "fx-tax-11",
            "fx-tax-12",
            "fx-tax-13",
            "fx-tax-two",
            "me-tax-customer",
            "me-tax-line-override",
            "me-tax-regional",
            "me-tax-groups",
            "me-tax-round-down",
            "me-tax-exempt",
        ],
        "taxes have no door yet",
    ),
    **dict.fromkeys(
        [
            "lago-cn-20000x29/30",
            "lago-cn-2999x6/7",
            "lago-cn-72686",
            "lago-cn-4214",
            "lago-cn-upg-2",
            "lago-settle-term-refunded",
            "lago-settle-term-skip",
            "lago-settle-term-sameday",
            "lago-termination-refund",
        ],
        "credit notes and refunds have no door yet",
    ),
}


def exact_amounts(given):
    if "items" in given:
        return [Decimal(item["quantity"]) * Decimal(item["unit_price"]) for item in given["items"]]
    return [Decimal(value) for value in given.get("values", [given.get("value")])]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_amounts_round_as_other_systems_round_them(case):
    if case["id"] in SKIPPED:
        pytest.skip(SKIPPED[case["id"]])
    given, expected = case["given"], case.get("expect_ours", case["expect"])
    currency = CURRENCY_BY_PLACES[given["places"]]

    rounded = [money.quantize(amount, currency) for amount in exact_amounts(given)]

    assert str(sum(rounded)) == expected[{"round": "rounded", "sum_rounded": "sum"}[given["kind"]]]


def test_every_skipped_case_exists_and_no_rounding_case_is_skipped():
    kinds = {case["id"]: case["given"]["kind"] for case in CASES}
    assert not {kinds[case_id] for case_id in SKIPPED} & {"round", "sum_rounded"}
