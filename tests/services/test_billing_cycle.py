"""The cycle: an opening invoice, usage, a boundary, a closing, and an invoice that can be proved from events."""

from datetime import timedelta
from decimal import Decimal

import pytest

from invoices.models import Invoice
from invoices.services.advancing import advance
from tests.world import ACTOR, at, make_world

pytestmark = pytest.mark.django_db(transaction=True)


def invoices(world):
    return list(Invoice.objects.filter(tenant=world.tenant).order_by("pk").prefetch_related("lines"))


def test_a_month_is_billed_once_and_names_every_cent():
    world = make_world(now=at("2026-06-20 00:00"))
    [opening] = invoices(world)
    assert (opening.reason, opening.status, opening.total, opening.printed_number) == (
        "opening",
        "open",
        99,
        "TEST-000001",
    )

    world.use(18_305_870, time=at("2026-06-05 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)

    _, period = invoices(world)
    assert (period.reason, period.total, period.printed_number) == ("period", Decimal("3758.17"), "TEST-000002")
    fee, overage = period.lines.all()
    assert (fee.kind, fee.amount) == ("fee", 99)
    assert (overage.kind, overage.quantity, overage.amount) == ("overage", 18_295_870, Decimal("3659.17"))
    assert overage.amount_precise == Decimal("3659.174")

    advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00") + timedelta(hours=1), actor=ACTOR)
    assert len(invoices(world)) == 2


def test_late_usage_is_billed_on_the_next_invoice_and_names_its_period():
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_000, time=at("2026-06-05 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    world.use(500, time=at("2026-06-06 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-08-01 02:00"), actor=ACTOR)
    july = invoices(world)[-1]
    [late] = [line for line in july.lines.all() if line.kind == "overage"]
    assert (late.period.starts_at, late.quantity, late.amount) == (at("2026-06-01 00:00"), 500, Decimal("0.10"))
