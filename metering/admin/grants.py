"""Staff pages of grants: given and taken back here, never edited; and of the schedules that make them again and again."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from billing_site.http.serializers import DecimalStringField
from billing_site.staff import (
    PARKED,
    Moment,
    ReadOnlyAdmin,
    ServiceAdmin,
    ServiceForm,
    actor_of,
    number,
    shown,
    unbroken,
)
from metering.admin.usage import BY_TENANT, balance_column, dimensions, quantity
from metering.models import CreditGrant, GrantSchedule
from metering.selectors.grants import standing_of
from metering.services.grant_schedules import void_schedule
from metering.services.grants import PRIORITY_MAX, GrantTerms, grant_credit, void_grant
from subscriptions.core.money import plain
from subscriptions.models import Meter
from subscriptions.selectors.clock import now_for

GIVEN = (CreditGrant.Kind.PROMOTIONAL, CreditGrant.Kind.PURCHASED)


class Voiding(forms.Form):
    """Asks why something is taken back."""

    reason = forms.CharField(max_length=500, widget=forms.Textarea(attrs={"rows": 2}))


class GrantForm(ServiceForm):
    """Whom a grant is given to, how much, and for how long."""

    meter = forms.ModelChoiceField(Meter.objects.order_by("code"))
    dimensions = forms.JSONField(
        required=False,
        help_text='Only where a charge has a pool of its own for them, such as {"model": "opus"}. Empty: the meter\'s shared pool.',
    )
    kind = forms.ChoiceField(choices=[(kind.value, kind.label) for kind in GIVEN])
    priority = forms.IntegerField(
        min_value=0, max_value=PRIORITY_MAX, initial=0, help_text="Low burns first; an allowance has 0."
    )
    effective_at = Moment(
        required=False, help_text="In UTC; may lie in the past of the open period. Empty: now, in the tenant's time."
    )
    expires_at = Moment(required=False, help_text="In UTC. Empty: never.")
    key = forms.CharField(required=False, max_length=255, help_text="Your own id of it: the same key is given once.")

    def clean_quantity(self) -> Any:
        """Refuse nothing at all, and what has more digits than a quantity."""
        value = DecimalStringField().to_internal_value(self.cleaned_data["quantity"])
        if value <= 0:
            raise forms.ValidationError("Must be above 0.")
        return value

    def clean_dimensions(self) -> Any:
        """Read names and values."""
        value = self.cleaned_data["dimensions"] or {}
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise forms.ValidationError("Must be an object of names and texts.")
        return value


_figures = [quantity(name) for name in ("quantity", "burned", "expired", "voided", "rolled_over", "remaining")]
_meter = shown("meter", lambda grant: grant.meter.code, order="meter__code")
_status = shown("status", lambda grant: standing_of(grant, at=now_for(grant.tenant)).status)
_pool = shown("pool", lambda row: dimensions(row.pool))


@admin.register(CreditGrant)
class CreditGrantAdmin(ServiceAdmin):
    """Quantities that cover usage: allowances, what rolled over, and what was given beyond."""

    form = GrantForm
    list_display = [
        shown("tenant", lambda grant: unbroken(grant.tenant.code), order="tenant__code"),
        "kind",
        _meter,
        quantity("quantity"),
        quantity("burned"),
        quantity("remaining"),
        "effective_at",
        "expires_at",
        "voided_at",
    ]
    list_select_related = ["tenant", "meter"]
    list_filter = ["kind"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "key__exact", "public_id__exact"]
    search_help_text = "A tenant's or a grant's id, or your key of it, written out in full."
    raw_id_fields = ["tenant"]
    actions = ["void"]
    row_conditions = {"void": lambda grant: grant.kind in GIVEN and grant.voided_at is None}

    def name_of(self, row: CreditGrant) -> str:
        """Name the tenant, and what it was given."""
        return f"{row.tenant}: {plain(row.quantity)} {row.meter.code}, {row.kind}"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Ask for what makes a grant; show what has become of it."""
        if obj is None:
            names = ["tenant", "meter", "dimensions", "kind", "quantity", "priority"]
            return [*names, "effective_at", "expires_at", "key"]
        return [
            "public_id",
            "tenant",
            _meter,
            _pool,
            balance_column,
            "kind",
            "priority",
            "key",
            _status,
            *_figures,
            "effective_at",
            "expires_at",
            "voided_at",
            "schedule",
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show what no form holds."""
        read = ["public_id", _meter, _pool, balance_column, _status, *_figures]
        return [] if obj is None else read

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a grant is given and taken back."""
        return False

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Give the grant."""
        given = form.cleaned_data
        names = ("meter", "dimensions", "kind", "quantity", "priority", "effective_at", "expires_at", "key")
        terms = GrantTerms(**{name: given[name] for name in names})
        tenant = given["tenant"]
        grant, _ = grant_credit(tenant=tenant, terms=terms, now=now_for(tenant), actor=actor_of(request))
        return grant

    @admin.action(description="Void", permissions=["operate"])
    def void(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Take grants back."""
        detail = "From now on a voided grant covers nothing. What it has covered stays covered."
        answers = self.ask(request, queryset, Voiding, title="Void grants", detail=detail)
        if isinstance(answers, TemplateResponse):
            return answers
        actor = actor_of(request)
        self.run_each(
            request,
            queryset.select_related("tenant", "meter"),
            lambda row: void_grant(grant=row, now=now_for(row.tenant), actor=actor, **answers),
            done="Voided",
        )
        return None


@admin.register(GrantSchedule)
class GrantScheduleAdmin(ReadOnlyAdmin):
    """What gives credit again and again: made through the API, stopped here."""

    _quantity = shown("quantity of each", lambda schedule: number(plain(schedule.quantity)), order="quantity")
    _every = shown("every", lambda schedule: f"{schedule.interval_count} {schedule.interval}")
    _next = shown("next grant", lambda schedule: schedule.due_at, order="due_at")
    list_display = ["tenant", "meter", "kind", _quantity, _every, _next, "until", "voided_at"]
    list_select_related = ["tenant", "meter"]
    list_filter = [PARKED]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "key__exact", "public_id__exact"]
    search_help_text = BY_TENANT
    actions = ["void"]
    row_conditions = {"void": lambda schedule: schedule.voided_at is None}
    fields = [
        "public_id",
        "tenant",
        "meter",
        _pool,
        "kind",
        "priority",
        "key",
        _quantity,
        _every,
        "starts_at",
        "zone",
        "until",
        "expires_after",
        "made",
        _next,
        "voided_at",
        "parked_at",
        "parked_reason",
    ]
    readonly_fields = ["public_id", _pool, _quantity, _every, _next]

    def name_of(self, row: GrantSchedule) -> str:
        """Name the tenant, and what it is given."""
        return f"{row.tenant}: {plain(row.quantity)} {row.meter.code} every {row.interval_count} {row.interval}"

    @admin.action(description="Stop", permissions=["operate"])
    def void(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Stop schedules."""
        detail = "A stopped schedule makes no grant any more. Those that it has made stay."
        answers = self.ask(request, queryset, Voiding, title="Stop grant schedules", detail=detail)
        if isinstance(answers, TemplateResponse):
            return answers
        actor = actor_of(request)
        self.run_each(
            request,
            queryset.select_related("tenant"),
            lambda row: void_schedule(schedule=row, now=now_for(row.tenant), actor=actor, **answers),
            done="Stopped",
        )
        return None
