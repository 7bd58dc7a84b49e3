"""What customers ask about leaving, pausing and coming back: Growth, $99 with 10,000 tokens a month since 1 June."""

import pytest

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def customer(tell):
    """A customer on Growth since 1 June."""
    story = tell("2026-06-01")
    story.offer("growth", "99.00", "10000")
    story.offer("scale", "499.00", "100000")
    story.subscribe("growth")
    return story


def test_i_left_and_some_of_my_usage_came_in_later(customer):
    customer.use(8_000)
    customer.on("2026-06-15 10:00")
    customer.do("cancel", when="now")
    assert (customer.status(), customer.may_use(1)) == ("ended", "deny")
    customer.on("2026-06-15 12:00")
    # The 15th counts as used: 15 of 30 days of 99.00 are given back, and kept as credit.
    assert customer.bills() == [("opening", "99.00"), ("final", "0.00")]
    assert customer.last_bill() == [("proration", "-49.50")]
    assert customer.use(5_000, on="2026-06-14") == "accepted"
    assert customer.use(5_000, on="2026-06-15 11:00") == "unmatched"
    # Usage may come for 35 days; then, once, it is billed, and paid by the credit. What was left of the allowance has expired with the period.
    customer.on("2026-07-20 11:00")
    assert customer.bills()[-1] == ("late", "1.00")
    assert customer.credit() == "1.00"


def test_i_left_and_want_nothing_back(customer):
    customer.on("2026-06-15 10:00")
    customer.do("cancel", when="now", credit="none")
    customer.on("2026-08-01")
    assert customer.bills() == [("opening", "99.00")]


def test_i_wanted_to_leave_at_the_end_of_the_month_and_stayed(customer):
    customer.on("2026-06-15")
    customer.do("cancel", when="period_end")
    assert customer.status() == "ending"
    assert customer.refused("change", tier="scale", when="period_end") == "409 subscription_ended"
    customer.on("2026-06-20")
    customer.do("undo")
    assert customer.status() == "active"
    customer.on("2026-07-01 02:00")
    assert customer.bills() == [("opening", "99.00"), ("period", "99.00")]
    assert customer.refused("undo") == "409 nothing_to_undo"


def test_i_left_at_the_end_of_the_month(customer):
    customer.use(12_000)
    customer.on("2026-06-15")
    customer.do("cancel", when="period_end")
    customer.on("2026-08-01")
    assert customer.status() == "ended"
    assert customer.bills() == [("opening", "99.00"), ("final", "0.40")]


def test_i_paid_for_a_year_and_leave_in_the_fourth_month(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "1188.00", "10000", fee_every=12)
    customer.subscribe("growth")
    customer.on("2026-09-15")
    customer.do("cancel", when="period_end")
    customer.on("2026-10-01 02:00")
    # From 1 October to 31 May: 243 of 365 days of 1,188.00
    assert customer.bills() == [("opening", "1188.00"), ("final", "0.00")]
    assert customer.last_bill() == [("proration", "-790.92")]


def test_i_regret_that_i_left(customer):
    customer.on("2026-06-15 10:00")
    customer.do("cancel", when="now")
    customer.on("2026-06-25 09:00")
    customer.do("reactivate")
    assert customer.status() == "active"
    assert customer.periods() == [("stub", "2026-06-15 10:00"), ("regular", "2026-07-25 09:00")]
    assert customer.bills()[-1] == ("opening", "99.00")
    assert customer.credit() == "49.50"  # what was given back of June pays half of it


def test_i_come_back_after_a_long_time(customer):
    customer.on("2026-06-15")
    customer.do("cancel", when="now")
    customer.on("2026-08-01")
    assert customer.refused("reactivate") == "409 reactivation_too_late"
    customer.subscribe("growth")
    assert customer.periods() == [("regular", "2026-09-01 00:00")]


def test_i_was_away_over_the_end_of_the_month(customer):
    customer.use(12_000)
    customer.on("2026-06-20 10:00")
    customer.do("pause")
    assert (customer.status(), customer.may_use(1)) == ("paused", "deny")
    assert customer.refused("change", tier="scale", when="now") == "409 subscription_paused"
    customer.on("2026-06-20 12:00")
    # The 20th counts as used: 10 of 30 days, 33.00, less 0.40 for 2,000 tokens; 32.60 are kept as credit.
    assert customer.last_bill() == [("proration", "-33.00"), ("overage", "0.40")]
    customer.on("2026-07-05")
    assert customer.use(100) == "unmatched"
    customer.on("2026-07-10")
    assert customer.bills() == [("opening", "99.00"), ("period", "0.00")]  # nothing for July so far
    customer.do("resume")
    assert customer.bills()[-1] == ("opening", "99.00")
    assert customer.credit() == "32.60"
    assert customer.periods() == [("stub", "2026-06-20 10:00"), ("regular", "2026-08-10 00:00")]
    customer.on("2026-08-10 02:00")
    assert customer.bills()[-1] == ("period", "99.00")


def test_i_changed_my_mind_about_going_down(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "99.00", "10000")
    customer.offer("scale", "499.00", "100000")
    customer.subscribe("scale")
    customer.on("2026-06-15")
    scheduled = customer.change("growth", "period_end")
    [pending] = customer.shown()["pending_changes"]
    assert (pending["kind"], pending["to"], pending["effective_at"]) == (
        "tier",
        {"tier": "growth", "version": 1},
        "2026-07-01T00:00:00Z",
    )
    customer.do("undo", change=scheduled["id"])
    assert customer.statement(scheduled)["status"] == "undone"
    customer.on("2026-07-01 02:00")
    assert customer.bills() == [("opening", "499.00"), ("period", "499.00")]
    assert customer.balance()["included"] == "100000"


def test_i_pay_at_the_end_of_the_month_and_paused(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "99.00", "10000", fee_timing="arrears")
    customer.subscribe("growth")
    customer.on("2026-06-20 10:00")
    customer.do("pause")
    customer.on("2026-07-10")
    customer.do("resume")
    assert customer.bills() == [("period", "66.00")]  # 20 of 30 days
    customer.on("2026-08-10 02:00")
    assert customer.bills() == [("period", "66.00"), ("period", "99.00")]


def test_i_bought_tokens_and_paused(customer):
    customer.buy(5_000)
    customer.on("2026-06-20 10:00")
    customer.do("pause")
    customer.on("2026-07-10")
    customer.do("resume")
    assert customer.balance()["remaining"] == "15000"
