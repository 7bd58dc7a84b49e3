"""Tenants: what they may be, what may change, and that each change is noted."""

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, connections, transaction

from billing_site.http.problems import Invalid
from subscriptions.models import AuditEntry, OutboxMessage, Tenant
from subscriptions.selectors.tenants import TenantNotFound, get_tenant
from subscriptions.services import agreement, audit, clocks, outbox
from subscriptions.services.tenants import CurrencyFixed, create_tenant, update_tenant
from subscriptions.services.uniqueness import AlreadyExists
from tests.world import JUNE, publish

pytestmark = pytest.mark.django_db

WHOLE = {
    "code": "org_7890",
    "name": "Acme",
    "email": "billing@acme.example",
    "currency": "EUR",
    "spend_cap": Decimal("250.00"),
    "timezone": "Europe/Berlin",
    "country": "DE",
    "tax_ids": [{"type": "eu_vat", "value": "DE123456789"}],
    "metadata": {"crm": "00123"},
}


def make(**terms):
    return create_tenant(**({"code": "acme", "name": "Acme", "actor": "key:tb_back_off"} | terms))


def change(tenant, **changes):
    return update_tenant(tenant_id=tenant.pk, changes=changes, actor="staff:ann")


def faults(refusal):
    return [(error.path, error.code) for error in refusal.value.errors]


def test_a_tenant_is_stored_as_it_was_given():
    make(**WHOLE)
    stored = get_tenant("org_7890")
    assert {name: getattr(stored, name) for name in WHOLE} == WHOLE
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.object_type, entry.object_id) == (
        "key:tb_back_off",
        "create",
        "subscriptions.tenant",
        "org_7890",
    )
    assert entry.after == WHOLE | {"spend_cap": "250.00", "test_clock": None}


def test_an_id_is_taken_once_and_the_loser_leaves_no_trace():
    make(name="First")
    with pytest.raises(AlreadyExists, match="acme"):
        make(name="Second")
    assert get_tenant("acme").name == "First"
    assert AuditEntry.objects.count() == 1


def test_an_unknown_tenant_is_not_found():
    with pytest.raises(TenantNotFound):
        get_tenant("nobody")


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        ({"currency": "usd"}, ("currency", "unknown_currency")),
        ({"currency": "XXX"}, ("currency", "unknown_currency")),
        ({"spend_cap": Decimal("-1")}, ("spend_cap", "not_an_amount")),
        ({"spend_cap": Decimal("1.001")}, ("spend_cap", "not_an_amount")),
        ({"spend_cap": Decimal("1.5"), "currency": "JPY"}, ("spend_cap", "not_an_amount")),
        ({"currency": "XAU"}, ("currency", "unknown_currency")),
        ({"timezone": "Mars/Olympus"}, ("timezone", "unknown_timezone")),
        ({"timezone": "europe/berlin"}, ("timezone", "unknown_timezone")),
        ({"timezone": "localtime"}, ("timezone", "unknown_timezone")),
        ({"timezone": "../../etc/passwd"}, ("timezone", "unknown_timezone")),
        ({"country": "de"}, ("country", "unknown_country")),
        ({"country": "DEU"}, ("country", "unknown_country")),
        ({"test_clock": "nowhere"}, ("test_clock", "does_not_exist")),
    ],
)
def test_what_is_not_known_is_refused(terms, fault):
    with pytest.raises(Invalid) as refusal:
        make(**terms)
    assert faults(refusal) == [fault]
    assert not Tenant.objects.exists()


def test_an_id_that_could_stand_in_no_address_is_refused_by_the_database():
    with pytest.raises(IntegrityError), transaction.atomic():
        make(code="a/b")


def test_a_tenant_on_a_test_clock_stays_on_it():
    clocks.create_clock(code="future", now=JUNE, actor="system")
    tenant = make(test_clock="future")
    assert tenant.test_clock.code == "future"
    with pytest.raises(AssertionError):
        change(tenant, test_clock=None)


def test_a_change_notes_what_was_and_what_is():
    tenant = make()
    changed = change(tenant, name="Acme Inc", country="US", currency="USD")
    assert (changed.name, changed.country) == ("Acme Inc", "US")
    entry = AuditEntry.objects.get(action="update")
    assert (entry.before, entry.after) == ({"name": "Acme", "country": ""}, {"name": "Acme Inc", "country": "US"})


def test_a_change_without_a_difference_notes_nothing():
    change(make(), name="Acme")
    assert not AuditEntry.objects.filter(action="update").exists()


def test_a_change_to_something_unknown_is_refused_and_changes_nothing():
    tenant = make()
    with pytest.raises(Invalid) as refusal:
        change(tenant, name="Acme Inc", timezone="Nowhere")
    assert faults(refusal) == [("timezone", "unknown_timezone")]
    tenant.refresh_from_db()
    assert tenant.name == "Acme"


def test_the_currency_changes_until_the_first_subscription():
    tenant = change(make(), currency="JPY")
    with pytest.raises(agreement.CurrencyMismatch):
        subscribe(tenant, publish(charges=[]))
    tenant = change(tenant, currency="USD")
    subscription = subscribe(tenant, publish("other", charges=[]))
    with pytest.raises(CurrencyFixed):
        change(tenant, currency="JPY")
    agreement.end(subscription=subscription, ends_at=JUNE, credit="none", now=JUNE)
    with pytest.raises(CurrencyFixed):
        change(tenant, currency="JPY")
    assert change(tenant, currency="USD", name="Acme Inc").name == "Acme Inc"


def subscribe(tenant, version):
    return agreement.start(tenant=tenant, version=version, starts_at=JUNE, anchor_at=JUNE, now=JUNE)


@pytest.mark.django_db(transaction=True)
def test_the_currency_does_not_change_under_a_subscription_that_starts_meanwhile():
    tenant, version = make(), publish(charges=[])
    started, release = threading.Event(), threading.Event()

    def start_slowly():
        try:
            with transaction.atomic():
                subscribe(tenant, version)
                started.set()
                release.wait(10)
        finally:
            connections.close_all()

    def change_currency():
        try:
            change(tenant, currency="JPY")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        start = threads.submit(start_slowly)
        assert started.wait(10)
        changed = threads.submit(change_currency)
        with pytest.raises(TimeoutError):
            changed.result(timeout=0.3)  # waits for the start
        release.set()
        start.result()
        with pytest.raises(CurrencyFixed):
            changed.result()
    assert get_tenant("acme").currency == "USD"


def test_an_entry_and_a_message_are_written_or_rolled_back_with_what_they_tell():
    tenant = make()

    def fail():
        with transaction.atomic():
            audit.record(actor="system", action="close", instance=tenant, after={"at": JUNE}, reason="why")
            outbox.write(tenant=tenant, type="invoice.finalized", payload={"amount": "99.00"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not AuditEntry.objects.filter(action="close").exists()
    assert not OutboxMessage.objects.exists()


def test_a_message_is_kept_for_its_tenant():
    tenant = make()
    message = outbox.write(tenant=tenant, type="invoice.finalized", payload={"amount": "99.00"})
    message.refresh_from_db()
    assert (message.tenant, message.type, message.payload) == (tenant, "invoice.finalized", {"amount": "99.00"})


@pytest.mark.parametrize(
    "statement", ["UPDATE subscriptions_auditentry SET actor = 'nobody'", "DELETE FROM subscriptions_auditentry"]
)
def test_entries_are_only_added(statement):
    make()
    with pytest.raises(IntegrityError, match="never changed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
