"""The staff's draft of what is unbilled: made on the subscription's page, finalised on the invoice's."""

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from invoices.models import Invoice
from invoices.services import invoicing
from subscriptions.models import AuditEntry
from tests.world import ACTOR, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann():
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("ann", password="x"))
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
