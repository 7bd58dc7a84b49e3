"""The staff's pages: each opens, each write goes through a service and leaves an audit entry, and nobody sees or edits too much."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from billing_site.console.roles import ROLES
from billing_site.management.commands.bootstrap import ensure_groups
from invoices.api.lifecycle import CancelInput
from invoices.models import Invoice
from invoices.tasks import plan_publications
from metering.models import MeterBalance, ThresholdCrossing, ThresholdWatch, UsageEvent
from metering.services.gate import perform
from metering.services.requests import Authorize, Settle
from subscriptions.models import (
    ApiKey,
    AuditEntry,
    BillingPeriod,
    Meter,
    Publication,
    Subscription,
    Tenant,
    TestClock,
    Tier,
    TierVersion,
)
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.tenants import parked_tenants
from subscriptions.services import catalog, keys
from subscriptions.services.parking import park_tenant
from tests.staff import sign_in
from tests.world import JUNE, World, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

OURS = ("subscriptions", "metering", "invoices", "auth")
PAGES = sorted(
    (model._meta.app_label, model._meta.model_name) for model in admin.site._registry if model._meta.app_label in OURS
)


def signed_in(username: str = "ann", *, group: str | None = None) -> Client:
    if group is not None:
        return sign_in(group, username)
    client = Client()
    client.force_login(get_user_model().objects.create_superuser(username))
    return client


@pytest.fixture
def ann() -> Client:
    return signed_in()


def page(app: str, model: str, name: str = "changelist", *args: object) -> str:
    return reverse(f"admin:{app}_{model}_{name}", args=args)


def act(client: Client, app: str, model: str, action: str, pk: object, *, query: str = "", **answers: object) -> str:
    data = {"action": action, "_selected_action": [str(pk)], **answers}
    response = client.post(page(app, model) + query, data, follow=True)
    assert response.status_code == 200
    return response.content.decode()


def confirm(client: Client, app: str, model: str, action: str, pk: object, **answers: object) -> str:
    return act(client, app, model, action, pk, confirmed="yes", **answers)


def audited(action: str, object_type: str, actor: str = "staff:ann") -> AuditEntry:
    return AuditEntry.objects.get(actor=actor, action=action, object_type=object_type)


def make_draft(document: dict | None = None) -> TierVersion:
    if not Meter.objects.exists():
        make_meter()
    tier = catalog.create_tier(code="pro", name="Pro", actor="system")
    return catalog.create_version(tier=tier, actor="system", document=document or {"currency": "USD", "fee": "49.00"})


def use(world: World) -> None:
    world.use(12_000, time=JUNE)
    hold(world)


def hold(world: World, key: str = "call") -> UUID:
    [answer] = perform([Authorize(world.tenant.code, "tokens", Decimal(70), key, {}, 300, wall_now())])
    return answer.authorization


@pytest.mark.parametrize(("app", "model"), PAGES)
def test_every_list_opens_with_rows_in_it(ann, app, model):
    world = make_world()
    use(world)
    keys.issue_key(name="gateway", scopes=["ingest"], actor="system")

    assert ann.get(page(app, model)).status_code == 200
    assert ann.get(page(app, model), {"q": world.tenant.code}).status_code == 200


@pytest.mark.parametrize(("app", "model"), PAGES)
def test_every_add_page_opens_where_there_is_one(ann, app, model):
    addable = {
        "tenant",
        "apikey",
        "meter",
        "tier",
        "tierversion",
        "testclock",
        "subscription",
        "thresholdwatch",
        "creditgrant",
        "user",
        "group",
    }

    assert ann.get(page(app, model, "add")).status_code == (200 if model in addable else 403)


@pytest.mark.parametrize(("app", "model"), PAGES)
def test_every_row_opens(ann, app, model):
    use(make_world())
    keys.issue_key(name="gateway", scopes=["ingest"], actor="system")
    ensure_groups()
    rows = next(one for one in admin.site._registry if one._meta.label_lower == f"{app}.{model}")._base_manager
    row = rows.first()

    if row is not None:
        assert ann.get(page(app, model, "change", row.pk)).status_code == 200


def test_events_are_listed_by_tenant_only(ann):
    world = make_world()
    use(world)
    event_id = str(UsageEvent.objects.get().pk)

    assert event_id not in ann.get(page("metering", "usageevent")).content.decode()
    assert event_id in ann.get(page("metering", "usageevent"), {"q": world.tenant.code}).content.decode()


def test_a_tenant_is_created_and_changed_with_an_audit_entry(ann):
    given = {"code": "acme", "name": "Acme", "currency": "USD", "timezone": "Europe/Berlin", "country": "DE"}
    ann.post(page("subscriptions", "tenant", "add"), given)
    tenant = Tenant.objects.get(code="acme")
    ann.post(page("subscriptions", "tenant", "change", tenant.pk), given | {"name": "Acme Inc"})

    tenant.refresh_from_db()
    assert (tenant.name, tenant.tax_ids, tenant.metadata) == ("Acme Inc", [], {})
    assert audited("create", "subscriptions.tenant").object_id == "acme"
    assert audited("update", "subscriptions.tenant").after == {"name": "Acme Inc"}


def test_what_the_service_refuses_is_shown_at_the_field(ann):
    response = ann.post(
        page("subscriptions", "tenant", "add"),
        {"code": "acme", "name": "Acme", "currency": "USD", "timezone": "Mars/Olympus"},
    )

    assert response.status_code == 200
    assert "must be an IANA time zone" in str(response.context["adminform"].form.errors["timezone"])
    assert not Tenant.objects.exists()


def test_a_currency_that_is_fixed_is_a_sentence_above_the_form(ann):
    tenant = make_world().tenant
    response = ann.post(
        page("subscriptions", "tenant", "change", tenant.pk), {"name": "Org", "currency": "EUR", "timezone": "UTC"}
    )

    assert "has subscribed in USD" in response.content.decode()


def test_a_key_is_shown_once_and_its_digest_never(ann):
    given = {"name": "gateway", "scopes": ["ingest", "read"], "expires_at": ""}
    shown = ann.post(page("subscriptions", "apikey", "add"), given, follow=True).content.decode()
    key = ApiKey.objects.get()
    secret = shown.partition("not shown again: ")[2].split("<")[0].strip()

    assert (len(secret), secret[:11]) == (55, key.prefix)
    assert audited("issue", "subscriptions.apikey").after["scopes"] == ["ingest", "read"]
    support = signed_in("sue", group="support")
    for client in (ann, support):
        for address in (page("subscriptions", "apikey"), page("subscriptions", "apikey", "change", key.pk)):
            text = client.get(address).content.decode()
            assert key.prefix in text
            assert "digest" not in text
            assert bytes(key.digest).hex() not in text
            assert secret not in text


def test_a_key_is_revoked_after_a_question(ann):
    key, _secret = keys.issue_key(name="gateway", scopes=["ingest"], actor="system")

    assert "This concerns" in act(ann, "subscriptions", "apikey", "revoke", key.pk)
    key.refresh_from_db()
    assert key.revoked_at is None
    confirm(ann, "subscriptions", "apikey", "revoke", key.pk, reason="leaked")
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert audited("revoke", "subscriptions.apikey").reason == "leaked"


def test_a_new_meter_starts_with_an_empty_property(ann):
    shown = ann.get(page("subscriptions", "meter", "add")).context["adminform"].form["value_property"]

    assert "null" not in str(shown)


def test_a_meter_is_made_and_only_its_description_changes(ann):
    given = {"code": "tokens", "event_type": "llm.completion", "aggregation": "sum", "value_property": "total_tokens"}
    described = {"name": "Tokens", "unit": "token", "precision": 0, "late_policy": "next_invoice", "window_days": 35}
    ann.post(page("subscriptions", "meter", "add"), given | described)
    meter = Meter.objects.get()
    ann.post(
        page("subscriptions", "meter", "change", meter.pk),
        given | described | {"name": "All tokens", "event_type": "other"},
    )

    meter.refresh_from_db()
    assert (meter.name, meter.event_type, meter.value_property) == ("All tokens", "llm.completion", "total_tokens")
    assert audited("create", "subscriptions.meter").object_id == "tokens"
    assert audited("update", "subscriptions.meter").after == {"name": "All tokens"}


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("total_tokens", "total_tokens"),
        (
            "usage.in: 1\n usage.out : 4.5 ",
            [{"property": "usage.in", "weight": "1"}, {"property": "usage.out", "weight": "4.5"}],
        ),
        (
            '[{"property": "a", "weight": "2"}, {"property": "b"}]',
            [{"property": "a", "weight": "2"}, {"property": "b"}],
        ),
    ],
)
def test_a_meter_is_typed_in_lines(ann, typed, stored):
    given = {
        "code": "tokens",
        "event_type": "llm.completion",
        "aggregation": "sum",
        "value_property": typed,
        "filters": "region: eu\nmodel: opus, sonnet",
        "dimensions": "model, direction",
        "name": "Tokens",
        "precision": 0,
        "late_policy": "next_invoice",
        "window_days": 35,
    }
    ann.post(page("subscriptions", "meter", "add"), given)
    meter = Meter.objects.get()

    assert meter.value_property == stored
    assert (meter.filters, meter.dimensions) == (
        {"region": "eu", "model": ["opus", "sonnet"]},
        ["model", "direction"],
    )
    shown = ann.get(page("subscriptions", "meter", "change", meter.pk)).content.decode()
    assert "model: opus, sonnet; region: eu" in shown
    assert "model, direction" in shown


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("filters", "region", "Write a name, a colon and a value; there is only “region”."),
        ("filters", "region: eu\nregion: us", "A property stands twice"),
        ("filters", '{"region": ', "Enter a valid JSON."),
        ("value_property", "a: 1\nb", "there is only “b”"),
    ],
)
def test_what_is_no_line_of_a_meter_is_said_at_its_field(ann, name, typed, said):
    answer = ann.post(page("subscriptions", "meter", "add"), {"code": "tokens", name: typed})

    [error] = answer.context["adminform"].form.errors[name]
    assert said in error
    assert typed.splitlines()[0] in answer.content.decode().replace("&quot;", '"')
    assert not Meter.objects.exists()


def test_a_tier_goes_from_a_name_to_a_published_version(ann):
    make_meter()
    ann.post(page("subscriptions", "tier", "add"), {"code": "pro", "name": "Pro"})
    tier = Tier.objects.get()
    ann.post(page("subscriptions", "tier", "change", tier.pk), {"name": "Professional"})
    ann.post(page("subscriptions", "tierversion", "add"), {"tier": tier.pk, "document": ""})
    version = TierVersion.objects.get()
    document = json.dumps({"currency": "USD", "fee": "49.00", "interval": "month"})
    ann.post(page("subscriptions", "tierversion", "change", version.pk), {"document": document, "expected_revision": 1})
    confirm(ann, "subscriptions", "tierversion", "publish", version.pk, revision=2, cohort="new")

    version.refresh_from_db()
    assert (version.is_published, version.revision, str(version.fee)) == (True, 2, "49.000000")
    for action in ("draft", "save_draft", "publish"):
        assert audited(action, "subscriptions.tierversion").object_id == "pro/1"
    assert audited("create", "subscriptions.tier").object_id == "pro"
    assert audited("update", "subscriptions.tier").after == {"name": "Professional"}


def test_every_fault_of_a_draft_is_shown_with_its_place(ann):
    version = make_draft()
    broken = {"currency": "USD", "fee": "-1", "charges": [{"kind": "usage", "meter": "nothing"}]}
    response = ann.post(
        page("subscriptions", "tierversion", "change", version.pk),
        {"document": json.dumps(broken), "expected_revision": 1},
    )

    shown = str(response.context["adminform"].form.errors["document"])
    assert response.status_code == 200
    assert "fee: " in shown
    assert "charges.0.meter: " in shown
    assert not AuditEntry.objects.filter(action="save_draft").exists()


def test_a_draft_that_is_no_json_is_refused_at_the_form(ann):
    version = make_draft()
    response = ann.post(
        page("subscriptions", "tierversion", "change", version.pk), {"document": "{", "expected_revision": 1}
    )

    assert response.context["adminform"].form.errors["document"]


def test_the_second_of_two_editors_does_not_overwrite_the_first(ann):
    version = make_draft()
    document = {"currency": "USD", "fee": "59.00"}
    catalog.save_draft(version_id=version.pk, document=document, expected_revision=1, actor="staff:ben")
    response = ann.post(
        page("subscriptions", "tierversion", "change", version.pk),
        {"document": json.dumps({"currency": "USD", "fee": "9.00"}), "expected_revision": 1},
    )

    assert "saved meanwhile" in response.content.decode()
    version.refresh_from_db()
    assert str(version.fee) == "59.000000"


def test_what_was_saved_meanwhile_is_not_published(ann):
    version = make_draft()
    shown = confirm(ann, "subscriptions", "tierversion", "publish", version.pk, revision=7, cohort="new")

    assert "saved meanwhile" in shown
    version.refresh_from_db()
    assert not version.is_published


def test_a_published_version_is_neither_edited_nor_deleted(ann):
    make_meter()
    version = publish()
    change = page("subscriptions", "tierversion", "change", version.pk)

    assert "&quot;fee&quot;: &quot;99.00&quot;" in ann.get(change).content.decode()
    assert ann.post(change, {"document": "{}", "expected_revision": 1}).status_code == 403
    assert ann.post(page("subscriptions", "tierversion", "delete", version.pk), {"post": "yes"}).status_code == 403
    act(ann, "subscriptions", "tierversion", "delete_selected", version.pk, post="yes")
    assert TierVersion.objects.filter(pk=version.pk).exists()


def test_a_clock_is_made_and_advanced_and_runs_what_is_due(ann):
    ann.post(page("subscriptions", "testclock", "add"), {"code": "future", "now": "2026-06-01T00:00:00"})
    assert audited("create", "subscriptions.testclock").object_id == TestClock.objects.get().code == "future"
    world = make_world()
    use(world)
    shown = confirm(ann, "subscriptions", "testclock", "advance", world.clock.pk, to="2026-07-02T00:00:00")

    assert "1 × period closed" in shown
    world.clock.refresh_from_db()
    assert world.clock.now == JUNE + timedelta(days=31)
    assert audited("advance", "subscriptions.testclock").object_id == world.clock.code
    back = confirm(ann, "subscriptions", "testclock", "advance", world.clock.pk, to="2026-06-01T00:00:00")
    assert "stands at 2026-07-02T00:00:00Z already" in back


def test_a_subscription_is_started_and_cancelled(ann):
    world = make_world()
    version = world.subscription.version
    ann.post(
        page("subscriptions", "tenant", "add"), {"code": "acme", "name": "A", "currency": "USD", "timezone": "UTC"}
    )
    tenant = Tenant.objects.get(code="acme")
    response = ann.post(page("subscriptions", "subscription", "add"), {"tenant": tenant.pk, "version": version.pk})
    subscription = Subscription.objects.get(tenant=tenant)

    assert response.status_code == 302
    assert audited("start", "subscriptions.subscription").object_id == str(subscription.public_id)
    again = ann.post(page("subscriptions", "subscription", "add"), {"tenant": tenant.pk, "version": version.pk})
    assert again.status_code == 200
    assert again.context["adminform"].form.errors
    confirm(
        ann, "subscriptions", "subscription", "cancel", subscription.pk, when="period_end", credit="none", reason="r"
    )
    subscription.refresh_from_db()
    assert subscription.ends_at is not None
    assert audited("cancel", "subscriptions.subscription").reason == "r"


def test_an_invoice_is_voided_for_a_reason_and_shows_its_lines(ann):
    make_world()
    invoice = Invoice.objects.get()
    change = ann.get(page("invoices", "invoice", "change", invoice.pk)).content.decode()

    assert "99.00" in change
    assert "This field is required" in confirm(ann, "invoices", "invoice", "void", invoice.pk, reason="")
    confirm(ann, "invoices", "invoice", "void", invoice.pk, reason="wrong address")
    invoice.refresh_from_db()
    assert invoice.status == "void"
    assert audited("void", "invoices.invoice").reason == "wrong address"


def test_a_refusal_of_an_action_is_a_message(ann):
    make_world()

    assert "is open" in act(ann, "invoices", "invoice", "finalize", Invoice.objects.get().pk)


def test_parked_rows_are_released(ann):
    world = make_world()
    use(world)
    ThresholdWatch.objects.create(tenant=world.tenant)
    for model, (app, name) in {
        BillingPeriod: ("subscriptions", "billingperiod"),
        MeterBalance: ("metering", "meterbalance"),
        ThresholdWatch: ("metering", "thresholdwatch"),
        Subscription: ("subscriptions", "subscription"),
    }.items():
        row = model.objects.get()
        model.objects.filter(pk=row.pk).update(parked_at=JUNE, parked_reason="five tries failed", attempts=5)
        assert "five tries failed" in ann.get(page(app, name, "change", row.pk)).content.decode()
        act(ann, app, name, "release_parked", row.pk)
        row.refresh_from_db()
        assert (row.parked_at, row.parked_reason, row.attempts) == (None, "", 0)
        assert audited("release", f"{app}.{name}").before["parked_reason"] == "five tries failed"


def test_thresholds_that_were_reached_are_listed_and_found_by_tenant(ann):
    make_meter()
    terms = charge(thresholds=[{"percent": 80}])
    world = make_world(version=publish(charges=[terms]), thresholds=[{"amount": "0.5"}])
    world.use(15000)
    shown = ann.get(page("metering", "thresholdcrossing", "changelist"), {"q": world.tenant.code}).content.decode()
    for text in ("percent 80 period", "8000", "15000", "amount 0.5 period", "all meters", "2026-06-01 – 2026-07-01"):
        assert text in shown
    crossing = ThresholdCrossing.objects.get(meter__code="tokens")
    assert "percent 80 period" in ann.get(page("metering", "thresholdcrossing", "change", crossing.pk)).content.decode()


def test_a_tenant_s_thresholds_are_set_and_replaced(ann):
    tenant = make_world().tenant
    add = page("metering", "thresholdwatch", "add")
    ann.post(add, {"tenant": tenant.pk, "thresholds": '[{"amount": "50.00", "once": "period"}]'})
    watch = ThresholdWatch.objects.get(tenant=tenant)
    assert watch.thresholds == [{"amount": "50"}]
    assert "already exists" in ann.post(add, {"tenant": tenant.pk, "thresholds": "[]"}).content.decode()
    assert "amount 50" in ann.get(page("metering", "thresholdwatch"), {"q": tenant.code}).content.decode()

    change = page("metering", "thresholdwatch", "change", watch.pk)
    refused = ann.post(change, {"thresholds": '[{"amount": "0"}]'}).content.decode()
    assert "thresholds.0.amount: must be greater than 0" in refused
    ann.post(change, {"thresholds": '[{"amount": "0.5"}, {"amount": "9", "once": "life"}]'})
    history = ann.get(page("metering", "thresholdwatch", "history", watch.pk), follow=True).context["cl"]
    ann.post(change, {"thresholds": ""})
    watch.refresh_from_db()
    assert watch.thresholds == []
    noted = AuditEntry.objects.filter(object_type="metering.thresholdwatch", actor="staff:ann").order_by("pk")
    assert [entry.after["thresholds"] for entry in noted] == [
        [{"amount": "50"}],
        [{"amount": "0.5"}, {"amount": "9", "once": "life"}],
        [],
    ]
    assert [entry.object_type for entry in history.result_list] == ["metering.thresholdwatch"] * 2


def test_finance_sets_thresholds_and_support_only_sees_them():
    tenant = make_world(thresholds=[{"amount": "50"}]).tenant
    sue, fay = signed_in("sue", group="support"), signed_in("fay", group="finance")
    change = page("metering", "thresholdwatch", "change", ThresholdWatch.objects.get(tenant=tenant).pk)
    assert "amount" in sue.get(change).content.decode()
    assert sue.post(change, {"thresholds": "[]"}).status_code == 403
    assert fay.post(change, {"thresholds": '[{"amount": "60"}]'}).status_code == 302
    assert ThresholdWatch.objects.get().thresholds == [{"amount": "60"}]


def test_unmatched_events_are_counted_again(ann):
    present = wall_now()
    world = make_world()
    world.record(replace(world.event(5, time=present - timedelta(hours=1)), subject="late_org"))
    event = UsageEvent.objects.get()
    assert str(event.pk) in ann.get(page("metering", "usageevent"), {"unmatched": "yes"}).content.decode()
    late = make_world(code="late_org", starts_at=present - timedelta(days=1), now=present)
    act(ann, "metering", "usageevent", "count_again", event.pk, query="?unmatched=yes")

    assert late.position() == ("5", "5", "0")
    assert audited("replay", "metering.usageevent").after == {"subject": "late_org", "counted": 1, "unmatched": 0}


def test_a_hold_is_released_for_a_reason(ann):
    world = make_world()
    first, second = hold(world, "first"), hold(world, "second")
    assert "Release" in ann.get(page("metering", "authorization", "change", first)).content.decode()
    assert "Released: 1" in confirm(ann, "metering", "authorization", "release", first, reason="the gateway has died")
    assert world.balance().held == 70
    entry = audited("release", "metering.authorization")
    assert (entry.reason, entry.after["status"]) == ("the gateway has died", "released")
    perform([Settle(second, Decimal(7), None, wall_now())])
    assert "was settled" in confirm(ann, "metering", "authorization", "release", second, reason="too late")
    assert world.balance().used == 7


def test_staff_and_groups_leave_entries_without_passwords(ann):
    ann.post(
        page("auth", "user", "add"),
        {"username": "ben", "usable_password": "true", "password1": "hunter-222-x", "password2": "hunter-222-x"},
    )
    ben = get_user_model().objects.get(username="ben")
    ann.post(
        reverse("admin:auth_user_password_change", args=[ben.pk]),
        {"usable_password": "true", "password1": "hunter-333-x", "password2": "hunter-333-x"},
    )
    ann.post(page("auth", "group", "add"), {"name": "night shift"})
    ann.post(page("auth", "user", "delete", ben.pk), {"post": "yes"})

    assert audited("create", "auth.user").after == {"name": "ben"}
    assert audited("update", "auth.user").object_id == str(ben.pk)
    assert audited("create", "auth.group").after == {"name": "night shift"}
    assert audited("delete", "auth.user").before == {"name": "ben"}
    assert "hunter" not in str(list(AuditEntry.objects.values()))


def test_product_edits_tiers_and_no_invoices():
    invoice_world = make_world()
    pat = signed_in("pat", group="product")
    version = make_draft()

    assert pat.get(page("subscriptions", "tier", "add")).status_code == 200
    assert b'name="document"' in pat.get(page("subscriptions", "tierversion", "change", version.pk)).content
    invoice = Invoice.objects.get(tenant=invoice_world.tenant)
    assert b'value="void"' not in pat.get(page("invoices", "invoice")).content
    confirm(pat, "invoices", "invoice", "void", invoice.pk, reason="x")
    invoice.refresh_from_db()
    assert invoice.status == "open"


def test_finance_voids_invoices_and_edits_no_tier():
    make_world()
    fay = signed_in("fay", group="finance")
    confirm(fay, "invoices", "invoice", "void", Invoice.objects.get().pk, reason="x")

    assert Invoice.objects.get().status == "void"
    assert audited("void", "invoices.invoice", "staff:fay").reason == "x"
    assert fay.get(page("subscriptions", "tier", "add")).status_code == 403


def test_readers_see_every_page_of_the_product_and_change_nothing():
    rob = signed_in("rob", group="read-only")
    for app, model in PAGES:
        if app != "auth":
            assert rob.get(page(app, model)).status_code == 200, model
            assert rob.get(page(app, model, "add")).status_code == 403, model


def test_readers_have_no_button_that_changes_anything_and_no_way_round_it():
    world = make_world()
    use(world)
    draft = make_draft()
    rob = signed_in("rob", group="read-only")
    rows = {
        ("invoices", "invoice"): Invoice.objects.get(),
        ("subscriptions", "tierversion"): draft,
        ("subscriptions", "subscription"): world.subscription,
        ("subscriptions", "tenant"): world.tenant,
        ("subscriptions", "testclock"): world.clock,
        ("metering", "meterbalance"): MeterBalance.objects.get(),
    }
    for (app, model), row in rows.items():
        change = page(app, model, "change", row.pk)
        shown = rob.get(change).content.decode()
        actions = set(re.findall(r'name="action" value="(\w+)"', shown))
        assert actions <= {"check_figures"}, model
        assert 'name="_save"' not in shown, model
        assert rob.post(change, {}).status_code == 403, model
    tier = page("subscriptions", "tier", "change", draft.tier_id)
    assert "Add a version" not in rob.get(tier).content.decode()
    assert "Add a version" in signed_in("pat", group="product").get(tier).content.decode()
    confirm(rob, "subscriptions", "subscription", "cancel", world.subscription.pk, when="now", credit="none", reason="")
    confirm(rob, "subscriptions", "tierversion", "publish", draft.pk, revision=1)
    assert not AuditEntry.objects.filter(actor="staff:rob").exists()


def test_a_group_that_exists_stays_as_the_operator_made_it():
    assert ensure_groups() == list(ROLES)
    Group.objects.get(name="support").permissions.clear()

    assert ensure_groups() == []
    assert not Group.objects.get(name="support").permissions.exists()


def test_who_is_no_staff_is_sent_to_the_sign_in():
    assert Client().get(page("subscriptions", "tenant")).status_code == 302


def test_finance_releases_a_parked_tenant_for_a_reason_and_support_does_not():
    tenant = make_world().tenant
    park_tenant(tenant_id=tenant.pk, reason="balance_is_its_entries, 1 ×")
    sue, fay = signed_in("sue", group="support"), signed_in("fay", group="finance")
    assert "balance_is_its_entries" in fay.get(page("subscriptions", "tenant", "change", tenant.pk)).content.decode()
    confirm(sue, "subscriptions", "tenant", "release_parked", tenant.pk, reason="please")
    confirm(fay, "subscriptions", "tenant", "release_parked", tenant.pk, reason="")
    assert parked_tenants().exists()
    confirm(fay, "subscriptions", "tenant", "release_parked", tenant.pk, reason="mended by hand")
    assert not parked_tenants().exists()
    assert audited("release", "subscriptions.tenant", "staff:fay").reason == "mended by hand"


def messages_of(text: str) -> str:
    return text.partition('id="main"')[2].partition('id="content"')[0]


def test_the_result_of_counting_again_is_seen_after_the_redirect(ann):
    world = make_world()
    world.record(replace(world.event(5, time=wall_now()), subject="nobody"))
    event = UsageEvent.objects.get()
    shown = act(ann, "metering", "usageevent", "count_again", event.pk, query="?unmatched=yes")

    assert "Events of nobody: 0 counted, 1 still without a match" in messages_of(shown)


def test_all_events_of_the_list_are_counted_again_not_only_the_page_of_them(ann):
    world = make_world()
    for subject in ("nobody", "no_one"):
        world.record(replace(world.event(5, time=wall_now()), subject=subject))
    event = UsageEvent.objects.filter(subject="nobody").get()
    shown = act(ann, "metering", "usageevent", "count_again", event.pk, query="?unmatched=yes", select_across="1")

    assert "Events of nobody" in messages_of(shown)
    assert "Events of no_one" in messages_of(shown)


def test_a_stale_editor_sees_what_is_stored_beside_what_was_typed_and_may_then_replace_it(ann):
    version = make_draft()
    catalog.save_draft(
        version_id=version.pk, document={"currency": "USD", "fee": "59.00"}, expected_revision=1, actor="staff:ben"
    )
    change = page("subscriptions", "tierversion", "change", version.pk)
    typed = json.dumps({"currency": "USD", "fee": "9.00"})
    response = ann.post(change, {"document": typed, "expected_revision": 1})
    form = response.context["adminform"].form

    assert form["document"].value() == typed
    assert "&quot;fee&quot;: &quot;59.00&quot;" in response.content.decode().partition("Stored now")[2]
    ann.post(change, {"document": typed, "expected_revision": form["expected_revision"].value()})
    version.refresh_from_db()
    assert (str(version.fee), version.revision) == ("9.000000", 3)


def test_an_editor_who_is_not_stale_sees_no_second_document(ann):
    change = page("subscriptions", "tierversion", "change", make_draft().pk)

    assert "Stored now" not in ann.get(change).content.decode()


def test_changing_ones_own_password_leaves_an_entry_without_it():
    users = get_user_model().objects
    user = users.create_user("cleo", password="old-one-222-x", is_staff=True)
    cleo = Client()
    cleo.force_login(user)
    given = {"old_password": "wrong", "new_password1": "hunter-444-x", "new_password2": "hunter-444-x"}

    cleo.post(reverse("admin:password_change"), given)
    assert not AuditEntry.objects.filter(actor="staff:cleo").exists()
    cleo.post(reverse("admin:password_change"), given | {"old_password": "old-one-222-x"})
    user.refresh_from_db()
    assert user.check_password("hunter-444-x")
    entry = audited("update", "auth.user", "staff:cleo")
    assert (entry.object_id, entry.after) == (str(user.pk), {"name": "cleo", "changes": "own password"})


def test_the_cancel_form_offers_first_what_the_api_does_by_default(ann):
    subscription = make_world().subscription
    asked = act(ann, "subscriptions", "subscription", "cancel", subscription.pk).partition('name="credit"')[2]
    first = asked.partition('<option value="')[2].partition('"')[0]

    assert first == CancelInput().fields["credit"].default == "unused"


def test_amounts_and_quantities_are_written_for_people(ann):
    use(make_world())

    assert "99.00 USD" in ann.get(page("invoices", "invoice")).content.decode()
    assert "99.000000" not in ann.get(page("invoices", "invoice")).content.decode()
    assert ">12,000<" in ann.get(page("metering", "meterbalance")).content.decode()
    assert "12000.000000000000" not in ann.get(page("metering", "ledgerentry")).content.decode()


def test_an_action_from_a_rows_page_leads_back_to_it(ann):
    subscription = make_world().subscription
    given = {"action": "cancel", "_selected_action": [str(subscription.pk)], "row_page": str(subscription.pk)}
    answers = {"confirmed": "yes", "when": "period_end", "credit": "unused", "reason": ""}
    row = page("subscriptions", "subscription", "change", subscription.pk)

    assert f'href="{row}"' in ann.post(page("subscriptions", "subscription"), given).content.decode()
    assert ann.post(page("subscriptions", "subscription"), given | answers).headers["Location"] == row


def test_a_row_has_only_the_buttons_that_apply_to_it(ann):
    make_world()
    invoice = ann.get(page("invoices", "invoice", "change", Invoice.objects.get().pk)).content.decode()
    version = ann.get(page("subscriptions", "tierversion", "change", TierVersion.objects.get().pk)).content.decode()

    assert 'value="void"' in invoice
    assert 'value="finalize"' not in invoice
    assert 'value="publish"' in version  # to another cohort
    publication = ann.get(page("subscriptions", "publication", "change", Publication.objects.get().pk))
    assert 'value="undo"' not in publication.content.decode()


def test_a_version_is_published_to_a_cohort_and_taken_back(ann):
    world = make_world()
    version = catalog.create_version(tier=world.subscription.version.tier, actor="system")
    confirm(
        ann, "subscriptions", "tierversion", "publish", version.pk,
        revision=1, cohort="renewal", effective_at="2999-01-01T00:00:00",
    )  # fmt: skip
    publication = Publication.objects.get(version=version)
    assert (publication.cohort, publication.published_by) == ("renewal", "staff:ann")
    plan_publications()
    assert "1 scheduled" in ann.get(page("subscriptions", "tierversion", "change", version.pk)).content.decode()
    shown = ann.get(page("subscriptions", "publication", "change", publication.pk)).content.decode()
    assert ("1 planned, 1 scheduled" in shown, 'value="undo"' in shown) == (True, True)
    act(ann, "subscriptions", "publication", "undo", publication.pk)
    publication.refresh_from_db()
    assert publication.undone_at is not None
    assert audited("undo", "subscriptions.tierversion").object_id == f"{version.tier.code}/2"


def test_releasing_what_is_not_parked_says_so(ann):
    make_world()
    period = BillingPeriod.objects.get()

    assert "Nothing of this is parked" in act(ann, "subscriptions", "billingperiod", "release_parked", period.pk)


def test_the_history_of_a_row_is_its_audit_entries(ann):
    version = make_draft()
    catalog.create_tier(code="other", name="Other", actor="system")
    shown = ann.get(page("subscriptions", "tierversion", "history", version.pk), follow=True).content.decode()

    assert "pro/1" in shown
    assert "other" not in shown.partition('id="result_list"')[2]
    for nothing in ("nonsense", "subscriptions.tier:x", "no.model:1", "subscriptions.tier:0"):
        assert ann.get(page("subscriptions", "auditentry"), {"history_of": nothing}).context["cl"].result_count == 0
