"""Staff pages of usage: events, balances, the ledger and what was booked. Nothing is edited here."""

import json
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest

from billing_site.staff import ReadOnlyAdmin, actor_of
from metering.models import CreditGrant, LedgerEntry, MeterBalance, OverageCharge, UsageEvent
from metering.selectors.events import find_event, unmatched_events
from metering.services.replaying import replay_events
from subscriptions.selectors.clock import wall_now
from subscriptions.services import audit

_BY_TENANT = "A tenant's id, written out in full."


class Unmatched(admin.SimpleListFilter):
    """Only the events that were not counted, by the selector that the replay reads."""

    title = "counted"
    parameter_name = "unmatched"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the unmatched ones."""
        return [("yes", "not counted")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep what no meter, subscription or tenant matched."""
        return queryset & unmatched_events() if self.value() == "yes" else queryset


@admin.register(UsageEvent)
class UsageEventAdmin(ReadOnlyAdmin):
    """Reported facts, by tenant or by what was left uncounted: listing all of them would read every partition."""

    list_display = ["id", "subject", "source", "event_id", "type", "occurred_at", "unmatched_code"]
    ordering = ["-id"]
    list_filter = [Unmatched]
    search_fields = ["subject__exact"]
    search_help_text = "Enter a tenant's id in full, or choose “not counted”; events are not listed otherwise."
    actions = ["count_again"]
    row_buttons = False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find nothing until something is asked for."""
        if not search_term and Unmatched.parameter_name not in request.GET:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Look only into the partitions in which the id can lie."""
        try:
            return find_event(UUID(object_id))
        except ValueError:
            return None

    @admin.action(description="Count unmatched events of these tenants again", permissions=["operate"])
    def count_again(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Replay the unmatched events of the tenants whose events are selected."""
        # One event of each subject stands for it in the audit: the tenant itself may not exist.
        # Found by id, not by the list's own query, which reads every partition.
        ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
        selected = [event for event in (self.get_object(request, one) for one in ids) if event is not None]
        for subject, event in {event.subject: event for event in selected}.items():
            replay = replay_events(now=wall_now(), tenant=subject)
            after = {"subject": subject, "counted": replay.counted, "unmatched": replay.unmatched}
            audit.record(actor=actor_of(request), action="replay", instance=event, after=after)
            text = f"{subject}: {replay.counted} counted, {replay.unmatched} still without a match"
            self.message_user(request, text, messages.SUCCESS)


@admin.register(MeterBalance)
class MeterBalanceAdmin(ReadOnlyAdmin):
    """What was used in a period, what of it is covered, and what waits for a person."""

    list_display = ["id", "tenant", "meter", "pool", "used", "covered", "overage", "due_at", "parked_at", "closed_at"]
    list_select_related = ["tenant", "meter"]
    list_filter = [("parked_at", admin.EmptyFieldListFilter)]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "meter__code__exact"]
    search_help_text = "A tenant's or a meter's id, written out in full."


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    """Every movement of quantities."""

    list_display = ["id", "tenant", "balance", "kind", "quantity", "events", "dimension_key", "recorded_at"]
    list_select_related = ["tenant", "balance"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = _BY_TENANT


@admin.register(CreditGrant)
class CreditGrantAdmin(ReadOnlyAdmin):
    """Quantities that cover usage."""

    list_display = ["id", "tenant", "kind", "quantity", "burned", "expired", "remaining", "effective_at", "expires_at"]
    list_select_related = ["tenant"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = _BY_TENANT


@admin.register(OverageCharge)
class OverageChargeAdmin(ReadOnlyAdmin):
    """What overage was booked at, as differences to the booking before."""

    list_display = ["id", "tenant", "charge", "kind", "sequence", "quantity", "amount_precise", "currency", "booked_at"]
    list_select_related = ["tenant", "charge__meter", "charge__version__tier"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = _BY_TENANT
    exclude = ["components"]
    readonly_fields = ["explained"]

    @admin.display(description="components")
    def explained(self, booking: OverageCharge) -> str:
        """Show how the amount was reached."""
        return json.dumps(booking.components, ensure_ascii=False)
