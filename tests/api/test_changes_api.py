"""Changing tier through the API: the golden figures, the preview, the statement, and what the gate says next."""

from decimal import Decimal
from itertools import count

import pytest
from django.db import connection

from invoices.models import Invoice
from invoices.services.advancing import advance
from invoices.services.changing import Asked, change_tier
from metering.models import LedgerEntry
from subscriptions.models import FeeItem, ScheduledChange, TierChange, TierVersion
from tests.api.test_invoices_api import Api
from tests.world import ACTOR, JUNE, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def world():
    """A tenant on $99 a month with 10,000 tokens; there is a tier of $499 with 100,000."""
    make_meter()
    publish("scale", fee="499.00", charges=[charge(included="100000")])
    return make_world(version=publish("growth"), code="acme")


def move(world, text):
    advance(clock_id=world.clock.pk, to=at(text), actor=ACTOR)


def change(api, world, key="change", **body):
    path = f"/subscriptions/{world.subscription.public_id}/change"
    return api.post(path, {"tier": "scale", "when": "now"} | body, key=key)


FIGURES = ("credit", "charge", "net")


@pytest.mark.parametrize(
    ("when", "grain", "figures", "allowance", "share"),
    [
        ("2026-06-15 00:00", "day", ("-52.80", "266.13", "213.33"), "58000", (16, 30)),
        ("2026-06-14 10:00", "day", ("-56.10", "282.77", "226.67"), "61000", (17, 30)),
        ("2026-06-14 10:00", "second", ("-54.73", "275.84", "221.11"), "59750", (1_432_800, 2_592_000)),
    ],
)
def test_the_golden_changes(api, world, when, grain, figures, allowance, share):
    world.use(12_000, time=JUNE)
    move(world, when)
    preview = change(api, world, grain=grain, preview=True)
    assert preview.status_code == 200, preview.json()
    assert (TierChange.objects.count(), FeeItem.objects.count()) == (0, 1)
    done = change(api, world, grain=grain).json()
    assert preview.json() == done | {"id": None, "status": "preview"}
    assert tuple(done[name] for name in FIGURES) == figures
    assert done["allowances"] == [
        {"meter": "tokens", "dimensions": {}, "before": "10000", "after": allowance, "used": "12000"}
    ]
    assert [(line["kind"], line["numerator"], line["divisor"]) for line in done["lines"]] == [
        ("credit", *share),
        ("charge", *share),
    ]
    assert world.position() == ("12000", "12000", "0")
    assert LedgerEntry.objects.get(kind="rescale").quantity == Decimal(allowance) - 10_000


def test_the_closing_invoice_of_the_first_one(api, world):
    move(world, "2026-06-15 00:00")
    done = change(api, world).json()
    move(world, "2026-07-01 02:00")
    closing = Invoice.objects.get(reason="period")
    assert closing.total == Decimal("712.33")
    assert [(line.kind, line.amount) for line in closing.lines.all()] == [
        ("fee", 499),
        ("proration", Decimal("-52.80")),
        ("proration", Decimal("266.13")),
    ]
    statement = api.get(f"/subscriptions/{world.subscription.public_id}/changes/{done['id']}").json()
    assert [line["invoice"]["line"] for line in statement["lines"]] == [2, 3]
    assert statement["words"] == [
        "From 15 June 2026 on: Scale (version 1) instead of Growth (version 1).",
        "Of the fee of Growth 52.80 USD is given back, for 16 of 30 days.",
        "Of the fee of Scale 266.13 USD is charged, for 16 of 30 days.",
        "The allowance of tokens goes from 10,000 to 58,000; 0 had been used.",
        f"This is billed on the invoice {closing.printed_number}, lines 2 and 3.",
    ]
    verified = api.post(f"/invoices/{closing.public_id}/verify", {}, key="v")
    assert verified.json() == {"equal": True, "differences": []}


def test_it_is_billed_at_once_where_that_is_asked_for(api, world):
    move(world, "2026-06-15 00:00")
    done = change(api, world, bill="now").json()
    invoice = Invoice.objects.get(reason="change")
    assert (invoice.total, invoice.status) == (Decimal("213.33"), "open")
    assert [line["invoice"]["number"] for line in done["lines"]] == [invoice.printed_number] * 2
    move(world, "2026-07-01 02:00")
    assert Invoice.objects.get(reason="period").total == 499


def test_a_change_at_the_end_of_the_period_waits_for_it(api, world):
    move(world, "2026-06-15 00:00")
    scheduled = change(api, world, when="period_end").json()
    assert (scheduled["status"], scheduled["effective_at"]) == ("scheduled", "2026-07-01T00:00:00Z")
    assert [scheduled[name] for name in FIGURES] == ["0.00", "0.00", "0.00"]
    assert scheduled["allowances"][0]["after"] == "100000"
    assert ScheduledChange.objects.get().status == "scheduled"
    assert api.get(f"/subscriptions/{world.subscription.public_id}/changes/{scheduled['id']}").json() == scheduled
    move(world, "2026-07-01 02:00")
    assert ScheduledChange.objects.get().status == "done"
    assert Invoice.objects.get(reason="period").total == 499
    assert world.balance().grants.get().quantity == 100_000


def test_a_change_at_a_date_is_carried_out_at_that_instant(api, world):
    scheduled = change(api, world, when="2026-06-15T00:00:00Z").json()
    assert [scheduled[name] for name in FIGURES] == ["-52.80", "266.13", "213.33"]
    assert world.balance().grants.get().quantity == 10_000
    move(world, "2026-06-20 00:00")
    statement = api.get(f"/subscriptions/{world.subscription.public_id}/changes/{scheduled['id']}").json()
    assert statement == scheduled | {"status": "done"}
    assert world.balance().grants.get().quantity == 58_000


def test_another_interval_resets(api, world):
    publish("yearly", fee="4990.00", interval="year", charges=[charge(included="1000000")])
    world.use(12_000, time=JUNE)
    move(world, "2026-06-15 10:00")
    done = change(api, world, tier="yearly").json()
    assert done["allowance"] == "reset"
    assert [done[name] for name in FIGURES] == ["-52.80", "4990.00", "4937.20"]
    first, second = world.subscription.periods.order_by("sequence")
    assert (first.ends_at, second.starts_at, second.ends_at) == (
        at("2026-06-15 10:00"),
        at("2026-06-15 10:00"),
        at("2027-06-15 10:00"),
    )
    move(world, "2026-06-15 12:00")
    closing = Invoice.objects.get(reason="period")
    assert closing.total == Decimal("4937.60")  # with 2,000 tokens beyond the allowance of June
    assert world.position() == ("0", "0", "0")


def test_the_overage_of_a_tier_that_was_left_and_comes_back_is_billed_once(api, world):
    world.use(12_000, time=JUNE)
    move(world, "2026-06-15 00:00")
    change(api, world, fee="none")
    move(world, "2026-06-16 00:00")
    change(api, world, "back", tier="growth", fee="none")
    move(world, "2026-06-20 00:00")
    world.use(101_000)
    # 9,000 on 29 days and 100,000 on one of 30 are 13,000 included, of the 113,000 used.
    assert world.position() == ("113000", "13000", "100000")
    move(world, "2026-07-01 02:00")
    closing = Invoice.objects.get(reason="period")
    assert [(line.kind, line.amount) for line in closing.lines.all()] == [("fee", 99), ("overage", 20)]
    verified = api.post(f"/invoices/{closing.public_id}/verify", {}, key="v")
    assert verified.json() == {"equal": True, "differences": []}


def test_a_change_at_the_first_instant_of_a_period_counts_in_its_allowance(api, world):
    change(api, world, fee="none")
    move(world, "2026-06-15 00:00")
    done = change(api, world, "back", tier="growth", fee="none").json()
    # 100,000 for 14 days and 10,000 for 16, of 30.
    assert [done["allowances"][0][name] for name in ("before", "after")] == ["100000", "52000"]


def test_two_changes_at_one_date_come_into_force_one_after_the_other(api, world):
    first = change(api, world, "first", when="2026-06-15T00:00:00Z", allowance="reset").json()
    second = change(api, world, "second", when="2026-06-15T00:00:00Z", tier="growth").json()
    assert [second[name] for name in FIGURES] == ["-499.00", "99.00", "-400.00"]
    move(world, "2026-06-15 00:30")
    path = f"/subscriptions/{world.subscription.public_id}/changes"
    assert api.get(f"{path}/{first['id']}").json() == first | {"status": "done"}
    assert api.get(f"{path}/{second['id']}").json() == second | {"status": "done"}
    assert list(TierChange.objects.order_by("pk").values_list("to_version__tier__code", "period__sequence")) == [
        ("scale", 2),
        ("growth", 2),
    ]


def test_a_reset_gives_back_what_was_charged_at_the_same_instant(api, world):
    move(world, "2026-06-15 00:00")
    change(api, world)
    done = change(api, world, "anew", allowance="reset").json()
    assert [done[name] for name in FIGURES] == ["-266.13", "499.00", "232.87"]


def test_of_two_that_begin_anew_at_one_instant_the_second_follows_a_moment_later(api, world):
    move(world, "2026-06-15 00:00")
    change(api, world, allowance="reset")
    again = change(api, world, "again", tier="growth", allowance="reset").json()
    assert [again[name] for name in FIGURES] == ["-499.00", "99.00", "-400.00"]
    at_last = change(api, world, "at last").json()
    assert [at_last[name] for name in FIGURES] == ["-99.00", "499.00", "400.00"]
    move(world, "2026-06-15 00:30")
    assert (world.balance().period.sequence, world.balance().grants.get().quantity) == (3, 100_000)


def test_a_change_while_an_early_event_has_opened_the_next_period_takes_effect_there(api, world):
    move(world, "2026-06-30 23:55")
    world.use(1, time=at("2026-07-01 00:02"))
    done = change(api, world).json()
    assert (done["effective_at"], done["net"]) == ("2026-07-01T00:00:00Z", "400.00")
    move(world, "2026-07-15 00:00")
    assert world.balance().grants.get().quantity == 100_000


def test_what_waits_for_the_end_of_the_period_waits_for_that_of_the_one_that_a_change_begins(api, world):
    publish("mini", fee="19.00", charges=[charge(included="1000")])
    move(world, "2026-06-10 00:00")
    waiting = change(api, world, "waiting", tier="mini", when="period_end").json()
    assert waiting["effective_at"] == "2026-07-01T00:00:00Z"
    move(world, "2026-06-15 00:00")
    done = change(api, world, allowance="reset").json()
    assert [done[name] for name in FIGURES] == ["-52.80", "499.00", "446.20"]
    again = change(api, world, "again", tier="growth", when="period_end", preview=True).json()
    assert again["effective_at"] == "2026-07-15T00:00:00Z"
    move(world, "2026-07-15 02:00")
    assert world.balance().grants.get().quantity == 1000


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"when": "2026-05-01T00:00:00Z"}, 422, "change_in_the_past"),
        ({"when": "2999-12-31T23:59:59Z"}, 422, "change_too_far"),
        ({"when": "soon"}, 422, "validation"),
        ({"tier": "growth"}, 422, "nothing_changes"),
        ({"tier": "none"}, 404, "not_found"),
        ({"fee": "half"}, 422, "validation"),
        ({"allowence": "reset"}, 422, "unknown_field"),
    ],
)
def test_what_cannot_be(api, world, body, status, code):
    answer = change(api, world, **body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (TierChange.objects.count(), ScheduledChange.objects.count()) == (0, 0)


class PowerFails(Exception):
    """The process ends before a statement."""


def test_a_change_that_is_cut_off_before_any_of_its_statements_has_not_happened(world):
    world.use(12_000, time=JUNE)
    move(world, "2026-06-15 00:00")
    scale = TierVersion.objects.get(tier__code="scale")
    asked = Asked(to_version=scale, when="now", choices={"bill": "now"})
    terms = {"subscription_id": world.subscription.pk, "asked": asked, "now": world.now, "actor": ACTOR}

    def books():
        amounts = list(FeeItem.objects.order_by("pk").values_list("amount", flat=True))
        return world.position(), world.balance().grants.get().quantity, amounts, Invoice.objects.count()

    before = books()
    for survives in count():
        sent = count()

        def fail(execute, *statement, sent=sent, survives=survives):
            if next(sent) == survives:
                raise PowerFails
            return execute(*statement)

        try:
            with connection.execute_wrapper(fail):
                change_tier(**terms, read=lambda change: change.pk)
            break
        except PowerFails:
            assert (books(), TierChange.objects.count()) == (before, 0)
    assert survives > 30, "it sends some fifty statements"
    assert books() == (("12000", "12000", "0"), 58_000, [99, Decimal("-52.80"), Decimal("266.13")], 2)
