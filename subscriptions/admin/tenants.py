"""Staff pages of the operator's customers and of the keys that speak for the operator."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html_join

from billing_site.staff import PARKED, Moment, ServiceAdmin, ServiceForm, actor_of, either, shown
from subscriptions.models import ApiKey, Tenant
from subscriptions.services import keys, parking, tenants

_EMPTY = {"tax_ids": list, "metadata": dict}
# By page: what a tenant has there. The pages of the apps above are known by their names only.
_OF_TENANT = {
    "subscriptions_subscription": "subscriptions",
    "subscriptions_billingperiod": "periods",
    "invoices_invoice": "invoices",
    "invoices_tenantcreditentry": "credit",
    "metering_meterbalance": "balances",
    "metering_usageevent": "events",
    "metering_ledgerentry": "ledger",
    "metering_thresholdwatch": "thresholds",
    "metering_thresholdcrossing": "thresholds reached",
}
_SCOPES = shown("scopes", lambda key: ", ".join(key.scopes))


class ReleaseReason(forms.Form):
    """Asks why books that did not balance may be billed, for the audit entry."""

    reason = forms.CharField(max_length=1000, widget=forms.Textarea(attrs={"rows": 2}))


class Reason(forms.Form):
    """Asks why, for the audit entry."""

    reason = forms.CharField(max_length=1000, required=False, widget=forms.Textarea(attrs={"rows": 2}))


@admin.register(Tenant)
class TenantAdmin(ServiceAdmin):
    """The operator's customers."""

    list_display = ["code", "name", "currency", "timezone", "test_clock", "created_at", "parked_at"]
    list_select_related = ["test_clock"]
    list_filter = [PARKED, either("time", "test_clock", empty="the real one", filled="on a test clock"), "currency"]
    search_fields = ["code", "name"]
    raw_id_fields = ["test_clock"]
    help_texts = {
        "code": "Your own id of this customer, and the subject of its events. It stays for ever.",
        "currency": "ISO 4217, such as USD. It is fixed once the tenant has subscribed.",
        "spend_cap": "The most that the overage of a period may cost over all meters. Empty: no cap. The gate keeps it.",
        "timezone": "Where its days and months are counted, such as Europe/Berlin.",
        "country": "Two letters, such as DE.",
        "tax_ids": 'Printed on invoices: a JSON list, such as ["DE123456789"].',
        "metadata": "Your own notes: a JSON object. A backtest can choose tenants by them.",
        "test_clock": "For a tenant that tries things out in a time of its own: its invoices are no revenue. Fixed once it exists.",
    }
    actions = ["release_parked"]
    row_conditions = {"release_parked": lambda tenant: tenant.parked_at is not None}

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Fix, once it exists, what is for ever; show why it is parked, and where the rest of it is."""
        parked = ["parked_at", "parked_reason"]
        return parked if obj is None else ["code", "test_clock", *parked, "elsewhere"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show, once it exists, whether it is parked, and where the rest of it is."""
        asked = ["code", *tenants.CHANGEABLE, "test_clock"]
        return asked if obj is None else [*asked, "parked_at", "parked_reason", "elsewhere"]

    @admin.display(description="of this tenant")
    def elsewhere(self, tenant: Tenant) -> str:
        """Link to the tenant's rows on the pages of all apps."""
        places = ((reverse(f"admin:{page}_changelist"), tenant.code, name) for page, name in _OF_TENANT.items())
        return format_html_join(" · ", '<a href="{}?q={}">{}</a>', places)

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Create or change the tenant."""
        given = {
            name: _EMPTY[name]() if value is None and name in _EMPTY else value
            for name, value in form.cleaned_data.items()
        }
        if change:
            changes = {name: given[name] for name in form.changed_data}
            return tenants.update_tenant(tenant_id=form.instance.pk, changes=changes, actor=actor_of(request))
        clock = given.pop("test_clock")
        return tenants.create_tenant(**given, test_clock=clock.code if clock else None, actor=actor_of(request))

    def has_release_permission(self, request: HttpRequest) -> bool:
        """Whether the user may let books be billed that did not balance."""
        return request.user.has_perm("subscriptions.release_tenant")

    @admin.action(description="Release parked", permissions=["release"])
    def release_parked(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Let parked tenants be charged again, for a reason."""
        answers = self.ask(request, queryset, ReleaseReason, title="Release parked")
        if isinstance(answers, TemplateResponse):
            return answers
        actor, reason = actor_of(request), answers["reason"]
        self.run_each(
            request,
            queryset,
            lambda row: parking.release_tenant(tenant_id=row.pk, actor=actor, reason=reason),
            done="Released",
        )
        return None


class KeyForm(ServiceForm):
    """What a new key may do."""

    scopes = forms.MultipleChoiceField(
        choices=ApiKey.Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="Ingest: send events. Gate: ask whether a call may run. Read: see everything. Manage: change everything.",
    )
    expires_at = Moment(required=False, help_text="In UTC. Empty: it does not expire.")


@admin.register(ApiKey)
class ApiKeyAdmin(ServiceAdmin):
    """Keys by their public prefix; the key itself is shown once, its digest never."""

    form = KeyForm
    list_display = ["name", "prefix", _SCOPES, "expires_at", "revoked_at", "created_at"]
    list_filter = [either("state", "revoked_at", empty="in force", filled="revoked")]
    ordering = ["-pk"]
    search_fields = ["prefix", "name"]
    actions = ["revoke"]
    readonly_fields = [_SCOPES]
    row_conditions = {"revoke": lambda key: key.revoked_at is None}

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show what is public of a key."""
        if obj is None:
            return ["name", "scopes", "expires_at"]
        return ["name", _SCOPES, "expires_at", "prefix", "revoked_at", "created_at"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a key is issued and revoked."""
        return False

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Issue the key and show it, this once."""
        given = form.cleaned_data
        key, secret = keys.issue_key(
            name=given["name"], scopes=given["scopes"], expires_at=given["expires_at"], actor=actor_of(request)
        )
        self.message_user(request, f"The new key, which is not shown again: {secret}", messages.WARNING)
        return key

    @admin.action(description="Revoke", permissions=["operate"])
    def revoke(self, request: HttpRequest, queryset: Any) -> TemplateResponse | None:
        """Refuse the keys from now on."""
        answers = self.ask(request, queryset, Reason, title="Revoke")
        if isinstance(answers, TemplateResponse):
            return answers
        actor, reason = actor_of(request), answers["reason"]
        self.run_each(
            request, queryset, lambda key: keys.revoke_key(key=key, actor=actor, reason=reason), done="Revoked"
        )
        return None
