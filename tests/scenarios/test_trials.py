"""What customers ask about trials: two weeks with 2,000 tokens, then Growth for $99 with 10,000 tokens a month."""

import pytest

from tests.scenarios.story import tokens

pytestmark = pytest.mark.django_db(transaction=True)

GROWTH = tokens("10000", trial_included="2000")


def on_trial(tell, begins="2026-06-01", *, zone="UTC", **terms):
    customer = tell(begins, zone=zone)
    customer.offer("growth", "99.00", None, charge=GROWTH, **{"trial_days": 14, **terms})
    customer.subscribe("growth")
    return customer


def test_my_trial_went_over_the_week_in_which_clocks_change(tell):
    customer = on_trial(tell, "2026-03-20 10:00", zone="Europe/Berlin")
    assert customer.status() == "trialing"
    # Fourteen days of the calendar, one of which has 23 hours: it ends at ten again.
    assert customer.periods() == [("trial", "2026-04-03 10:00")]
    customer.on("2026-03-30")
    customer.use(2_500)
    assert customer.balance() == {"used": "2500", "included": "2000", "remaining": "0", "overage": "500"}
    assert customer.may_use(1) == "deny"
    customer.on("2026-04-03 12:00")
    assert customer.periods() == [("trial", "2026-04-03 10:00"), ("regular", "2026-05-03 10:00")]
    assert customer.bills() == [("period", "99.00")]  # the first fee; what went beyond the trial costs nothing
    assert customer.may_use(10_000) == "allow"


def test_i_do_not_want_to_wait_for_the_end_of_my_trial(tell):
    customer = on_trial(tell)
    customer.use(1_500)
    customer.on("2026-06-05 10:00")
    customer.do("trial", ends_at="now")
    assert customer.balance() == {"used": "0", "included": "10000", "remaining": "10000", "overage": "0"}
    assert customer.periods() == [("trial", "2026-06-05 10:00"), ("regular", "2026-07-05 10:00")]
    customer.on("2026-06-05 12:00")
    assert customer.bills() == [("period", "99.00")]


def test_you_gave_me_two_more_weeks_to_try(tell):
    customer = on_trial(tell)
    customer.on("2026-06-10")
    customer.use(1_500)
    customer.do("trial", ends_at=customer.instant("2026-06-29"))
    customer.on("2026-06-20")
    assert customer.balance() == {"used": "1500", "included": "2000", "remaining": "500", "overage": "0"}
    assert customer.bills() == []
    customer.on("2026-06-29 02:00")
    assert customer.periods() == [("trial", "2026-06-29 00:00"), ("regular", "2026-07-29 00:00")]
    assert customer.bills() == [("period", "99.00")]


def test_my_trial_ended_and_nothing_works_until_i_say_so(tell):
    customer = on_trial(tell, trial_end="pause")
    customer.on("2026-06-15 02:00")
    assert customer.status() == "paused"
    assert (customer.use(1), customer.may_use(1)) == ("unmatched", "deny")
    assert customer.bills() == []
    customer.on("2026-06-20")
    customer.do("resume")
    assert customer.bills() == [("opening", "99.00")]
    assert customer.periods() == [("trial", "2026-06-15 00:00"), ("regular", "2026-07-20 00:00")]
    assert customer.may_use(10_000) == "allow"


def test_i_tried_and_left_do_i_owe_you_anything(tell):
    customer = on_trial(tell, trial_end="cancel")
    customer.use(5_000)
    customer.on("2026-08-01")
    assert (customer.status(), customer.bills()) == ("ended", [])


def test_do_i_get_another_trial_when_i_come_back(tell):
    customer = on_trial(tell)
    customer.on("2026-06-05")
    customer.do("cancel", when="now")
    customer.on("2026-09-01")
    customer.subscribe("growth")
    assert customer.status() == "active"
    assert customer.bills()[-1] == ("opening", "99.00")


def test_i_took_the_larger_tier_while_i_was_trying(tell):
    customer = on_trial(tell)
    customer.offer("scale", "499.00", None, charge=tokens("100000", trial_included="5000"))
    customer.on("2026-06-08")
    statement = customer.change("scale")
    assert (statement["credit"], statement["charge"]) == ("0.00", "0.00")
    assert customer.balance()["included"] == "3500"  # a week of 2,000 and a week of 5,000
    assert customer.status() == "trialing"
    customer.on("2026-06-15 02:00")
    assert customer.bills() == [("period", "499.00")]
    assert customer.balance()["included"] == "100000"


def test_i_went_beyond_a_trial_that_bills_what_goes_beyond(tell):
    customer = on_trial(tell, trial_overage="bill")
    customer.use(12_000)
    assert customer.may_use(1) == "allow_overage"
    customer.on("2026-06-15 02:00")
    assert customer.last_bill() == [("fee", "99.00"), ("overage", "2.00")]  # 10,000 at 0.0002
