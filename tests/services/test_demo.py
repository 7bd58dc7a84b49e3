"""The demo data in a small form: one closed month, a fifth of the calls."""

import pytest

from billing_site.console import demo
from invoices.models import Invoice
from metering.models import UsageEvent
from subscriptions.models import AuditEntry, BillingPeriod, Tenant, TestClock
from tests.world import at

pytestmark = pytest.mark.django_db(transaction=True)

NOW = at("2026-06-05 09:00")


def load(now=NOW):
    return demo.load(now=now, say=lambda line: None, months=1, days=3, calls_percent=20)


def rows():
    return [model.objects.count() for model in (UsageEvent, Invoice, BillingPeriod, Tenant, AuditEntry)]


def test_a_month_is_closed_and_loading_again_changes_nothing():
    loaded = load()

    assert TestClock.objects.get(code="demo-clock").now == at("2026-06-04 00:00")
    assert loaded.events == UsageEvent.objects.count() > 300
    billed = Invoice.objects.filter(reason="period").values_list("tenant__code", flat=True)
    assert set(billed) == {"demo-lantern", "demo-fjord", "demo-harbour", "demo-atlas"}
    assert BillingPeriod.objects.filter(closed_at__isnull=False).count() == 4
    assert not Invoice.objects.filter(reason="late").exists()

    before = rows()
    again = load(now=at("2026-08-20 09:00"))
    assert (again.events, again.invoices) == (0, loaded.invoices)
    assert rows() == before


def test_a_run_that_was_cut_off_is_finished_by_the_next_one(monkeypatch):
    record, calls = demo._record, []

    def cut_in_the_third_step(events, *, now):
        calls.append(len(events))
        if len(calls) == 3:
            record(events[: len(events) // 2], now=now)
            raise KeyboardInterrupt
        return record(events, now=now)

    monkeypatch.setattr(demo, "_record", cut_in_the_third_step)
    with pytest.raises(KeyboardInterrupt):
        load()
    monkeypatch.setattr(demo, "_record", record)
    load()

    expected = {
        (event.subject, event.id)
        for customer in demo.CUSTOMERS
        for event in demo._usage(customer, at("2026-05-01").date(), at("2026-04-01"), at("2026-06-04"), 20)
    }
    assert set(UsageEvent.objects.values_list("subject", "event_id")) == expected
