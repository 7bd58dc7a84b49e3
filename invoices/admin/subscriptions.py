"""Staff pages of subscriptions and their periods, and the release of work that waits for a person."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from billing_site.staff import (
    PARKED,
    Moment,
    ReadOnlyAdmin,
    ServiceForm,
    StaffAdmin,
    actor_of,
    either,
    link,
    shown,
    unbroken,
)
from invoices.admin.lifecycle import LifecycleAdmin, in_words, pending_of
from invoices.services import due, invoicing, subscribing
from metering.models import GrantSchedule, MeterBalance, ThresholdWatch
from subscriptions.models import BillingPeriod, Subscription, TierVersion
from subscriptions.selectors.clock import now_for
from subscriptions.services import audit
from subscriptions.services.version_documents import TRIAL_DAYS_MAX


@admin.action(description="Release parked", permissions=["operate"])
def release_parked(page: StaffAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> None:
    """Give the parked rows among the selected all of their tries again."""
    parked = queryset.filter(parked_at__isnull=False)
    if not parked.exists():
        page.message_user(request, "Nothing of this is parked.", messages.WARNING)
    page.run_each(
        request,
        parked,
        lambda row: _release(row, actor=actor_of(request)),
        done="Released",
    )


def is_parked(row: Any) -> bool:
    """Whether the row's work waits for a person."""
    return row.parked_at is not None


@transaction.atomic
def _release(row: Any, *, actor: str) -> None:
    before = {"parked_at": row.parked_at, "parked_reason": row.parked_reason}
    due.release_parked(row)
    audit.record(actor=actor, action="release", instance=row, before=before)


# Their pages belong to metering, the work that they owe is run from here.
for _model in (MeterBalance, ThresholdWatch, GrantSchedule):
    _page: Any = admin.site.get_model_admin(_model)
    _page.actions = [*_page.actions, release_parked]
    _page.row_conditions = {**_page.row_conditions, "release_parked": is_parked}


def _period_name(period: BillingPeriod) -> str:
    return f"{period.tenant} #{period.sequence}"


_TO_COME = shown("to come", lambda subscription: in_words(pending_of(subscription)))


class StartForm(ServiceForm):
    """Who starts on which version, and when."""

    version = forms.ModelChoiceField(
        TierVersion.objects.filter(published_at__isnull=False).select_related("tier").order_by("tier__code", "-number")
    )
    starts_at = Moment(required=False, help_text="In UTC. Empty: now, in the tenant's time.")
    anchor_at = Moment(
        required=False,
        help_text="In UTC. The moment from which periods are counted. Empty: when it starts, or where its trial ends.",
    )
    trial_days = forms.IntegerField(
        min_value=0,
        max_value=TRIAL_DAYS_MAX,
        required=False,
        help_text="0 for none. Empty: as many as the version has, if the tenant has had no trial of the tier.",
    )


@admin.register(Subscription)
class SubscriptionAdmin(LifecycleAdmin):
    """Who runs on what; started here, and led through its life by actions, never edited."""

    form = StartForm
    list_display = [
        shown("tenant", lambda subscription: unbroken(subscription.tenant.code), order="tenant__code"),
        "version",
        "starts_at",
        "ends_at",
        "paused_at",
        shown("next period opens", lambda subscription: subscription.due_at, order="due_at"),
        "parked_at",
    ]
    list_select_related = ["tenant", "version__tier"]
    list_filter = [PARKED, either("running", "ends_at", empty="without an end", filled="cancelled"), "version__tier"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "public_id__exact"]
    search_help_text = "A tenant's or a subscription's id, written out in full."
    raw_id_fields = ["tenant"]
    actions = [*LifecycleAdmin.lifecycle_actions, "draft_unbilled", release_parked]
    row_conditions = {**LifecycleAdmin.lifecycle_conditions, "release_parked": is_parked}

    def name_of(self, row: Subscription) -> str:
        """Name the tenant and what it is on."""
        return f"{row.tenant} on {row.version}"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Ask for what starts a subscription; show what has become of it."""
        if obj is None:
            return ["tenant", "version", "starts_at", "anchor_at", "trial_days"]
        anchor = ["anchor_date", "anchor_time", "anchor_zone"]
        return [
            "public_id",
            "tenant",
            "version",
            "starts_at",
            "trial_ends_at",
            "paused_at",
            "ends_at",
            *anchor,
            _TO_COME,
            "due_at",
            "parked_at",
            "parked_reason",
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Show our own id, and what is to come, which no form holds."""
        return [] if obj is None else ["public_id", _TO_COME]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: what becomes of a subscription is said by its actions."""
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
            anchor_at=given["anchor_at"],
            trial_days=given["trial_days"],
            now=now,
            actor=actor_of(request),
        )

    @admin.action(description="Draft an invoice of what is unbilled", permissions=["operate"])
    def draft_unbilled(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Leave drafts, which are finalised on the invoices' page."""
        actor = actor_of(request)
        self.run_each(
            request,
            queryset.select_related("tenant"),
            lambda row: invoicing.draft_unbilled(subscription_id=row.pk, now=now_for(row.tenant), actor=actor),
            done="Drafted",
        )


@admin.register(BillingPeriod)
class BillingPeriodAdmin(ReadOnlyAdmin):
    """Stored periods, and why one waits for a person."""

    list_display = [
        shown("period", lambda period: unbroken(_period_name(period))),
        "version",
        "starts_at",
        "ends_at",
        "due_at",
        "closed_at",
        "parked_at",
        "parked_reason",
    ]
    list_select_related = ["tenant", "version__tier", "subscription"]
    list_filter = [PARKED, either("period", "closed_at", empty="open", filled="closed")]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact"]
    search_help_text = "A tenant's id, written out in full."
    actions = [release_parked]
    row_conditions = {"release_parked": is_parked}

    def name_of(self, row: BillingPeriod) -> str:
        """Name the tenant, and which of its periods it is."""
        return _period_name(row)

    _subscription = shown("subscription", lambda period: link(period.subscription, str(period.subscription.version)))
    fields = [
        "tenant",
        _subscription,
        "sequence",
        "kind",
        "version",
        "starts_at",
        "ends_at",
        "full_starts_at",
        "full_ends_at",
        "due_at",
        "closed_at",
        "parked_at",
        "parked_reason",
    ]
    readonly_fields = [_subscription]
