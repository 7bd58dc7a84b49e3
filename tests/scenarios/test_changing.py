"""What customers ask about changing their tier: Growth is $99 with 10,000 tokens a month, Scale $499 with 100,000; $0.0002 beyond."""

import pytest

from tests.scenarios.story import tokens

pytestmark = pytest.mark.django_db(transaction=True)

FIGURES = ("credit", "charge", "net")


@pytest.fixture
def customer(tell):
    """A customer on Growth since 1 June."""
    story = tell("2026-06-01")
    story.offer("growth", "99.00", "10000")
    story.offer("scale", "499.00", "100000")
    story.subscribe("growth")
    return story


def figures(statement):
    return tuple(statement[name] for name in FIGURES)


def test_what_does_an_upgrade_on_the_last_day_cost_me(customer):
    customer.use(20_000)
    customer.on("2026-06-30 10:00")
    # 1 of 30 days: 99 / 30 = 3.30 and 499 / 30 = 16.633
    assert figures(customer.change("scale")) == ("-3.30", "16.63", "13.33")
    # 29/30 of 10,000 and 1/30 of 100,000
    assert customer.balance() == {"used": "20000", "included": "13000", "remaining": "0", "overage": "7000"}
    customer.on("2026-07-01 02:00")
    assert customer.bills() == [("opening", "99.00"), ("period", "513.73")]
    assert customer.last_bill() == [
        ("fee", "499.00"),
        ("proration", "-3.30"),
        ("proration", "16.63"),
        ("overage", "1.40"),  # 7,000 at 0.0002
    ]


def test_i_went_down_in_mid_month_and_had_used_more_than_is_left_to_me(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "99.00", "10000")
    customer.offer("scale", "499.00", "100000")
    customer.subscribe("scale")
    customer.use(90_000)
    customer.on("2026-06-15")
    assert figures(customer.change("growth")) == ("-266.13", "52.80", "-213.33")
    # 14/30 of 100,000 and 16/30 of 10,000
    assert customer.balance() == {"used": "90000", "included": "52000", "remaining": "0", "overage": "38000"}
    customer.on("2026-07-01 02:00")
    # 99.00 - 266.13 + 52.80 + 7.60 = -106.73, which is kept as credit
    assert customer.last_bill() == [
        ("fee", "99.00"),
        ("proration", "-266.13"),
        ("proration", "52.80"),
        ("overage", "7.60"),
    ]
    customer.on("2026-08-01 02:00")
    assert customer.credit() == "99.00"
    customer.on("2026-09-01 02:00")
    assert customer.credit() == "7.73"


def test_i_changed_three_times_in_a_day_what_did_that_come_to(customer):
    customer.offer("team", "199.00", "30000")
    customer.on("2026-06-15 09:00")
    assert figures(customer.change("scale")) == ("-52.80", "266.13", "213.33")
    customer.on("2026-06-15 12:00")
    assert figures(customer.change("team")) == ("-266.13", "106.13", "-160.00")
    customer.on("2026-06-15 15:00")
    assert figures(customer.change("scale")) == ("-106.13", "266.13", "160.00")
    assert customer.balance()["included"] == "58000"  # as if it had been one change
    customer.on("2026-07-01 02:00")
    assert customer.bills()[-1] == ("period", "712.33")  # 499.00 + 213.33


def test_i_upgraded_by_mistake_and_went_back_the_same_day(customer):
    customer.on("2026-06-15 09:00")
    customer.change("scale")
    customer.on("2026-06-15 17:00")
    assert figures(customer.change("growth")) == ("-266.13", "52.80", "-213.33")
    assert customer.balance()["included"] == "10000"
    customer.on("2026-07-01 02:00")
    assert customer.bills() == [("opening", "99.00"), ("period", "99.00")]


def test_i_pay_the_new_fee_in_full_do_i_get_the_whole_allowance(customer):
    customer.use(12_000)
    customer.on("2026-06-15")
    statement = customer.change("scale", fee="full", allowance="full_new")
    assert figures(statement) == ("0.00", "499.00", "499.00")
    assert customer.balance() == {"used": "12000", "included": "100000", "remaining": "88000", "overage": "0"}
    customer.on("2026-07-01 02:00")
    assert customer.bills()[-1] == ("period", "998.00")  # the change's and July's


def test_can_my_month_begin_anew_when_i_upgrade(customer):
    customer.use(12_000)
    customer.on("2026-06-15 10:00")
    statement = customer.change("scale", allowance="reset")
    # 16 of 30 days are given back, by day: the day of the change is the new tier's
    assert figures(statement) == ("-52.80", "499.00", "446.20")
    assert customer.balance() == {"used": "0", "included": "100000", "remaining": "100000", "overage": "0"}
    assert customer.periods() == [("stub", "2026-06-15 10:00"), ("regular", "2026-07-15 10:00")]
    customer.on("2026-06-15 12:00")
    assert customer.bills()[-1] == ("period", "446.60")  # with 2,000 tokens of June's beyond 10,000: 0.40


def test_i_upgraded_half_an_hour_after_the_month_ended_was_june_billed_at_the_new_price(customer):
    customer.use(12_000)
    customer.on("2026-07-01 00:30")
    # June waits an hour for what comes late; the change is July's, of which it has all 31 days.
    assert figures(customer.change("scale")) == ("-99.00", "499.00", "400.00")
    assert customer.use(1_000, on="2026-06-30") == "accepted"
    assert customer.balance() == {"used": "0", "included": "100000", "remaining": "100000", "overage": "0"}
    customer.on("2026-07-01 02:00")
    # June's bill is drawn as of its end, whenever it is written: Growth's fee and price, 13,000 of 10,000.
    assert customer.last_bill() == [("fee", "99.00"), ("overage", "0.60")]
    customer.on("2026-08-01 02:00")
    assert customer.last_bill() == [("fee", "499.00"), ("proration", "-99.00"), ("proration", "499.00")]


def test_i_asked_to_be_billed_at_once(customer):
    customer.on("2026-06-15")
    customer.change("scale", bill="now")
    assert customer.bills() == [("opening", "99.00"), ("change", "213.33")]
    customer.on("2026-07-01 02:00")
    assert customer.bills()[-1] == ("period", "499.00")


def test_you_gave_me_the_upgrade_for_the_rest_of_the_month(customer):
    customer.on("2026-06-15")
    statement = customer.change("scale", fee="none", allowance="full_new")
    assert figures(statement) == ("0.00", "0.00", "0.00")
    assert statement["words"][-1] == "No fee is given back or charged for it."
    assert customer.balance()["included"] == "100000"
    customer.on("2026-07-01 02:00")
    assert customer.bills() == [("opening", "99.00"), ("period", "499.00")]


def test_i_go_down_at_the_end_of_the_month_what_do_i_have_until_then(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "99.00", "10000")
    customer.offer("scale", "499.00", "100000")
    customer.subscribe("scale")
    customer.on("2026-06-15")
    scheduled = customer.change("growth", "period_end")
    assert (scheduled["status"], scheduled["effective_at"]) == ("scheduled", "2026-07-01T00:00:00Z")
    customer.use(90_000)
    assert customer.balance() == {"used": "90000", "included": "100000", "remaining": "10000", "overage": "0"}
    customer.on("2026-07-01 02:00")
    assert customer.bills() == [("opening", "499.00"), ("period", "99.00")]
    assert customer.balance()["included"] == "10000"
    assert customer.statement(scheduled)["status"] == "done"


def test_i_told_you_a_date_and_kept_on_using(customer):
    customer.use(9_000)
    customer.on("2026-06-10")
    scheduled = customer.change("scale", "2026-06-21")
    # 10 of 30 days: 33.00 and 166.33; allowance 2/3 of 10,000 and 1/3 of 100,000
    assert figures(scheduled) == ("-33.00", "166.33", "133.33")
    customer.on("2026-06-20 23:00")
    customer.use(5_000)
    assert customer.balance() == {"used": "14000", "included": "10000", "remaining": "0", "overage": "4000"}
    customer.on("2026-06-21")
    assert customer.balance() == {"used": "14000", "included": "40000", "remaining": "26000", "overage": "0"}
    assert customer.statement(scheduled)["status"] == "done"
    customer.on("2026-07-01 02:00")
    assert customer.bills()[-1] == ("period", "632.33")


def test_which_price_had_the_tokens_of_the_month_in_which_i_changed(tell):
    def bands(first, beyond):
        price = {
            "model": "graduated",
            "bands": [{"up_to": "10000", "unit_amount": first}, {"unit_amount": beyond}],
        }
        return tokens("0", price=price)

    customer = tell("2026-06-01")
    customer.offer("growth", "0", None, charge=bands("0.001", "0.0005"))
    customer.offer("scale", "0", None, charge=bands("0.0008", "0.0002"))
    customer.subscribe("growth")
    customer.use(6_000)
    customer.on("2026-06-15")
    customer.change("scale")
    customer.use(8_000)
    customer.on("2026-06-20")
    customer.use(1_000, on="2026-06-10")  # comes late, and is Growth's
    customer.on("2026-07-01 02:00")
    # Growth prices the first 7,000: 7.00. Scale prices 7,000 to 15,000: 3,000 of its first band and 5,000 beyond: 2.40 + 1.00.
    assert customer.last_bill() == [("overage", "7.00"), ("overage", "3.40")]


def test_i_pay_at_the_end_of_the_month_how_is_an_upgrade_billed(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "99.00", "10000", fee_timing="arrears")
    customer.offer("scale", "499.00", "100000", fee_timing="arrears")
    customer.subscribe("growth")
    customer.on("2026-06-15")
    customer.change("scale")
    customer.on("2026-07-01 02:00")
    # 14 days of the one and 16 of the other, of 30; nothing was paid, so nothing is given back
    assert customer.bills() == [("period", "312.33")]
    assert customer.last_bill() == [("fee", "46.20"), ("proration", "266.13")]
    assert customer.last_bill_says() == [
        "Growth, 1 June 2026 – 14 June 2026 (14 of 30 days)",
        "Scale, remaining time, 15 June 2026 – 30 June 2026 (16 of 30 days)",
    ]
    customer.on("2026-08-01 02:00")
    assert customer.bills()[-1] == ("period", "499.00")


def test_i_pay_by_the_year_what_of_my_months_overage(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "1188.00", "10000", fee_every=12)
    customer.subscribe("growth")
    customer.use(15_000)
    customer.on("2026-07-15")
    assert customer.balance() == {"used": "0", "included": "10000", "remaining": "10000", "overage": "0"}
    customer.use(4_000)
    customer.on("2027-06-01 02:00")
    # June's 5,000 beyond the allowance; July stayed within its own; then the second year
    assert customer.bills() == [("opening", "1188.00"), ("period", "1.00"), ("period", "1188.00")]


def test_i_pay_by_the_year_and_upgraded_in_the_fourth_month(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "1188.00", "10000", fee_every=12)
    customer.offer("scale", "5988.00", "100000", fee_every=12)
    customer.subscribe("growth")
    customer.on("2026-09-15")
    # 259 of 365 days: 842.9918 and 4,249.0192
    statement = customer.change("scale")
    assert figures(statement) == ("-842.99", "4249.02", "3406.03")
    assert [(line["numerator"], line["divisor"]) for line in statement["lines"]] == [(259, 365), (259, 365)]
    assert customer.balance()["included"] == "58000"  # September is a month of 30 days, like June
    customer.on("2027-06-01 02:00")
    assert customer.bills() == [("opening", "1188.00"), ("period", "3406.03"), ("period", "5988.00")]


def test_i_was_at_my_limit_and_upgraded_when_could_i_go_on(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "99.00", None, charge=tokens("10000", at_limit="deny"))
    customer.offer("scale", "499.00", None, charge=tokens("100000", at_limit="deny"))
    customer.subscribe("growth")
    customer.on("2026-06-15")
    customer.use(9_500)
    assert customer.may_use(1_000) == "deny"
    customer.change("scale")
    assert customer.may_use(48_500) == "allow"  # 58,000 less 9,500
    assert customer.may_use(48_501) == "deny"
    customer.use(40_000)
    assert customer.may_use(8_501) == "deny"
    customer.change("growth")
    assert customer.may_use(1) == "deny"  # 49,500 used of 10,000: it stays recorded, and is billed
    customer.on("2026-07-01 02:00")
    assert customer.last_bill()[-1] == ("overage", "7.90")


@pytest.mark.parametrize(
    ("currency", "fees", "figures_of_change", "total"),
    [
        # 99 x 16/30 = 52.8 and 499 x 16/30 = 266.13, in whole yen
        ("JPY", ("99", "499"), ("-53", "266", "213"), "712"),
        # in fils: 52.800 and 266.133
        ("KWD", ("99.000", "499.000"), ("-52.800", "266.133", "213.333"), "712.333"),
    ],
)
def test_my_currency_has_other_cents(tell, currency, fees, figures_of_change, total):
    customer = tell("2026-06-01", currency=currency)
    customer.offer("growth", fees[0], "10000")
    customer.offer("scale", fees[1], "100000")
    customer.subscribe("growth")
    customer.on("2026-06-15")
    assert figures(customer.change("scale")) == figures_of_change
    customer.on("2026-07-01 02:00")
    assert customer.bills()[-1] == ("period", total)


def test_i_want_to_pay_in_another_currency(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "99.00", "10000")
    customer.offer("europe", "89.00", "10000", currency="EUR")
    customer.subscribe("growth")
    assert customer.refused("change", tier="europe", when="now") == "422 currency_mismatch"


def test_from_months_to_years_my_period_begins_anew(customer):
    customer.offer("yearly", "4990.00", "1000000", interval="year")
    customer.on("2026-06-15 10:00")
    statement = customer.change("yearly")
    assert (statement["allowance"], figures(statement)) == ("reset", ("-52.80", "4990.00", "4937.20"))
    assert customer.periods() == [("stub", "2026-06-15 10:00"), ("regular", "2027-06-15 10:00")]
    customer.on("2026-06-15 12:00")
    assert customer.bills()[-1] == ("period", "4937.20")


def test_my_seats_are_counted_by_their_peak_at_which_price(tell):
    def seats(included, price):
        return {
            "kind": "usage",
            "meter": "seats",
            "included": included,
            "price": {"model": "per_unit", "unit_amount": price},
        }

    customer = tell("2026-06-01")
    customer.measure("seats", "max")
    customer.offer("small", "0", None, charge=seats("10", "5"))
    customer.offer("large", "0", None, charge=seats("20", "4"))
    customer.subscribe("small")
    assert customer.use(25, of="seats") == "accepted"
    customer.on("2026-06-16")
    assert customer.change("large")["allowances"][-1] == {
        "meter": "seats",
        "dimensions": {},
        "before": "10",
        "after": "15",  # half of 10 and half of 20
        "used": "25",
    }
    customer.on("2026-07-01 02:00")
    # One value has no parts: 10 seats beyond 15, at the price with which the month began.
    assert customer.last_bill() == [("overage", "50.00")]


def test_the_price_of_all_my_tokens_falls_with_their_number_and_i_changed(tell):
    def bands(first, beyond):
        price = {"model": "volume", "bands": [{"up_to": "10000", "unit_amount": first}, {"unit_amount": beyond}]}
        return tokens("0", price=price)

    customer = tell("2026-06-01")
    customer.offer("growth", "0", None, charge=bands("0.001", "0.0005"))
    customer.offer("scale", "0", None, charge=bands("0.0008", "0.0004"))
    customer.subscribe("growth")
    customer.use(6_000)
    customer.on("2026-06-15")
    customer.change("scale")
    customer.use(8_000)
    customer.on("2026-07-01 02:00")
    # 14,000 reach the second band, for the tokens of both.
    assert customer.last_bill() == [("overage", "3.00"), ("overage", "3.20")]


def test_what_becomes_of_the_tokens_that_i_bought(customer):
    customer.buy(5_000)
    customer.use(12_000)
    assert customer.balance()["remaining"] == "3000"
    customer.on("2026-06-15")
    customer.change("scale")
    # The allowance expires and goes first: all that was used is covered by it now, and what was bought is whole again.
    assert customer.balance()["remaining"] == "51000"
    customer.on("2026-07-01 02:00")
    assert customer.bills()[-1] == ("period", "712.33")
    assert customer.balance()["remaining"] == "105000"


def test_some_usage_of_the_month_in_which_i_changed_came_after_its_bill(customer):
    customer.on("2026-06-15")
    customer.change("scale")
    customer.use(70_000)
    customer.on("2026-07-05")
    assert customer.last_bill()[-1] == ("overage", "2.40")  # 12,000 beyond 58,000
    assert customer.use(5_000, on="2026-06-10") == "accepted"
    customer.on("2026-08-01 02:00")
    # They are Growth's, and come first on the axis; so does their price, which is the same here.
    assert customer.last_bill() == [("fee", "499.00"), ("overage", "1.00")]


def test_i_upgraded_and_left_five_days_later(customer):
    customer.on("2026-06-15")
    customer.change("scale")
    customer.on("2026-06-20 10:00")
    customer.do("cancel", when="now")
    customer.on("2026-06-20 12:00")
    # Of the 266.13 for 16 days 10 are left, the 20th being used: 166.33.
    assert customer.last_bill() == [("proration", "-52.80"), ("proration", "266.13"), ("proration", "-166.33")]
    assert customer.bills()[-1] == ("final", "47.00")


def test_i_asked_twice_for_the_same_date_and_to_begin_anew(customer):
    customer.change("scale", "2026-06-15", allowance="reset")
    customer.change("scale", "2026-06-15", allowance="reset")
    customer.on("2026-06-15 02:00")
    # 499.00 - 52.80; the second one gives back the fee that the first has charged, and charges it again.
    assert customer.bills() == [("opening", "99.00"), ("period", "446.20"), ("period", "0.00")]
    assert customer.last_bill() == [("fee", "499.00"), ("proration", "-499.00")]


def test_i_took_a_tier_used_it_and_left_it_while_the_clock_stood_still(tell):
    customer = tell("2026-06-01")
    customer.offer("growth", "0", "10000")
    customer.offer("scale", "0", None, charge=tokens("10000", price={"model": "per_unit", "unit_amount": "0.01"}))
    customer.subscribe("growth")
    customer.on("2026-06-15")
    customer.change("scale")
    customer.use(11_000)
    assert customer.on("2026-06-15") == ["book_overage"]  # 1,000 at 0.01
    customer.change("growth")
    customer.on("2026-07-01 02:00")
    assert customer.last_bill() == [("overage", "0.20")]  # Scale was in force for no time at all
