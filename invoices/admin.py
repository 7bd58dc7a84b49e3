"""Staff pages of what is owed: subscriptions, periods, invoices, credit; and test clocks, whose advance runs all that is due."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join

from billing_site.http.problems import DomainError
from billing_site.staff import Moment, ReadOnlyAdmin, ServiceAdmin, ServiceForm, StaffAdmin, actor_of, explain
from invoices.models import Invoice, InvoiceLine, TenantCreditEntry
from invoices.services import advancing, due, invoicing, subscribing
from metering.models import MeterBalance
from subscriptions.models import BillingPeriod, Subscription, TestClock, TierVersion
from subscriptions.selectors.clock import now_for
from subscriptions.services import audit, clocks


class WhyVoid(forms.Form):
    """Asks why an invoice is voided."""

    reason = forms.CharField(max_length=1000, widget=forms.Textarea(attrs={"rows": 2}))


class Cancelling(forms.Form):
    """Asks how a subscription ends."""

    when = forms.ChoiceField(
        choices=[(subscribing.PERIOD_END, "at the end of the running period"), (subscribing.NOW, "now")]
    )
    credit = forms.ChoiceField(
        choices=[("none", "nothing"), ("unused", "the unused part of the fee")], label="Give back"
    )
    reason = forms.CharField(max_length=1000, required=False, widget=forms.Textarea(attrs={"rows": 2}))


class Goal(forms.Form):
    """Asks to which time a clock goes."""

    to = Moment(label="Advance to (UTC)")


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


@admin.action(description="Release parked", permissions=["operate"])
def release_parked(page: StaffAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> None:
    """Give the parked rows among the selected all of their tries again."""
    page.run_each(
        request,
        queryset.filter(parked_at__isnull=False),
        lambda row: _release(row, actor=actor_of(request)),
        done="Released",
    )


@transaction.atomic
def _release(row: Any, *, actor: str) -> None:
    before = {"parked_at": row.parked_at, "parked_reason": row.parked_reason}
    due.release_parked(row)
    audit.record(actor=actor, action="release", instance=row, before=before)


# Its page belongs to metering, the work that it owes is run from here.
_balances: Any = admin.site.get_model_admin(MeterBalance)
_balances.actions = [*_balances.actions, release_parked]


class StartForm(ServiceForm):
    """Who starts on which version, and when."""

    version = forms.ModelChoiceField(
        TierVersion.objects.filter(published_at__isnull=False).select_related("tier").order_by("tier__code", "-number")
    )
    starts_at = Moment(required=False, help_text="In UTC. Empty: now, in the tenant's time.")
    anchor_at = Moment(
        required=False, help_text="In UTC. The moment from which periods are counted. Empty: when it starts."
    )


@admin.register(Subscription)
class SubscriptionAdmin(ServiceAdmin):
    """Who runs on what; started and cancelled here, never edited."""

    form = StartForm
    list_display = ["public_id", "tenant", "version", "starts_at", "ends_at", "due_at", "parked_at"]
    list_select_related = ["tenant", "version__tier"]
    list_filter = [("parked_at", admin.EmptyFieldListFilter)]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = "A tenant's id, written out in full."
    raw_id_fields = ["tenant"]
    actions = ["cancel", release_parked]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Ask for what starts a subscription; show what has become of it."""
        if obj is None:
            return ["tenant", "version", "starts_at", "anchor_at"]
        anchor = ["anchor_date", "anchor_time", "anchor_zone"]
        return [
            "public_id",
            "tenant",
            "version",
            "starts_at",
            "ends_at",
            *anchor,
            "due_at",
            "parked_at",
            "parked_reason",
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Show our own id, which no form holds."""
        return [] if obj is None else ["public_id"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a subscription is started and cancelled."""
        return False

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Start the subscription."""
        given = form.cleaned_data
        now = now_for(given["tenant"])
        starts_at = given["starts_at"] or now
        return subscribing.start_subscription(
            tenant=given["tenant"],
            version=given["version"],
            starts_at=starts_at,
            anchor_at=given["anchor_at"] or starts_at,
            now=now,
            actor=actor_of(request),
        )

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """End subscriptions, now or with their period."""
        answers = self.ask(request, queryset, Cancelling, title="Cancel subscription")
        if isinstance(answers, TemplateResponse):
            return answers
        actor = actor_of(request)
        self.run_each(
            request,
            queryset.select_related("tenant"),
            lambda row: subscribing.cancel_subscription(
                subscription_id=row.pk, now=now_for(row.tenant), actor=actor, **answers
            ),
            done="Cancelled",
        )
        return None


@admin.register(BillingPeriod)
class BillingPeriodAdmin(ReadOnlyAdmin):
    """Stored periods, and why one waits for a person."""

    list_display = ["__str__", "tenant", "starts_at", "ends_at", "due_at", "closed_at", "parked_at", "parked_reason"]
    list_select_related = ["tenant", "subscription"]
    list_filter = [("parked_at", admin.EmptyFieldListFilter)]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = "A tenant's id, written out in full."
    actions = [release_parked]


@admin.register(TenantCreditEntry)
class TenantCreditEntryAdmin(ReadOnlyAdmin):
    """Movements of the tenants' credit."""

    list_display = ["recorded_at", "tenant", "kind", "amount", "currency", "invoice"]
    list_select_related = ["tenant", "invoice"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = "A tenant's id, written out in full."


class ClockForm(ServiceForm):
    """A new clock and its time."""

    now = Moment(label="Its time (UTC)")


@admin.register(TestClock)
class TestClockAdmin(ServiceAdmin):
    """Clocks that move when told to."""

    form = ClockForm
    list_display = ["code", "now", "status", "advancing_to"]
    search_fields = ["code"]
    actions = ["advance"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Ask for the time of a new clock; show where an old one is going."""
        return ["code", "now"] if obj is None else ["code", "now", "status", "advancing_to"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a clock is advanced, which runs what falls due on the way."""
        return False

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Make the clock."""
        return clocks.create_clock(**form.cleaned_data, actor=actor_of(request))

    @admin.action(description="Advance", permissions=["operate"])
    def advance(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Advance one clock, and report what was run on the way."""
        if queryset.count() != 1:
            self.message_user(request, "Advance one clock at a time.", messages.ERROR)
            return None
        clock = queryset.get()
        answers = self.ask(request, queryset, Goal, title="Advance", initial={"to": clock.now})
        if isinstance(answers, TemplateResponse):
            return answers
        try:
            journal = advancing.advance(clock_id=clock.pk, to=answers["to"], actor=actor_of(request))
        except DomainError as refusal:
            self.message_user(request, explain(refusal), messages.ERROR)
            return None
        ran = ", ".join(f"{count} × {what}" for what, count in Counter(entry.what for entry in journal).items())
        self.message_user(request, format_html("{} stands at {}. Run: {}.", clock, answers["to"], ran or "nothing"))
        return None
