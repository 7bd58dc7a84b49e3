"""Proving invoices: every kind of line from its sources, also after voids and reversals; and a tampered one is found out."""

from decimal import Decimal

import pytest

from invoices.models import Invoice, InvoiceLine
from invoices.selectors.verifying import Difference, verify
from invoices.services import invoicing
from invoices.services.advancing import advance
from invoices.services.subscribing import cancel_subscription
from metering.services.reversing import reverse_event
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

GRADUATED = {
    "model": "graduated",
    "bands": [
        {"up_to": "1000", "unit_amount": "0.0003", "flat_amount": "0.1"},
        {"up_to": None, "unit_amount": "0.0001", "flat_amount": "0.7"},
    ],
}
VOLUME = {
    "model": "volume",
    "bands": [{"up_to": "1000", "unit_amount": "0.003"}, {"up_to": None, "unit_amount": "0.001"}],
}
PRICES = {
    "flat": {"model": "flat", "amount": "12.345"},
    "package": {"model": "package", "size": "1000", "amount": "0.2"},
    "graduated": GRADUATED,
    "volume": VOLUME,
    "minimum": {"model": "per_unit", "unit_amount": "0.0002", "amount_min": "5"},
    "capped": {"model": "per_unit", "unit_amount": "0.0002", "amount_max": "0.3", "percent_discount": "10"},
}
WHOLE = {
    "percentage": {"model": "percentage", "rate": "2.9", "fixed_amount": "0.3", "free_events": 1},
    "clamped": {"model": "percentage", "rate": "2.9", "minimum_per_event": "1.75", "maximum_per_event": "20"},
    "dynamic": {"model": "dynamic", "multiplier": "1.2"},
}


def meter():
    return make_meter(dimensions=["model"])


def invoices(world):
    return list(Invoice.objects.filter(tenant=world.tenant).order_by("pk"))


def use_everywhere(world):
    """Use in time, out of order, in several dimension sets, and one event that is taken back."""
    world.use(4_000, time=at("2026-06-11 00:00"), model="opus")
    world.use("7000.5", time=at("2026-06-05 00:00"), model="haiku")
    world.use(333, time=at("2026-06-07 00:00"))
    taken_back = world.use(777, time=at("2026-06-08 00:00"), model="opus").outcomes[0].event_id
    reverse_event(event_id=taken_back, reason="test", actor=ACTOR)


@pytest.mark.parametrize("name", [*PRICES, *WHOLE])
def test_every_price_model_is_proved_in_time_and_late(name):
    meter()
    price = PRICES.get(name) or WHOLE[name]
    included = "0" if name in WHOLE else "10000"
    world = make_world(
        version=publish(name, charges=[charge(price=price, included=included)]), now=at("2026-06-20 00:00")
    )
    use_everywhere(world)
    advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    world.use(501, time=at("2026-06-21 00:00"), model="opus")
    advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
    assert InvoiceLine.objects.filter(kind="overage").exists()
    assert {str(invoice): verify(invoice) for invoice in invoices(world)} == {
        "TEST-000001": [],
        "TEST-000002": [],
        "TEST-000003": [],
    }


def test_shares_of_a_pool_that_never_end_as_decimals_are_proved():
    meter()
    opus = charge(dimensions={"model": "opus"}, included=None, price={"model": "per_unit", "unit_amount": "0.0071"})
    haiku = charge(dimensions={"model": "haiku"}, included=None, price={"model": "per_unit", "unit_amount": "0.0013"})
    version = publish("pools", charges=[charge(included="10"), opus, haiku])
    world = make_world(version=version, now=at("2026-06-20 00:00"))
    for tokens, model in ((7, "opus"), (5, "haiku"), (11, "other")):
        world.use(tokens, time=at("2026-06-05 00:00"), model=model)
    advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    period = invoices(world)[-1]
    assert verify(period) == []
    # 13 of 23 units are overage: 7 × 13/23 × 0.0071 = 0.0280…
    opus_line = period.lines.get(description__contains="opus")
    assert (opus_line.amount, str(opus_line.amount_precise)) == (Decimal("0.03"), "0.028091304347826087")


def test_credits_of_a_cancellation_are_proved():
    meter()
    world = make_world(now=at("2026-06-16 00:00"))
    cancel_subscription(subscription_id=world.subscription.pk, when="now", credit="unused", now=world.now, actor=ACTOR)
    advance(clock_id=world.clock.pk, to=at("2026-06-17 00:00"), actor=ACTOR)
    assert [verify(invoice) for invoice in invoices(world)] == [[], []]


def test_voiding_one_invoice_leaves_the_others_provable():
    meter()
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    world.use(400, time=at("2026-06-06 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
    # The second line of June's charge was made on top of the first, which is voided only now.
    invoicing.void(invoice_id=invoices(world)[1].pk, now=world.now, actor=ACTOR, reason="test")
    advance(clock_id=world.clock.pk, to=at("2026-09-02 00:00"), actor=ACTOR)
    june = [
        (line.invoice.reason, line.quantity, line.amount)
        for line in InvoiceLine.objects.filter(kind="overage").exclude(invoice__status="void").order_by("pk")
    ]
    assert june == [("period", 400, Decimal("0.08")), ("period", 2345, Decimal("0.47"))]
    assert [verify(invoice) for invoice in invoices(world)] == [[]] * 4


def test_late_usage_and_what_was_taken_back_after_closing_are_proved():
    meter()
    world = make_world(now=at("2026-06-20 00:00"))
    taken_back = world.use(12_345, time=at("2026-06-05 00:00")).outcomes[0].event_id
    advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    reverse_event(event_id=taken_back, reason="test", actor=ACTOR)
    world.use(100, time=at("2026-06-06 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
    assert [verify(invoice) for invoice in invoices(world)] == [[], [], []]


@pytest.mark.parametrize("used", [8_000, 12_345])
def test_what_was_taken_back_after_closing_covers_no_later_usage_and_is_proved(used):
    # Whether or not the allowance was used up: what a late reversal un-burns expires at once, so each later unit is overage.
    meter()
    world = make_world(now=at("2026-06-20 00:00"))
    first = world.use(used, time=at("2026-06-05 00:00")).outcomes[0].event_id
    second = world.use(100, time=at("2026-06-05 00:00")).outcomes[0].event_id
    advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    world.use(30, time=at("2026-06-06 00:00"))
    reverse_event(event_id=first, reason="test", actor=ACTOR)
    world.use(200, time=at("2026-06-06 00:00"))
    reverse_event(event_id=second, reason="test", actor=ACTOR)
    world.use(50, time=at("2026-06-06 00:00"))
    assert world.balance(period__sequence=1).overage == 150  # 0, then 200 − 100 + 50
    advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
    assert [verify(invoice) for invoice in invoices(world)] == [[], [], []]


def test_a_figure_that_events_do_not_confirm_is_named():
    meter()
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    invoicing.void(invoice_id=invoices(world)[1].pk, now=world.now, actor=ACTOR, reason="test")
    draft = invoicing.draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)
    assert verify(draft) == []

    draft.lines.filter(kind="overage").update(amount="0.50")
    draft.lines.filter(kind="fee").update(amount="98.00")
    assert verify(draft) == [
        Difference(1, "amount", "99", "98"),
        Difference(2, "amount", "0.47", "0.5"),
        Difference(None, "subtotal", "98.5", "99.47"),
        Difference(None, "total", "98.5", "99.47"),
        Difference(None, "amount_due", "98.5", "99.47"),
    ]
    draft.delete()
