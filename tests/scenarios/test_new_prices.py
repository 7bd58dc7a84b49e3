"""What customers ask when a tier gets another version: Growth was $99 with 10,000 tokens, and is to be $119 with 20,000."""

import pytest

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def customer(tell):
    """A customer on the first version of Growth since 1 June; it is 10 June."""
    story = tell("2026-06-01")
    story.offer("growth", "99.00", "10000")
    story.offer("scale", "499.00", "100000")
    story.subscribe("growth")
    story.on("2026-06-10")
    return story


def progress(document):
    publication = document["publications"][-1]
    return {name: number for name, number in publication["progress"].items() if number}


def test_your_new_price_came_in_the_middle_of_my_month(customer):
    customer.use(12_000)
    customer.publish("growth", "119.00", "20000", cohort="now", at="2026-06-15")
    assert customer.balance()["included"] == "10000"
    customer.on("2026-06-15")
    # 16 of 30 days: 52.80 back, 63.467 charged; 14/30 of 10,000 and 16/30 of 20,000 are 15,333.33
    assert customer.balance() == {"used": "12000", "included": "15333", "remaining": "3333", "overage": "0"}
    assert customer.shown()["version"] == 2
    customer.on("2026-07-01 02:00")
    assert customer.last_bill() == [("fee", "119.00"), ("proration", "-52.80"), ("proration", "63.47")]


def test_from_when_do_i_pay_the_new_price(customer):
    customer.publish("growth", "119.00", "20000", cohort="renewal", at="2026-06-15")
    customer.on("2026-06-20")
    assert (customer.shown()["version"], customer.balance()["included"]) == (1, "10000")
    customer.on("2026-07-01 02:00")
    assert (customer.shown()["version"], customer.balance()["included"]) == (2, "20000")
    assert customer.bills() == [("opening", "99.00"), ("period", "119.00")]


def test_i_keep_my_old_price_dont_i(customer):
    customer.publish("growth", "119.00", "20000", cohort="new", at="2026-06-15")
    customer.on("2026-08-01 02:00")
    assert customer.bills() == [("opening", "99.00"), ("period", "99.00"), ("period", "99.00")]


def test_i_had_left_that_tier_before_its_price_changed(customer):
    number = customer.publish("growth", "119.00", "20000", cohort="now", at="2026-06-20")
    customer.on("2026-06-15")
    customer.change("scale")
    customer.on("2026-07-01 02:00")
    assert customer.bills()[-1] == ("period", "712.33")
    assert (customer.shown()["tier"], progress(customer.version("growth", number))) == (
        "scale",
        {"planned": 1, "dropped": 1},
    )


def test_you_withdrew_the_price_that_you_had_announced(tell):
    # Undone is what is still to come by the wall clock, so this one lives in years to come.
    customer = tell("2096-06-01")
    customer.offer("growth", "99.00", "10000")
    customer.subscribe("growth")
    number = customer.publish("growth", "119.00", "20000", cohort="now", at="2096-06-15")
    assert progress(customer.version("growth", number)) == {"planned": 1, "scheduled": 1}
    customer.withdraw("growth", number)
    assert progress(customer.version("growth", number)) == {"planned": 1, "undone": 1}
    customer.on("2096-07-01 02:00")
    assert customer.bills() == [("opening", "99.00"), ("period", "99.00")]


def test_your_price_changed_while_i_was_away(customer):
    customer.on("2026-06-20 10:00")
    customer.do("pause")
    customer.publish("growth", "119.00", "20000", cohort="now", at="2026-06-25")
    customer.on("2026-07-10")
    customer.do("resume")
    assert (customer.shown()["version"], customer.balance()["included"]) == (2, "20000")
    assert customer.bills()[-1] == ("opening", "119.00")
    customer.on("2026-08-10 02:00")
    assert customer.bills()[-1] == ("period", "119.00")
