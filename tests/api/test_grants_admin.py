"""The staff's pages of grants: given by a form, taken back after a question, stopped where they come again."""

from decimal import Decimal

import pytest

from metering.models import CreditGrant, GrantSchedule
from metering.services.grant_schedules import Recurrence, schedule_grants
from subscriptions.core.periods import Interval
from subscriptions.models import AuditEntry, Meter
from tests.api.test_admin import audited, confirm, page, signed_in
from tests.services.test_grants import move, terms
from tests.world import at, make_world

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann():
    return signed_in()


@pytest.fixture
def world():
    return make_world(now=at("2026-06-10 00:00"))


def form(world, **changes):
    given = {"tenant": world.tenant.pk, "meter": Meter.objects.get().pk, "kind": "purchased", "priority": 0}
    return given | {"quantity": "500", "expires_at": "2026-06-20T00:00:00", "key": "order-1"} | changes


def test_a_grant_is_given_by_a_form_and_taken_back_after_a_question(ann, world):
    ann.post(page("metering", "creditgrant", "add"), form(world))
    grant = CreditGrant.objects.get(kind="purchased")
    assert (grant.quantity, grant.effective_at, grant.expires_at) == (500, world.now, at("2026-06-20 00:00"))
    assert audited("grant", "metering.creditgrant").after["key"] == "order-1"
    world.use(200)
    shown = ann.get(page("metering", "creditgrant", "change", grant.pk)).content.decode()
    assert "active" in shown
    assert "Void" in shown

    move(world, "2026-06-11 00:00")
    confirm(ann, "metering", "creditgrant", "void", grant.pk, reason="paid back")
    grant.refresh_from_db()
    assert (grant.voided_at, grant.burned) == (world.now, 200)
    assert audited("void", "metering.creditgrant").reason == "paid back"


def test_what_cannot_be_granted_is_said_at_the_field(ann, world):
    response = ann.post(page("metering", "creditgrant", "add"), form(world, expires_at="2026-06-10T00:00:00"))
    assert "Must be later than effective_at" in str(response.context["adminform"].form.errors["expires_at"])
    response = ann.post(page("metering", "creditgrant", "add"), form(world, quantity="0"))
    assert "above 0" in str(response.context["adminform"].form.errors["quantity"])
    assert not CreditGrant.objects.filter(kind="purchased").exists()


def test_an_allowance_cannot_be_taken_back(ann, world):
    allowance = CreditGrant.objects.get()
    answer = confirm(ann, "metering", "creditgrant", "void", allowance.pk, reason="why")
    assert "only what was given apart is taken back" in answer
    assert not AuditEntry.objects.filter(action="void").exists()


def test_a_schedule_is_shown_and_stopped(ann, world):
    every = Recurrence(interval=Interval.WEEK, count=1, until=None, expires_after=1)
    schedule, _ = schedule_grants(
        tenant=world.tenant, terms=terms(Decimal(10)), every=every, now=world.now, actor="system"
    )
    assert "2026" in ann.get(page("metering", "grantschedule", "change", schedule.pk)).content.decode()
    confirm(ann, "metering", "grantschedule", "void", schedule.pk, reason="over")
    assert GrantSchedule.objects.get().due_at is None
    assert audited("void", "metering.grantschedule").reason == "over"


def test_support_sees_grants_and_gives_none(world):
    sue = signed_in("sue", group="support")
    assert sue.get(page("metering", "creditgrant")).status_code == 200
    assert sue.get(page("metering", "creditgrant", "add")).status_code == 403
