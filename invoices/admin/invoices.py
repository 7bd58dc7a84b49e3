"""Staff pages of invoices and of the tenants' credit."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html_join

from billing_site.staff import ReadOnlyAdmin, actor_of
from invoices.models import Invoice, InvoiceLine, TenantCreditEntry
from invoices.services import invoicing
from subscriptions.selectors.clock import now_for


class WhyVoid(forms.Form):
    """Asks why an invoice is voided."""

    reason = forms.CharField(max_length=1000, widget=forms.Textarea(attrs={"rows": 2}))


def readable(components: Any) -> str:
    """Return a line's components as a list for people: "band 1: quantity 5, unit amount 0.0002, total 0.001"."""
    rows = [components] if isinstance(components, Mapping) else components or []
    return format_html_join("", "<div>{}</div>", ((_members(row),) for row in rows)) or "–"


def _members(row: Any) -> str:
    if not isinstance(row, Mapping):
        return str(row)
    return ", ".join(
        f"{str(name).replace('_', ' ')} {_value(value)}" for name, value in row.items() if value is not None
    )


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + "; ".join(_members(one) for one in value) + "]"
    return f"({_members(value)})" if isinstance(value, Mapping) else str(value)


class LineInline(admin.TabularInline):
    """An invoice's lines, each with how its amount was reached."""

    model = InvoiceLine
    fields = ["number", "kind", "description", "quantity", "unit_amount", "amount", "amount_precise", "explained"]
    readonly_fields = ["explained"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: the invoice's services write lines."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Allow whoever may see the invoice."""
        return request.user.has_perm("invoices.view_invoice") or request.user.has_perm("invoices.change_invoice")

    @admin.display(description="components")
    def explained(self, line: InvoiceLine) -> str:
        """Show the components readably."""
        return readable(line.components)


@admin.register(Invoice)
class InvoiceAdmin(ReadOnlyAdmin):
    """Invoices, read-only: a draft can be finalised, an open one voided."""

    list_display = ["__str__", "tenant", "reason", "status", "currency", "total", "amount_due", "finalized_at"]
    list_select_related = ["tenant"]
    list_filter = ["status", "reason"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "number__exact"]
    search_help_text = "A tenant's id, or the digits of a number, written out in full."
    inlines = [LineInline]
    actions = ["finalize", "void"]

    @admin.action(description="Finalise", permissions=["operate"])
    def finalize(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Make drafts final, each in its tenant's time."""
        actor = actor_of(request)
        self.run_each(
            request,
            queryset.select_related("tenant"),
            lambda row: invoicing.finalize(invoice_id=row.pk, now=now_for(row.tenant), actor=actor),
            done="Finalised",
        )

    @admin.action(description="Void", permissions=["operate"])
    def void(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Void open invoices, for a reason."""
        answers = self.ask(request, queryset, WhyVoid, title="Void")
        if isinstance(answers, TemplateResponse):
            return answers
        actor, reason = actor_of(request), answers["reason"]
        self.run_each(
            request,
            queryset.select_related("tenant"),
            lambda row: invoicing.void(invoice_id=row.pk, now=now_for(row.tenant), actor=actor, reason=reason),
            done="Voided",
        )
        return None


@admin.register(TenantCreditEntry)
class TenantCreditEntryAdmin(ReadOnlyAdmin):
    """Movements of the tenants' credit."""

    list_display = ["recorded_at", "tenant", "kind", "amount", "currency", "invoice"]
    list_select_related = ["tenant", "invoice"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = "A tenant's id, written out in full."
