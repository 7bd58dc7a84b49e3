"""Staff pages of usage: events, balances, holds, the ledger and what was booked. Nothing is edited here but a tenant's own thresholds."""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from billing_site.staff import (
    PARKED,
    ReadOnlyAdmin,
    ServiceAdmin,
    actor_of,
    components_table,
    either,
    link,
    number,
    readable,
    shown,
    table,
    to_the_second,
    unbroken,
)
from metering.core.measuring import dimension_set
from metering.models import (
    Authorization,
    LedgerEntry,
    MeterBalance,
    OverageCharge,
    ThresholdCrossing,
    ThresholdWatch,
    UsageEvent,
)
from metering.selectors.event_details import EventDetail, event_detail
from metering.selectors.events import decode_data, find_event, unmatched_events
from metering.services.gate import release_hold
from metering.services.replaying import replay_events
from metering.services.tenant_thresholds import set_thresholds
from subscriptions.core.money import plain
from subscriptions.models import BillingPeriod
from subscriptions.selectors.clock import wall_now
from subscriptions.services import audit

BY_TENANT = "A tenant's id, written out in full."


def quantity(name: str) -> Any:
    """Return the column of a quantity."""
    return shown(name.replace("_", " "), lambda row: number(plain(getattr(row, name))), order=name)


def dimensions(key: str) -> str:
    """Return a dimension set, which is stored as canonical JSON, as words."""
    return readable(dict(dimension_set(key))) if key else "–"


def _period(period: BillingPeriod) -> str:
    return unbroken(_days(period))


def _days(period: BillingPeriod) -> str:
    return f"{period.starts_at:%Y-%m-%d} – {period.ends_at:%Y-%m-%d}"


def _pool_name(balance: MeterBalance) -> str:
    return f"{balance.meter} ({dimensions(balance.pool)})" if balance.pool else balance.meter.code


def _state(balance: MeterBalance) -> str:
    if balance.parked_at is not None:
        return "parked"
    return "closed" if balance.closed_at is not None else "open"


_dimensions_column = shown("dimensions", lambda row: dimensions(row.dimension_key))
balance_column = shown("period (UTC)", lambda row: row.balance and link(row.balance, _period(row.balance.period)))
_meter_column = shown("meter", lambda entry: entry.pool_of.meter.code)


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

    list_display = ["event_id", "subject", "source", "type", "occurred_at", "unmatched_code"]
    sortable_by = ()
    ordering = ["-id"]
    list_filter = [Unmatched]
    search_fields = ["subject__exact"]
    search_help_text = "Enter a tenant's id in full, or choose “not counted”; events are not listed otherwise."
    actions = ["count_again"]
    row_buttons = False
    _times = [
        shown("occurred at", lambda event: to_the_second(event.occurred_at)),
        shown("recorded at", lambda event: to_the_second(event.recorded_at)),
    ]
    fields = [
        "id",
        "subject",
        "source",
        "event_id",
        "type",
        *_times,
        "time_was_sent",
        "content",
        "counted_as",
        "unmatched_code",
    ]
    readonly_fields = [*_times, "content", "counted_as"]

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

    @admin.display(description="data")
    def content(self, event: UsageEvent) -> Any:
        """Show the event's properties, numbers exactly as stored."""
        return table(("property", "value"), decode_data(self._detail(event).event.data_text).items())  # type: ignore[attr-defined]

    @admin.display(description="counted as")
    def counted_as(self, event: UsageEvent) -> Any:
        """Show what the event was counted as, by which meter and in which period."""
        rows = (
            (
                counted.kind,
                link(counted.balance, counted.balance.meter.code),
                readable(dict(counted.dimensions)),
                number(plain(counted.quantity)),
                _period(counted.balance.period),
            )
            for counted in self._detail(event).counted_as
        )
        return table(("how", "meter", "dimensions", "quantity", "period"), rows)

    def _detail(self, event: UsageEvent) -> EventDetail:
        return event_detail(event.pk)

    @admin.action(description="Count unmatched events of these tenants again", permissions=["operate"])
    def count_again(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Replay the unmatched events of the tenants whose events are selected."""
        # One event of each subject stands for it in the audit: the tenant itself may not exist.
        # Found by id, not by the list's own query, which reads every partition.
        ids = request.POST.getlist(ACTION_CHECKBOX_NAME)
        selected = [event for event in (self.get_object(request, one) for one in ids) if event is not None]
        if request.POST.get("select_across") == "1":
            selected = list(queryset.order_by("subject").distinct("subject"))
        for subject, event in {event.subject: event for event in selected}.items():
            replay = replay_events(now=wall_now(), tenant=subject)
            after = {"subject": subject, "counted": replay.counted, "unmatched": replay.unmatched}
            audit.record(actor=actor_of(request), action="replay", instance=event, after=after)
            # Not the id first: a message's first letter is shown as a capital.
            text = f"Events of {subject}: {replay.counted} counted, {replay.unmatched} still without a match"
            self.message_user(request, text, messages.WARNING if replay.unmatched else messages.SUCCESS)


@admin.register(MeterBalance)
class MeterBalanceAdmin(ReadOnlyAdmin):
    """What was used in a period, what of it is covered, and what waits for a person."""

    list_display = [
        shown("tenant", lambda balance: unbroken(balance.tenant.code), order="tenant__code"),
        shown("meter", _pool_name, order="meter__code"),
        shown("period (UTC)", lambda balance: _period(balance.period), order="period__starts_at"),
        quantity("used"),
        quantity("covered"),
        quantity("overage"),
        quantity("held"),
        shown("state", _state),
    ]
    list_select_related = ["tenant", "meter", "period"]
    list_filter = [PARKED, either("period", "closed_at", empty="open", filled="closed")]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "meter__code__exact"]
    search_help_text = "A tenant's or a meter's id, written out in full."

    def name_of(self, row: MeterBalance) -> str:
        """Name the tenant, the pool and the period."""
        return f"{row.tenant}: {_pool_name(row)}, {_days(row.period)}"

    _figures = [
        shown("pool", lambda balance: dimensions(balance.pool)),
        *(quantity(name) for name in ("used", "covered", "overage", "held")),
        quantity("booked_overage"),
    ]
    fields = [
        "tenant",
        "meter",
        "period",
        *_figures,
        "events",
        "booked_at",
        "due_at",
        "closed_at",
        "parked_at",
        "parked_reason",
    ]
    readonly_fields = _figures


class Reason(forms.Form):
    """Asks why, for the audit entry."""

    reason = forms.CharField(max_length=500, widget=forms.Textarea(attrs={"rows": 2}))


@admin.register(Authorization)
class AuthorizationAdmin(ReadOnlyAdmin):
    """Quantities held for calls before they have run, and what became of them."""

    _figures = [quantity("quantity"), shown("settled quantity", lambda row: _settled(row), order="settled_quantity")]
    _meter = shown("meter", lambda row: row.balance.meter.code)
    list_display = ["key", "tenant", _meter, balance_column, *_figures, "status", "authorized_at", "expires_at"]
    list_select_related = ["tenant", "balance__meter", "balance__period"]
    list_filter = ["status", PARKED]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "key__exact"]
    search_help_text = "A tenant's id or an authorization's key, written out in full."
    actions = ["release"]
    row_conditions = {"release": lambda row: row.status == Authorization.Status.HELD}
    _read = [
        _meter,
        balance_column,
        _dimensions_column,
        *_figures,
        quantity("overage_quantity"),
        shown("estimated cost", lambda row: number(plain(row.amount_precise), row.tenant.currency)),
        shown("hold ended as", lambda row: row.freed_by or "–"),
        shown("event", lambda row: _event_link(row)),
    ]
    fields = [
        "id",
        "tenant",
        "key",
        *_read,
        "decision",
        "status",
        "authorized_at",
        "expires_at",
        "parked_at",
        "parked_reason",
    ]
    readonly_fields = _read

    def name_of(self, row: Authorization) -> str:
        """Name the tenant and the key."""
        return f"{row.tenant}: {row.key}"

    @admin.action(description="Release", permissions=["operate"])
    def release(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Free holds of which nothing was used, for a reason."""
        answers = self.ask(request, queryset, Reason, title="Release")
        if isinstance(answers, TemplateResponse):
            return answers
        actor, reason, now = actor_of(request), answers["reason"], wall_now()
        self.run_each(
            request,
            queryset,
            lambda row: release_hold(authorization_id=row.pk, now=now, actor=actor, reason=reason),
            done="Released",
        )
        return None


def _settled(row: Authorization) -> str:
    return "–" if row.settled_quantity is None else number(plain(row.settled_quantity))


def _event_link(row: Authorization) -> str:
    event = find_event(row.settled_event) if row.settled_event is not None else None
    return link(event, str(event.pk)) if event is not None else "–"


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    """Every movement of quantities."""

    list_display = [
        "id",
        "tenant",
        _meter_column,
        balance_column,
        "kind",
        quantity("quantity"),
        "events",
        _dimensions_column,
        "recorded_at",
    ]
    list_select_related = ["tenant", "balance__meter", "balance__period", "grant__meter"]
    sortable_by = ()
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = BY_TENANT
    _read = [_meter_column, balance_column, quantity("quantity"), _dimensions_column]
    fields = ["tenant", "kind", *_read, "events", "grant", "segment_at", "posting", "recorded_at"]
    readonly_fields = _read


@admin.register(ThresholdCrossing)
class ThresholdCrossingAdmin(ReadOnlyAdmin):
    """Thresholds that were reached, each of which was sent as `usage.threshold_reached`."""

    _figures = [
        shown("of", lambda crossing: _owner(crossing)),
        shown("threshold", lambda crossing: crossing.threshold.replace(":", " ")),
        shown("period (UTC)", lambda crossing: _period(crossing.period), order="period__starts_at"),
        shown("lay at", lambda crossing: number(plain(crossing.line)), order="line"),
        shown("had come to", lambda crossing: number(plain(crossing.value)), order="value"),
    ]
    list_display = ["tenant", *_figures, "cause", "crossed_at"]
    list_select_related = ["tenant", "meter", "period"]
    list_filter = ["cause", "once", either("state", "rearmed_at", empty="told", filled="armed anew")]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = BY_TENANT
    fields = ["public_id", "tenant", *_figures, "once", "cause", "crossed_at", "recorded_at", "rearmed_at"]
    readonly_fields = _figures


@admin.register(ThresholdWatch)
class ThresholdWatchAdmin(ServiceAdmin):
    """A tenant's own thresholds; when all that concern it are looked at without an event, and what of that waits for a person."""

    list_display = ["tenant", shown("its own", lambda watch: readable(watch.thresholds)), "due_at", "parked_at"]
    list_select_related = ["tenant"]
    list_filter = [PARKED]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = BY_TENANT
    raw_id_fields = ["tenant"]
    help_texts = {
        "thresholds": 'Amounts of overage over all meters of which you want to be told: a JSON list, such as [{"amount": "50"}].',
    }

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show, once there is a row, what becomes of it."""
        asked = ["tenant", "thresholds"]
        return asked if obj is None else [*asked, "due_at", "parked_at", "parked_reason"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Fix the tenant, once there is a row; the rest is due work's."""
        return [] if obj is None else ["tenant", "due_at", "parked_at", "parked_reason"]

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Set the tenant's thresholds."""
        tenant = form.instance.tenant if change else form.cleaned_data["tenant"]
        given = form.cleaned_data["thresholds"]
        return set_thresholds(tenant=tenant, thresholds=[] if given is None else given, actor=actor_of(request))


def _owner(crossing: ThresholdCrossing) -> str:
    """Name the pool that a threshold is of; without one it is the tenant's."""
    if crossing.meter is None:
        return "all meters"
    return f"{crossing.meter} ({dimensions(crossing.pool)})" if crossing.pool else crossing.meter.code


@admin.register(OverageCharge)
class OverageChargeAdmin(ReadOnlyAdmin):
    """What overage was booked at, as differences to the booking before."""

    _figures = [
        quantity("quantity"),
        shown(
            "amount, unrounded",
            lambda booking: number(plain(booking.amount_precise), booking.currency),
            order="amount_precise",
        ),
    ]
    _priced = shown("dimensions", lambda booking: readable(booking.charge.dimensions))
    _booked_to = quantity("booked_to")
    list_display = ["tenant", "charge", _priced, "kind", "sequence", *_figures, "booked_at"]
    list_select_related = ["tenant", "charge__meter", "charge__version__tier"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = BY_TENANT
    fields = [
        "tenant",
        "charge",
        _priced,
        balance_column,
        "kind",
        "sequence",
        *_figures,
        _booked_to,
        "booked_at",
        "explained",
    ]
    readonly_fields = [_priced, balance_column, *_figures, _booked_to, "explained"]

    @admin.display(description="how the charge's amount so far was reached")
    def explained(self, booking: OverageCharge) -> Any:
        """Show the components of the cumulative amount."""
        return components_table(booking.components)
