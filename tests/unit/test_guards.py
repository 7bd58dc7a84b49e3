"""Which figures of a backtest break which guard."""

from decimal import Decimal

import pytest

from subscriptions.core.guards import Figures, Limits, breaches, worst

INFINITE = Decimal("Infinity")


def figures(rise, change):
    return Figures(
        largest_rise_percent=None if rise is None else Decimal(rise),
        revenue_change_percent=None if change is None else Decimal(change),
    )


@pytest.mark.parametrize(
    ("rise", "is_broken"),
    [
        (None, False),
        ("-5", False),
        ("20", False),
        ("20.0000000001", True),
        ("Infinity", True),
    ],
)
def test_a_rise_up_to_the_limit_is_within_it(rise, is_broken):
    found = breaches(Limits(rise_percent_max=Decimal(20)), figures(rise, "-100"))
    assert [one.guard for one in found] == ["rise_percent_max"] * is_broken


@pytest.mark.parametrize(
    ("change", "is_broken"), [(None, False), ("7", False), ("0", False), ("-2", False), ("-2.0000000001", True)]
)
def test_a_fall_down_to_the_limit_is_within_it(change, is_broken):
    found = breaches(Limits(revenue_fall_percent_max=Decimal(2)), figures("Infinity", change))
    assert [one.guard for one in found] == ["revenue_fall_percent_max"] * is_broken


def test_a_limit_of_nothing_lets_nothing_rise_or_fall():
    limits = Limits(rise_percent_max=Decimal(0), revenue_fall_percent_max=Decimal(0))
    assert breaches(limits, figures("0", "0")) == []
    assert [one.guard for one in breaches(limits, figures("0.1", "-0.1"))] == [
        "rise_percent_max",
        "revenue_fall_percent_max",
    ]


def test_both_are_told_in_sentences():
    limits = Limits(rise_percent_max=Decimal("20.00"), revenue_fall_percent_max=Decimal("2.50"))
    assert [one.message for one in breaches(limits, figures("25.001", "-3"))] == [
        "A customer would pay 25.01 % more; more than 20 % is not meant to be.",
        "Revenue would fall by 3 %; more than 2.5 % is not meant to be.",
    ]
    [of_nothing, _] = breaches(limits, figures("Infinity", "-3"))
    assert (
        of_nothing.message == "A customer would pay something who pays nothing now; more than 20 % is not meant to be."
    )


def test_without_limits_nothing_is_broken():
    assert not Limits()
    assert breaches(Limits(), figures("Infinity", "-100")) == []
    assert Limits(rise_percent_max=Decimal(0))


def test_of_several_backtests_the_worst_of_each_kind_counts():
    assert worst([figures("5", "-1"), figures("30", "4"), figures(None, None)]) == figures("30", "-1")
    assert worst([figures("5", "1"), figures("Infinity", "2")]).largest_rise_percent == INFINITE
    assert worst([]) == figures(None, None)
