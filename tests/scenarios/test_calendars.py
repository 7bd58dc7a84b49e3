"""What customers ask about dates: months of all lengths, leap days, clocks that change, and moves to another zone."""

import pytest

pytestmark = pytest.mark.django_db(transaction=True)


def on_growth(tell, begins, *, zone="UTC", **terms):
    customer = tell(begins, zone=zone)
    customer.offer("growth", "99.00", "10000", **terms)
    customer.offer("scale", "499.00", "100000", **terms)
    customer.subscribe("growth")
    return customer


def test_i_began_on_the_31st_of_january_of_a_leap_year(tell):
    customer = on_growth(tell, "2028-01-31")
    customer.on("2028-02-15")
    # From 31 January to 28 February are 29 days, of which 14 are left: 47.793 and 240.897
    statement = customer.change("scale")
    assert (statement["credit"], statement["charge"]) == ("-47.79", "240.90")
    customer.on("2028-06-01")
    assert customer.periods() == [
        ("regular", "2028-02-29 00:00"),
        ("regular", "2028-03-31 00:00"),
        ("regular", "2028-04-30 00:00"),
        ("regular", "2028-05-31 00:00"),
        ("regular", "2028-06-30 00:00"),
    ]
    assert customer.bills() == [
        ("opening", "99.00"),
        ("period", "692.11"),  # 499.00 + 193.11
        ("period", "499.00"),
        ("period", "499.00"),
        ("period", "499.00"),
    ]


def test_i_began_on_the_29th_of_february_and_pay_by_the_year(tell):
    customer = on_growth(tell, "2028-02-29", interval="year")
    customer.on("2031-03-01")
    assert [ends_at for _, ends_at in customer.periods()] == [
        "2029-02-28 00:00",
        "2030-02-28 00:00",
        "2031-02-28 00:00",
        "2032-02-29 00:00",
    ]
    assert customer.bills() == [("opening", "99.00")] + [("period", "99.00")] * 3


@pytest.mark.parametrize(
    ("grain", "credit", "charge", "share"),
    [
        # three days of March's 31, though one of them has 23 hours
        ("day", "-9.58", "48.29", (3, 31)),
        # 71 hours of 743
        ("second", "-9.46", "47.68", (71 * 3600, 743 * 3600)),
    ],
)
def test_i_upgraded_on_the_day_on_which_the_clocks_changed(tell, grain, credit, charge, share):
    customer = on_growth(tell, "2026-03-01", zone="Europe/Berlin")
    customer.on("2026-03-29")
    statement = customer.change("scale", grain=grain)
    assert (statement["credit"], statement["charge"]) == (credit, charge)
    assert {(line["numerator"], line["divisor"]) for line in statement["lines"]} == {share}
    assert customer.periods() == [("regular", "2026-04-01 00:00")]


def test_can_my_month_begin_on_the_15th(tell):
    customer = on_growth(tell, "2026-06-01")
    customer.on("2026-06-10")
    customer.do("anchor", anchor_at=customer.instant("2026-06-15"))
    [pending] = customer.shown()["pending_changes"]
    assert (pending["kind"], pending["effective_at"]) == ("anchor", "2026-07-01T00:00:00Z")
    customer.on("2026-07-01 02:00")
    # June stays whole. From 1 to 14 July are 14 of the 30 days from 15 June on.
    assert customer.bills() == [("opening", "99.00"), ("period", "46.20")]
    customer.on("2026-07-15 02:00")
    assert customer.bills()[-1] == ("period", "99.00")
    assert customer.periods() == [
        ("regular", "2026-07-01 00:00"),
        ("stub", "2026-07-15 00:00"),
        ("regular", "2026-08-15 00:00"),
    ]


def test_i_pay_by_the_year_and_moved_the_day_on_which_my_months_begin(tell):
    customer = on_growth(tell, "2026-06-01", fee_every=12)
    customer.on("2026-09-10")
    customer.do("anchor", anchor_at=customer.instant("2026-09-15"))
    customer.on("2026-10-01 02:00")
    # The rest of the year, 243 of 365 days, is given back; another begins, of whose 365 days, from 15 September on, 349 are left.
    assert customer.last_bill() == [("fee", "94.66"), ("proration", "-65.91")]
    assert customer.periods()[-1] == ("stub", "2026-10-15 00:00")


def test_i_moved_from_berlin_to_new_york(tell):
    customer = on_growth(tell, "2026-06-01", zone="Europe/Berlin")
    customer.on("2026-06-10")
    customer.move_to("America/New_York")
    # The running month ends when it was to end: at midnight in Berlin.
    assert customer.periods() == [("regular", "2026-06-30 18:00")]
    customer.on("2026-08-02")
    # The next ones end at midnight in New York; the six hours of 30 June are July's.
    assert customer.periods() == [
        ("regular", "2026-06-30 18:00"),
        ("regular", "2026-08-01 00:00"),
        ("regular", "2026-09-01 00:00"),
    ]
    assert customer.bills() == [("opening", "99.00"), ("period", "99.00"), ("period", "99.00")]


def test_i_began_in_mid_month_and_pay_by_the_calendar(tell):
    customer = on_growth(tell, "2026-06-15", alignment="calendar")
    assert customer.bills() == [("opening", "52.80")]  # 16 of 30 days
    assert customer.periods() == [("stub", "2026-07-01 00:00")]
    customer.on("2026-07-01 02:00")
    assert customer.bills()[-1] == ("period", "99.00")
    assert customer.refused("anchor", anchor_at=customer.instant("2026-07-15")) == "422 calendar_aligned"


def test_why_did_my_month_end_at_one_in_the_morning(tell):
    # On 6 September 2026 there is no midnight in Santiago: clocks go from 23:59 to 01:00.
    customer = on_growth(tell, "2026-08-06", zone="America/Santiago")
    customer.on("2026-10-06 02:00")
    assert [ends_at for _, ends_at in customer.periods()] == [
        "2026-09-06 01:00",
        "2026-10-06 00:00",
        "2026-11-06 00:00",
    ]
    assert customer.bills() == [("opening", "99.00"), ("period", "99.00"), ("period", "99.00")]


def test_i_upgraded_at_the_very_instant_at_which_a_month_began(tell):
    customer = on_growth(tell, "2026-06-01")
    customer.use(12_000)
    customer.on("2026-07-01")
    statement = customer.change("scale")
    assert (statement["credit"], statement["charge"]) == ("-99.00", "499.00")
    customer.on("2026-07-01 02:00")
    # It is July's from its first instant, and so stands beside July's fee already.
    assert customer.last_bill() == [
        ("fee", "99.00"),
        ("proration", "-99.00"),
        ("proration", "499.00"),
        ("overage", "0.40"),
    ]
