"""The page of a tier's guards."""

from decimal import Decimal

import pytest
from django.urls import reverse

from subscriptions.models import AuditEntry, Tier
from subscriptions.selectors.guards import limits_of
from subscriptions.services import catalog, guards
from tests.staff import sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def tier():
    return catalog.create_tier(code="growth", name="Growth", actor="system")


def address(tier):
    return reverse("admin:studio_guards", args=[tier.pk])


def stored(tier):
    limits = limits_of(Tier.objects.get(pk=tier.pk))
    return limits.rise_percent_max, limits.revenue_fall_percent_max


def test_guards_are_set_and_taken_away(tier):
    client = sign_in("product", "ann")
    page = client.post(address(tier), {"rise_percent_max": "20", "revenue_fall_percent_max": "2.5"}, follow=True)
    assert "The guards are set" in page.content.decode()
    assert stored(tier) == (20, Decimal("2.5"))
    assert 'value="20"' in client.get(address(tier)).content.decode()
    client.post(address(tier), {"rise_percent_max": "", "revenue_fall_percent_max": "2.5"})
    assert stored(tier) == (None, Decimal("2.5"))
    assert AuditEntry.objects.filter(action="set_guards", actor="staff:ann").count() == 2


@pytest.mark.parametrize("wrong", ["-1", "1.001", "a lot", "NaN", "1e30"])
def test_what_is_no_percentage_is_said_at_its_field(tier, wrong):
    page = sign_in("product").post(address(tier), {"rise_percent_max": wrong})
    assert page.status_code == 422
    assert "errorlist" in page.content.decode()
    assert stored(tier) == (None, None)


@pytest.mark.parametrize("role", ["finance", "support", "read-only"])
def test_others_look_and_set_nothing(role, tier):
    guards.set_guards(tier_id=tier.pk, limits={"rise_percent_max": Decimal(20)}, actor="system")
    client = sign_in(role)
    page = client.get(address(tier)).content.decode()
    assert "No customer may pay over 20 % more than now." in page
    assert "Save the guards" not in page
    assert client.post(address(tier), {"rise_percent_max": "30"}).status_code == 403
    assert stored(tier) == (20, None)


def test_who_may_not_look_at_prices_is_refused(tier):
    assert sign_in(None).get(address(tier)).status_code == 403
