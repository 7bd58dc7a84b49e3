"""The staff's pages of invoices: drafts of what is unbilled, lines down to their events, and the proof of the figures."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from invoices.models import Invoice
from invoices.services import advancing, invoicing
from metering.models import UsageEvent
from subscriptions.models import AuditEntry
from tests.world import ACTOR, JUNE, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann():
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ann"))
    return client


def act(client, model, action, pk):
    path = reverse(f"admin:{model}_changelist")
    return client.post(path, {"action": action, "_selected_action": [str(pk)]}, follow=True).content.decode()


def test_what_is_unbilled_is_drafted_and_finalised(ann):
    world = make_world()
    invoicing.void(invoice_id=Invoice.objects.get().pk, now=world.now, actor=ACTOR, reason="test")
    assert "Drafted: 1" in act(ann, "subscriptions_subscription", "draft_unbilled", world.subscription.pk)
    draft = Invoice.objects.get(status="draft")
    assert (draft.reason, draft.total) == ("manual", 99)
    assert "Everything that is billable stands on an invoice" in act(
        ann, "subscriptions_subscription", "draft_unbilled", world.subscription.pk
    )

    assert "Finalised: 1" in act(ann, "invoices_invoice", "finalize", draft.pk)
    draft.refresh_from_db()
    assert draft.printed_number == "TEST-000002"
    actions = AuditEntry.objects.filter(actor="staff:ann").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["draft", "finalize"]


def closed_invoice():
    """Return the invoice of June: $99 for July, and 2,000 tokens beyond the 10,000 included, $0.40."""
    world = make_world()
    world.use(12_000, time=JUNE)
    advancing.advance(clock_id=world.clock.pk, to=JUNE + timedelta(days=31), actor=ACTOR)
    return Invoice.objects.get(reason="period")


def test_an_invoice_shows_its_lines_down_to_the_events_behind_them(ann):
    invoice = closed_invoice()
    shown = ann.get(reverse("admin:invoices_invoice_change", args=[invoice.pk])).content.decode()
    line = invoice.lines.get(kind="overage")
    events = reverse("admin:invoices_invoice_line_events", args=[invoice.pk, line.number])

    assert ">0.40 USD<" in shown
    assert ">2,000<" in shown
    assert ">0.0002<" in shown
    assert events in shown
    listed = ann.get(events).content.decode()
    event = reverse("admin:metering_usageevent_change", args=[UsageEvent.objects.get().pk])
    assert event in listed
    assert ">12,000<" in ann.get(event).content.decode()


def test_a_line_that_is_not_there_has_no_events(ann):
    invoice = closed_invoice()

    assert ann.get(reverse("admin:invoices_invoice_line_events", args=[invoice.pk, 9])).status_code == 404
    assert ann.get(reverse("admin:invoices_invoice_line_events", args=[invoice.pk + 9, 1])).status_code == 404


def test_the_events_of_a_line_are_for_who_may_see_events():
    invoice = closed_invoice()
    user = get_user_model().objects.create_user("max", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_invoice"))
    client = Client()
    client.force_login(user)

    assert client.get(reverse("admin:invoices_invoice_change", args=[invoice.pk])).status_code == 200
    assert client.get(reverse("admin:invoices_invoice_line_events", args=[invoice.pk, 2])).status_code == 403


def test_an_invoice_is_proved_by_its_events(ann):
    invoice = closed_invoice()

    assert f"Verified {invoice}" in act(ann, "invoices_invoice", "check_figures", invoice.pk)


def test_a_draft_that_was_tampered_with_is_not_proved(ann):
    world = make_world()
    invoicing.void(invoice_id=Invoice.objects.get().pk, now=world.now, actor=ACTOR, reason="test")
    draft = invoicing.draft_unbilled(subscription_id=world.subscription.pk, now=world.now, actor=ACTOR)
    Invoice.objects.filter(pk=draft.pk).update(subtotal=98)

    shown = act(ann, "invoices_invoice", "check_figures", draft.pk)
    assert "the invoice: subtotal is 98, must be 99" in shown


def test_an_invoice_is_found_by_its_printed_number(ann):
    invoice = closed_invoice()
    path = reverse("admin:invoices_invoice_changelist")

    for term in (invoice.printed_number, invoice.printed_number.lower(), str(invoice.number)):
        assert list(ann.get(path, {"q": term}).context["cl"].result_list) == [invoice], term
    assert not ann.get(path, {"q": "INV-000099"}).context["cl"].result_list
