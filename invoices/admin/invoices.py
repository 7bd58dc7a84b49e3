"""Staff pages of invoices and of the tenants' credit."""

import re
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html

from billing_site.http.problems import DomainError
from billing_site.keyset import LargeTablePaginator
from billing_site.staff import (
    ReadOnlyAdmin,
    actor_of,
    change_path,
    components_table,
    link,
    number,
    readable,
    shown,
    table,
)
from invoices.models import Invoice, InvoiceLine, TenantCreditEntry
from invoices.selectors.invoices import events_of_line, get_invoice, get_line
from invoices.selectors.verifying import verify
from invoices.services import invoicing
from metering.models import UsageEvent
from subscriptions.core.money import plain
from subscriptions.selectors.catalog import money_text
from subscriptions.selectors.clock import now_for

EVENTS_PER_PAGE = 100
_PRINTED_NUMBER = re.compile(r"(?P<series>[A-Za-z]+)-(?P<number>\d{1,18})")


class WhyVoid(forms.Form):
    """Asks why an invoice is voided."""

    reason = forms.CharField(
        max_length=1000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="For the audit. What the invoice billed can then be billed again; its number is not used again.",
    )


def _money(name: str, title: str = "") -> Any:
    """Return the column of an amount, in its row's currency."""
    return shown(
        title or name.replace("_", " "),
        lambda row: number(money_text(getattr(row, name), row.currency), row.currency),
        order=name,
    )


@admin.register(Invoice)
class InvoiceAdmin(ReadOnlyAdmin):
    """Invoices, read-only: a draft can be finalised, an open one voided, and each proved by its events."""

    list_display = [
        shown("invoice", lambda invoice: str(invoice), order="number"),
        "tenant",
        "reason",
        "status",
        _money("total"),
        _money("amount_due"),
        "finalized_at",
    ]
    list_select_related = ["tenant"]
    list_filter = ["status", "reason", "finalized_at"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "number__exact"]
    search_help_text = "A tenant's id or an invoice's number (INV-000042, or 42), written out in full."
    actions = ["check_figures", "finalize", "void"]
    row_conditions = {
        "finalize": lambda invoice: invoice.status == Invoice.Status.DRAFT,
        "void": lambda invoice: invoice.status == Invoice.Status.OPEN,
    }
    _amounts = [_money(name) for name in ("subtotal", "tax", "total", "credit_applied", "amount_due")]
    _read = [
        shown("subscription", lambda invoice: link(invoice.subscription, str(invoice.subscription.version))),
        shown("period", lambda invoice: _period_link(invoice)),
        shown("billed to", lambda invoice: readable(invoice.billed_to)),
    ]
    fieldsets = [
        (None, {"fields": ["tenant", *_read, "reason", "status", "public_id"]}),
        ("Amounts", {"fields": _amounts}),
        ("Lines", {"fields": ["lines_shown"]}),
        ("Dates", {"fields": ["drafted_at", "finalized_at", "voided_at"]}),
    ]
    readonly_fields = ["public_id", *_read, *_amounts, "lines_shown"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find an invoice by its number as it is printed, too."""
        if printed := _PRINTED_NUMBER.fullmatch(search_term.strip()):
            by_number = queryset.filter(series=printed["series"].upper(), number=int(printed["number"]))
            if by_number.exists():
                return by_number, False
        return super().get_search_results(request, queryset, search_term)

    def get_urls(self) -> list[Any]:
        """Add the page of the events behind a line."""
        address = path(
            "<int:invoice_id>/lines/<int:line_number>/events/",
            self.admin_site.admin_view(self.line_events),
            name="invoices_invoice_line_events",
        )
        return [address, *super().get_urls()]

    def line_events(self, request: HttpRequest, invoice_id: int, line_number: int) -> TemplateResponse:
        """List the events behind a line, newest first."""
        if not (self.has_view_permission(request) and request.user.has_perm("metering.view_usageevent")):
            raise PermissionDenied
        invoice = self.get_object(request, str(invoice_id))
        if invoice is None:
            raise Http404
        try:
            line = get_line(invoice, line_number)
        except DomainError as missing:
            raise Http404 from missing
        paginator = LargeTablePaginator(events_of_line(line), EVENTS_PER_PAGE)
        page = paginator.get_page(request.GET.get("page"))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Events behind line {line.number} of {invoice}",
            "opts": self.opts,
            "invoice": invoice,
            "line": line,
            "page": page,
            "events": table(("event", "source", "type", "occurred at", "data"), map(_event, page.object_list)),
        }
        return TemplateResponse(request, "admin/line_events.html", context)

    @admin.display(description="lines")
    def lines_shown(self, invoice: Invoice) -> Any:
        """Show the lines, each with how its amount was reached and a way to its events."""
        lines = get_invoice(invoice.public_id).lines.all()
        return table(
            ("", "line", "quantity", "unit price", "amount"), (cells for line in lines for cells in _rows(line))
        )

    @admin.action(description="Verify", permissions=["view"])
    def check_figures(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Rate invoices again from their events, and name what comes out otherwise."""
        for invoice in queryset:
            differences = verify(invoice)
            if not differences:
                text = f"Verified {invoice}: rated again from its events and versions, every figure is the same."
                self.message_user(request, text, messages.SUCCESS)
            for one in differences:
                place = "the invoice" if one.line is None else f"line {one.line}"
                text = f"Not proved: {invoice}, {place}: {one.field.replace('_', ' ')} is {one.found}, must be {one.expected}."
                self.message_user(request, text, messages.ERROR)

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

    list_display = ["recorded_at", "tenant", "kind", _money("amount"), "invoice"]
    list_select_related = ["tenant", "invoice"]
    list_filter = ["kind"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = "A tenant's id, written out in full."
    _amount = _money("amount")
    fields = ["tenant", "kind", _amount, "invoice", "recorded_at"]
    readonly_fields = [_amount]


def _period_link(invoice: Invoice) -> str:
    period = invoice.period
    return link(period, f"{period.starts_at:%Y-%m-%d} – {period.ends_at:%Y-%m-%d}") if period else "–"


def _rows(line: InvoiceLine) -> list[list[Any]]:
    """Return a line, and below it what explains the line."""
    amount = number(money_text(line.amount, line.currency), line.currency)
    unit = "–" if line.unit_amount is None else number(plain(line.unit_amount))
    precise = format_html("<p>Before rounding: {} {}</p>", plain(line.amount_precise), line.currency)
    events = (
        "" if line.charge_id is None else format_html('<a href="{}">Events behind this line</a>', _events_path(line))
    )
    how = format_html(
        "<details><summary>How the amount was reached</summary>{}{}</details>{}",
        components_table(line.components),
        precise,
        events,
    )
    return [
        [line.number, line.description, number(plain(line.quantity)), unit, amount],
        ["", how, "", "", ""],
    ]


def _events_path(line: InvoiceLine) -> str:
    return reverse("admin:invoices_invoice_line_events", args=[line.invoice_id, line.number])


def _event(event: UsageEvent) -> list[Any]:
    address = change_path("metering", "usageevent", event.pk)
    at = f"{event.occurred_at:%Y-%m-%d %H:%M:%S}"
    return [
        format_html('<a href="{}">{}</a>', address, event.event_id),
        event.source,
        event.type,
        at,
        readable(event.data),
    ]
