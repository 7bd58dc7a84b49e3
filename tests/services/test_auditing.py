"""The hourly audit: it finds whose books are broken, parks them and nobody else, and staff release them."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from billing_site.console.metrics import figures
from invoices import tasks
from invoices.models import AuditRun, Invoice
from invoices.selectors.books import INVARIANTS, breaches, broken_books
from invoices.services.advancing import advance
from invoices.services.closing import book_balance, close_period
from invoices.services.due import sweep
from invoices.services.invoicing import draft_unbilled, finalize, void
from invoices.services.subscribing import start_subscription
from metering.models import OverageCharge, UsageEvent
from metering.services.reversing import reverse_event
from subscriptions.models import AuditEntry, Tenant
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.tenants import TenantParked, parked_tenants
from subscriptions.services import tenants
from subscriptions.services.parking import TenantNotParked, park_tenant, release_tenant
from tests.world import ACTOR, at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

CLOSES = at("2026-07-01 01:00")


@pytest.fixture(autouse=True)
def tokens(transactional_db):
    """Make the meter that every version here charges."""
    make_meter()
    figures.cache_clear()


def write(sql, *values):
    """Write past every service and trigger, as only a fault could."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql, values)
        assert cursor.rowcount == 1


@contextmanager
def broken_balance(world):
    """Let a balance say 5 more than its entries, and put it right again."""
    change = "UPDATE metering_meterbalance SET used = used + %s WHERE id = %s"
    balance = world.balance()
    write(change, 5, balance.pk)
    yield balance
    write(change, -5, balance.pk)


def run_audit():
    """Run the hourly task, and return what it kept."""
    tasks.audit_books()
    return AuditRun.objects.latest("pk")


def world_in_june():
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    return world


def reasons(world):
    return list(Invoice.objects.filter(tenant=world.tenant).order_by("pk").values_list("reason", flat=True))


def until_july(*worlds):
    """Let each tenant's time pass the closing of June."""
    for world in worlds:
        advance(clock_id=world.clock.pk, to=CLOSES, actor=ACTOR)


def metric(client, name):
    figures.cache_clear()
    lines = client.get("/metrics").content.decode().splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)]


def test_books_that_balance_park_nobody():
    world_in_june()
    run = run_audit()
    assert (run.broken, run.parked, str(run)) == ({}, 0, "the books are right")
    assert not parked_tenants().exists()


def test_a_tenant_whose_balance_is_wrong_is_parked_with_the_reasons_and_no_other():
    broken, sound = world_in_june(), world_in_june()
    with broken_balance(broken) as balance:
        run = run_audit()
        names = ["balance_is_its_entries", "balance_is_its_segments", "events_are_in_the_balance"]
        assert (run.broken, run.parked, str(run)) == (dict.fromkeys(names, 1), 1, "3 rows break the books")
        assert list(parked_tenants()) == [broken.tenant]
        tenant = Tenant.objects.get(pk=broken.tenant.pk)
        assert tenant.parked_reason.startswith(f"balance_is_its_entries, 1 ×, e.g. ({tenant.pk},{balance.pk},12350.")
        entry = AuditEntry.objects.get(action="park")
        assert (entry.actor, entry.object_id, entry.reason) == ("system", tenant.code, tenant.parked_reason)
        assert sound.tenant.code not in {breach.tenant for breach in breaches()} == {broken.tenant.code}

        assert run_audit().parked == 0
        assert AuditEntry.objects.filter(action="park").count() == 1


def test_a_parked_tenant_is_not_closed_and_its_usage_is_recorded_until_it_is_released():
    broken, sound = world_in_june(), world_in_june()
    with broken_balance(broken):
        run_audit()
    until_july(broken, sound)
    assert reasons(sound) == ["opening", "period"]
    assert reasons(broken) == ["opening"]
    assert not OverageCharge.objects.filter(tenant=broken.tenant).exists()

    [outcome] = broken.use(655, time=at("2026-06-30 00:00")).outcomes
    assert outcome.status == "accepted"
    [july] = broken.use(1).outcomes
    assert july.status == "accepted"
    assert sweep(now=wall_now(), seconds_max=30) == []

    release_tenant(tenant_id=broken.tenant.pk, actor="staff:fay", reason="figure mended")
    assert [entry.what for entry in sweep(now=wall_now(), seconds_max=30)] == [
        "book_overage",
        "close_period",
    ]
    assert reasons(broken) == ["opening", "period"]
    june = Invoice.objects.get(tenant=broken.tenant, reason="period")
    assert june.lines.get(kind="overage").quantity == 3000
    entry = AuditEntry.objects.get(action="release")
    assert (entry.actor, entry.reason) == ("staff:fay", "figure mended")
    assert entry.before["parked_reason"].startswith("balance_is_its_entries")


def test_no_door_charges_a_parked_tenant():
    world = world_in_june()
    draft = draft_unbilled_after_void(world)
    park_tenant(tenant_id=world.tenant.pk, reason="test")
    period = world.subscription.periods.get()
    with pytest.raises(TenantParked):
        close_period(period_id=period.pk, now=CLOSES)
    with pytest.raises(TenantParked):
        book_balance(balance_id=world.balance().pk, now=world.now)
    with pytest.raises(TenantParked):
        finalize(invoice_id=draft.pk, now=world.now, actor=ACTOR)
    assert tasks.book_overage(world.balance().pk) is None
    assert not OverageCharge.objects.exists()


def draft_unbilled_after_void(world):
    void(invoice_id=Invoice.objects.get().pk, now=world.now, actor=ACTOR, reason="test")
    return draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)


def test_what_is_no_tenants_fault_parks_nobody_and_is_counted(client):
    world_in_june()
    write("UPDATE invoices_numbersequence SET last_number = last_number + 1")
    run = run_audit()
    assert (run.broken, run.parked) == ({"numbers_are_gapless": 1}, 0)
    assert metric(client, 'tierbook_audit_broken_rows{invariant="numbers_are_gapless"}') == [1]
    write("UPDATE invoices_numbersequence SET last_number = last_number - 1")


def test_an_event_without_its_key_is_the_fault_of_its_subject():
    world = world_in_june()
    event = UsageEvent.objects.get()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM metering_eventkey")
        row = cursor.fetchone()
    write("DELETE FROM metering_eventkey WHERE subject = %s", event.subject)
    assert [(one.invariant, one.tenant_id) for one in broken_books()] == [("event_is_posted", world.tenant.pk)]
    write(f"INSERT INTO metering_eventkey VALUES ({', '.join(['%s'] * len(row))})", *row)


@pytest.mark.parametrize("invariant", [one for one in INVARIANTS if one.of_tenant], ids=lambda one: one.name)
def test_each_invariant_of_tenants_names_the_tenant_first(invariant):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM ({invariant.sql}) AS broken LIMIT 0")
        assert cursor.description[0].name == "tenant_id"


def test_the_metrics_say_what_waits(client):
    assert metric(client, "tierbook_audit") == []
    world = world_in_june()
    park_tenant(tenant_id=world.tenant.pk, reason="test")
    run_audit()
    assert metric(client, "tierbook_tenants_parked") == [1]
    assert metric(client, "tierbook_audit_broken_rows") == [0] * len(INVARIANTS)
    assert abs(metric(client, "tierbook_audit_timestamp_seconds")[0] - wall_now().timestamp()) < 60
    assert metric(client, 'tierbook_due_rows{work="book_overage"}') == [0]
    answer = client.get("/metrics")
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    assert world.tenant.code not in answer.content.decode()


def test_the_metrics_tell_the_oldest_due_work_in_wall_time(client):
    tenant = tenants.create_tenant(code="real", name="Real", actor=ACTOR)
    start = wall_now() - timedelta(days=40)
    start_subscription(
        tenant=tenant, version=publish("real"), starts_at=start, anchor_at=start, now=wall_now(), actor=ACTOR
    )
    assert metric(client, 'tierbook_due_rows{work="close_period"}') == [1]
    assert metric(client, 'tierbook_due_lag_seconds{work="close_period"}')[0] > 7 * 24 * 3600
    park_tenant(tenant_id=tenant.pk, reason="test")
    assert metric(client, 'tierbook_due_rows{work="close_period"}') == [0]


def test_a_command_releases_with_who_and_why(capsys):
    world = world_in_june()
    asked = [world.tenant.code, "--by", "fay", "--reason", "mended"]
    with pytest.raises(CommandError, match="is not parked"):
        call_command("release_tenant", *asked)
    with pytest.raises(TenantNotParked):
        release_tenant(tenant_id=world.tenant.pk, actor=ACTOR, reason="twice")
    park_tenant(tenant_id=world.tenant.pk, reason="test")
    call_command("release_tenant", *asked)
    assert capsys.readouterr().out == f"{world.tenant.code} is released.\n"
    entry = AuditEntry.objects.get(action="release")
    assert (entry.actor, entry.reason) == ("shell:fay", "mended")
    assert not parked_tenants().exists()
    with pytest.raises(CommandError, match="There is no tenant nobody"):
        call_command("release_tenant", "nobody", "--by", "fay", "--reason", "mended")


def test_usage_that_was_booked_and_taken_back_stands_on_no_invoice_and_breaks_nothing():
    world = world_in_june()
    book_balance(balance_id=world.balance().pk, now=world.now)
    reverse_event(event_id=UsageEvent.objects.get().pk, reason="test", actor=ACTOR)
    until_july(world)
    assert [charge.quantity for charge in OverageCharge.objects.order_by("pk")] == [2345, -2345]
    assert reasons(world) == ["opening", "period"]
    assert breaches() == []


def test_late_usage_that_is_booked_at_the_time_of_the_closing_waits_for_the_next_invoice_and_breaks_nothing():
    world = world_in_june()
    until_july(world)
    world.use(100, time=at("2026-06-06 00:00"))
    late = world.balance(period__sequence=1)
    assert [charge.booked_at for charge in book_balance(balance_id=late.pk, now=world.now)] == [CLOSES]
    assert breaches() == []


def test_a_closed_period_whose_booking_no_invoice_holds_is_found_after_the_next_closing():
    world = world_in_june()
    until_july(world)
    advance(clock_id=world.clock.pk, to=at("2026-08-01 01:00"), actor=ACTOR)
    charge = OverageCharge.objects.get()
    source = charge.billed_by.get()
    write("DELETE FROM invoices_invoicelinesource WHERE id = %s", source.pk)
    assert {one.invariant for one in broken_books()} >= {"closed_period_is_billed"}
    source.save(force_insert=True)


def test_usage_that_was_booked_and_taken_back_before_the_closing_booked_it_breaks_nothing():
    world = world_in_june()
    book_balance(balance_id=world.balance().pk, now=world.now)
    reverse_event(event_id=UsageEvent.objects.get().pk, reason="test", actor=ACTOR)
    close_period(period_id=world.subscription.periods.get().pk, now=CLOSES)
    assert [charge.booked_at for charge in OverageCharge.objects.order_by("pk")] == [world.now, CLOSES]
    assert breaches() == []


def void_june(world):
    void(invoice_id=Invoice.objects.get(reason="period").pk, now=world.now, actor=ACTOR, reason="test")


def until_august(world):
    advance(clock_id=world.clock.pk, to=at("2026-08-01 01:00"), actor=ACTOR)


def test_usage_that_a_voided_invoice_billed_and_that_was_taken_back_stands_on_no_other_and_breaks_nothing():
    world = world_in_june()
    until_july(world)
    void_june(world)
    reverse_event(event_id=UsageEvent.objects.get().pk, reason="test", actor=ACTOR)
    until_august(world)
    assert [charge.quantity for charge in OverageCharge.objects.order_by("pk")] == [2345, -2345]
    july = Invoice.objects.exclude(status="void").get(reason="period")
    assert not july.lines.filter(kind="overage").exists()
    assert breaches() == []


def test_usage_that_a_voided_invoice_billed_and_the_next_one_does_not_is_found():
    world = world_in_june()
    until_july(world)
    void_june(world)
    until_august(world)
    charge = OverageCharge.objects.get()
    source = charge.billed_by.get(released_at=None)
    assert breaches() == []
    write("DELETE FROM invoices_invoicelinesource WHERE id = %s", source.pk)
    assert {one.invariant for one in broken_books()} >= {"closed_period_is_billed"}
    source.save(force_insert=True)


def test_an_invoice_that_is_voided_at_the_time_of_a_later_closing_waits_for_the_next_one_and_breaks_nothing():
    world = world_in_june()
    until_july(world)
    june = Invoice.objects.get(reason="period")
    until_august(world)
    void(invoice_id=june.pk, now=world.now, actor=ACTOR, reason="test")
    assert breaches() == []
