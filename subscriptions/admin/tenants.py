"""Staff pages of the operator's customers and of the keys that speak for the operator."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import TemplateResponse

from billing_site.staff import Moment, ServiceAdmin, ServiceForm, actor_of
from subscriptions.models import ApiKey, Tenant
from subscriptions.services import keys, tenants

_EMPTY = {"tax_ids": list, "metadata": dict}


class Reason(forms.Form):
    """Asks why, for the audit entry."""

    reason = forms.CharField(max_length=1000, required=False, widget=forms.Textarea(attrs={"rows": 2}))


@admin.register(Tenant)
class TenantAdmin(ServiceAdmin):
    """The operator's customers."""

    list_display = ["code", "name", "currency", "timezone", "test_clock", "created_at"]
    list_select_related = ["test_clock"]
    search_fields = ["code", "name"]
    raw_id_fields = ["test_clock"]
    fields = ["code", *tenants.CHANGEABLE, "test_clock"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Fix, once it exists, what is for ever."""
        return [] if obj is None else ["code", "test_clock"]

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


class KeyForm(ServiceForm):
    """What a new key may do."""

    scopes = forms.MultipleChoiceField(choices=ApiKey.Scope.choices, widget=forms.CheckboxSelectMultiple)
    expires_at = Moment(required=False, help_text="In UTC. Empty: it does not expire.")


@admin.register(ApiKey)
class ApiKeyAdmin(ServiceAdmin):
    """Keys by their public prefix; the key itself is shown once, its digest never."""

    form = KeyForm
    list_display = ["name", "prefix", "scopes", "expires_at", "revoked_at", "created_at"]
    ordering = ["-pk"]
    search_fields = ["prefix", "name"]
    actions = ["revoke"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show what is public of a key."""
        asked = ["name", "scopes", "expires_at"]
        return asked if obj is None else [*asked, "prefix", "revoked_at", "created_at"]

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
