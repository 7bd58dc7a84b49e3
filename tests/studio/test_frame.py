"""The admin's frame: its navigation, what its pages may load, and what they look like without a theme's help."""

import re

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from billing_site.console.navigation import GROUPS
from invoices.models import Invoice
from subscriptions.models import TierVersion
from subscriptions.services import catalog
from tests.staff import sign_in
from tests.world import make_world

pytestmark = pytest.mark.django_db


def places(client: Client) -> set[str]:
    shown = client.get(reverse("admin:index")).context["sidebar_navigation"]
    return {item["title"] for group in shown for item in group["items"]}


def test_every_page_of_the_admin_has_its_place_in_the_navigation():
    linked = {place.address for group in GROUPS.values() for place in group}

    for model in admin.site._registry:
        assert f"{model._meta.app_label}_{model._meta.model_name}_changelist" in linked


def test_who_prices_sees_prices_and_no_staff_accounts():
    seen = places(sign_in("product"))

    assert {"Pricing studio", "Tiers", "Meters", "Invoices", "Test clocks"} <= seen
    assert not {"Staff accounts", "Staff groups"} & seen


def test_who_may_nothing_yet_has_no_place_to_go():
    assert places(sign_in(None)) == set()


def test_every_place_opens_for_whoever_sees_it():
    client = sign_in("support")
    shown = client.get(reverse("admin:index")).context["sidebar_navigation"]

    for group in shown:
        for item in group["items"]:
            assert client.get(item["link"]).status_code == 200, item["title"]


@pytest.fixture
def pages():
    """Return a superuser's browser and pages of every kind."""
    world = make_world()
    world.use(12_000)
    draft = catalog.create_version(tier=world.subscription.version.tier, actor="system")
    client = sign_in(None)
    get_user_model().objects.update(is_superuser=True)
    return client, [
        reverse("admin:index"),
        reverse("admin:studio"),
        reverse("admin:app_list", args=["subscriptions"]),
        reverse("admin:subscriptions_tenant_changelist"),
        reverse("admin:subscriptions_tenant_add"),
        reverse("admin:subscriptions_apikey_add"),
        reverse("admin:subscriptions_subscription_change", args=[world.subscription.pk]),
        reverse("admin:subscriptions_testclock_change", args=[world.clock.pk]),
        reverse("admin:subscriptions_tierversion_change", args=[draft.pk]),
        reverse("admin:invoices_invoice_change", args=[Invoice.objects.get().pk]),
        reverse("admin:auth_user_changelist"),
        reverse("admin:auth_user_add"),
        reverse("admin:password_change"),
    ]


def test_no_page_has_a_script_or_a_style_of_its_own_which_the_policy_would_refuse(pages):
    client, addresses = pages
    asked = {"action": "publish", "_selected_action": str(TierVersion.objects.earliest("pk").pk)}
    answers = [client.get(address) for address in addresses]
    answers += [Client().get(reverse("admin:login"))]
    answers += [client.post(reverse("admin:subscriptions_tierversion_changelist"), asked)]
    for answer in answers:
        text = answer.content.decode()
        assert answer.status_code == 200
        assert not re.findall(r"<style|\sstyle=|\son[a-z]+=\"", text), answer.request["PATH_INFO"]
        assert [tag for tag in re.findall(r"<script[^>]*>", text) if "src=" not in tag] == []
        loaded = re.findall(r'<(?:script|img)[^>]*\ssrc="([^"]*)"|<link[^>]*\shref="([^"]*)"', text)
        assert all((script or style).startswith(("/static/", "/admin/jsi18n/")) for script, style in loaded)


@pytest.mark.parametrize(
    ("address", "beyond"),
    [
        ("/", {}),
        ("/admin/login/", {"script-src": "'self' 'unsafe-eval'"}),
        ("/admin/nothing/", {"script-src": "'self' 'unsafe-eval'"}),
        ("/api/docs/", {"style-src": "'self' 'unsafe-inline'"}),
    ],
)
def test_a_page_says_what_it_may_load(client, address, beyond):
    policy = dict(part.split(" ", 1) for part in client.get(address).headers["Content-Security-Policy"].split("; "))
    strict = {"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "frame-ancestors": "'none'"}

    assert {name: policy[name] for name in strict} == strict | beyond
    assert not [value for value in policy.values() if "http" in value or "*" in value]


def test_answers_of_the_api_have_no_policy_of_pages(client):
    assert "Content-Security-Policy" not in client.get("/api/v1/tiers").headers


def test_the_admin_is_ours_by_name_and_has_its_sign():
    shown = Client().get(reverse("admin:login")).content.decode()

    assert "Tierbook" in shown
    assert "/static/console/tierbook.svg" in shown
    assert "Django" not in shown
