"""All tenants' bills together: ranks, percentages that never flatter, and bins, on worked figures and as laws."""

import doctest
from decimal import Decimal
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoices.core import comparison
from invoices.core.comparison import BINS, Bill, Direction, change_percent, compare

cents = st.integers(-(10**9), 10**9).map(lambda units: Decimal(units) / 100)
bills = st.lists(st.builds(Bill, cents, cents), max_size=40)


def bill(before, after):
    return Bill(Decimal(before), Decimal(after))


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(comparison).failed == 0


def test_all_figures_of_ten_bills():
    differences = (-50, -3, 0, 0, 1, 2, 3, 4, 12, 500)
    found = compare([bill(100, 100 + difference) for difference in differences], "USD")
    assert (found.before, found.after, found.difference) == (Decimal(1000), Decimal(1469), Decimal(469))
    assert (found.tenants, found.rises, found.falls) == (10, 6, 2)
    assert (found.p50, found.p95, found.worst) == (Decimal(1), Decimal(500), Decimal(500))
    assert (found.largest_rise_percent, found.change_percent) == (Decimal(500), Decimal("46.9"))
    shown = [(one.direction.value, f"{one.over}", f"{one.up_to}", one.tenants) for one in found.bins]
    assert shown == [
        ("fall", "0.00", "100.00", 2),
        ("same", "0", "0", 2),
        ("rise", "0.00", "100.00", 5),
        ("rise", "100.00", "200.00", 0),
        ("rise", "200.00", "300.00", 0),
        ("rise", "300.00", "400.00", 0),
        ("rise", "400.00", "500.00", 1),
    ]


def test_what_lies_far_beyond_nearly_all_others_is_in_the_last_bin():
    found = compare([*[bill(0, 6)] * 99, bill(0, 1_000_000)], "JPY")
    last = found.bins[-1]
    assert (last.direction, last.over, last.up_to, last.tenants) == (Direction.RISE, Decimal(6), None, 1)


def test_nobody_has_no_figures():
    found = compare([], "USD")
    assert (found.tenants, found.worst, found.largest_rise_percent, found.change_percent, found.bins) == (
        0,
        None,
        None,
        None,
        (),
    )


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        ("0", "0", "0"),
        ("0", "0.01", "Infinity"),
        ("-5", "0", "Infinity"),
        ("0", "-1", "-100"),
        ("100", "120", "20"),
        ("100", "0", "-100"),
        ("3", "3.01", "0.3334"),
    ],
)
def test_a_rise_is_a_share_of_what_was_rounded_up(before, after, percent):
    assert change_percent(Decimal(before), Decimal(after), rounded=ceil) == Decimal(percent)


def test_a_rise_just_over_a_guard_does_not_look_like_one_that_meets_it():
    just_over = change_percent(Decimal("1000000"), Decimal("1200000.01"), rounded=ceil)
    just_under = change_percent(Decimal("1000000"), Decimal("979999.99"), rounded=floor)
    assert just_over > 20
    assert just_under < -2


@given(bills=bills)
def test_every_bill_is_in_one_bin_and_the_bins_lie_in_order_without_gaps(bills):
    found = compare(bills, "USD")
    assert sum(one.tenants for one in found.bins) == len(bills)
    rises = [one for one in found.bins if one.direction == Direction.RISE]
    falls = [one for one in reversed(found.bins) if one.direction == Direction.FALL]
    assert sum(one.tenants for one in rises) == found.rises
    assert sum(one.tenants for one in falls) == found.falls
    for side in (rises, falls):
        assert len(side) <= BINS + 1
        assert [one.over for one in side[1:]] == [one.up_to for one in side[:-1]]
        assert not side or (side[0].over == 0 and side[-1].tenants > 0)


@given(bills=bills.filter(bool))
def test_sums_and_ranks_are_those_of_the_bills(bills):
    found = compare(bills, "USD")
    differences = [one.after - one.before for one in bills]
    assert found.difference == sum(differences) == found.after - found.before
    assert found.worst == max(differences)
    assert sum(one <= found.p50 for one in differences) * 2 >= len(bills)
    assert found.p50 <= found.p95 <= found.worst
