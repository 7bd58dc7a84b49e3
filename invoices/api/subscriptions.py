"""`/subscriptions`: who is on which tier, from when to when."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Prefetch
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.problems import DomainError, FieldError, Invalid
from billing_site.http.queries import NO_PARAMETERS, QueryParameters, code
from billing_site.http.schema import IDEMPOTENCY_KEY, PAGING, page_of, query
from billing_site.http.serializers import CodeField, StrictSerializer, TimestampField
from invoices.api.documents import PERIODS_SHOWN, SubscriptionDocument, subscription_document
from invoices.api.repeatable import answer_once
from invoices.services import subscribing
from subscriptions.models import BillingPeriod, ScheduledChange, Subscription, Tenant, TierVersion
from subscriptions.selectors.catalog import get_tier, get_version, live_version
from subscriptions.selectors.clock import now_for, wall_now
from subscriptions.selectors.tenants import TenantNotFound, get_tenant
from subscriptions.services.version_documents import TRIAL_DAYS_MAX


class SubscriptionNotFound(DomainError):
    """No subscription has this id."""

    status = 404
    code = "not_found"
    title = "There is no such subscription"


class StartInput(StrictSerializer):
    """A new subscription."""

    tenant = CodeField()
    tier = CodeField()
    version = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, allow_null=True, help_text="The live one if absent."
    )
    starts_at = TimestampField(required=False, help_text="The tenant's now if absent.")
    anchor_at = TimestampField(required=False, help_text="If absent, the start, or the trial's end.")
    trial_days = serializers.IntegerField(
        min_value=0,
        max_value=TRIAL_DAYS_MAX,
        required=False,
        allow_null=True,
        help_text="Local days; 0 for no trial. The version's if absent, once per tenant and tier.",
    )


class Subscriptions(APIView):
    """The subscriptions of all tenants."""

    required_scopes = {"GET": "read", "POST": "manage"}
    parameters = QueryParameters({"tenant": code}, paged=True)

    @extend_schema(
        operation_id="list_subscriptions",
        summary="List subscriptions, newest first",
        parameters=[query("tenant", "Only of this tenant."), *PAGING],
        responses=page_of("Subscription", SubscriptionDocument),
    )
    def get(self, request: Request) -> Response:
        """Each with its newest periods."""
        values = self.parameters.read(request)
        found = _subscriptions()
        if values["tenant"]:
            found = found.filter(tenant=get_tenant(values["tenant"]))
        return page(request, found, ordering=("-id",), serialize=shown)

    @extend_schema(
        operation_id="start_subscription",
        summary="Subscribe a tenant to a tier",
        request=StartInput,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: SubscriptionDocument},
    )
    def post(self, request: Request) -> Response:
        """From `starts_at` on its first period is open and, where the fee is in advance, its opening invoice final; a trial has none."""
        NO_PARAMETERS.read(request)
        values = StartInput.checked(request.data)

        def start() -> tuple[int, dict[str, Any]]:
            tenant = _tenant_of(values["tenant"])
            now = now_for(tenant)
            starts_at = values.get("starts_at") or now
            subscription = subscribing.start_subscription(
                tenant=tenant,
                version=find_version(values, at=starts_at),
                starts_at=starts_at,
                anchor_at=values.get("anchor_at"),
                trial_days=values.get("trial_days"),
                now=now,
                actor=actor_of(request),
            )
            return 201, shown(find_subscription(subscription.public_id))

        return answer_once(request, start)


class SubscriptionDetail(APIView):
    """One subscription."""

    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="get_subscription", summary="Show a subscription", responses=SubscriptionDocument)
    def get(self, request: Request, subscription: UUID) -> Response:
        """With its newest periods, and what is still to come."""
        NO_PARAMETERS.read(request)
        return Response(shown(find_subscription(subscription)))


def _subscriptions() -> Any:
    newest = BillingPeriod.objects.order_by("-sequence")[:PERIODS_SHOWN]
    waiting = ScheduledChange.objects.filter(status=ScheduledChange.Status.SCHEDULED).select_related("to_version__tier")
    return Subscription.objects.select_related("tenant__test_clock", "version__tier").prefetch_related(
        Prefetch("periods", newest, to_attr="newest_periods"),
        Prefetch("scheduled_changes", waiting.order_by("wanted_at", "pk"), to_attr="waiting_changes"),
    )


def find_subscription(public_id: UUID) -> Subscription:
    """Return a subscription with all that its document shows. Raises SubscriptionNotFound (404)."""
    found = _subscriptions().filter(public_id=public_id).first()
    if found is None:
        raise SubscriptionNotFound(f"There is no subscription {public_id}.")
    return found


def shown(subscription: Subscription) -> dict[str, Any]:
    """Return the document of a subscription that `find_subscription` found, in its tenant's time."""
    return subscription_document(subscription, now=now_for(subscription.tenant))


def _tenant_of(tenant: str) -> Tenant:
    try:
        return get_tenant(tenant)
    except TenantNotFound as error:
        raise Invalid(
            "The subscription cannot start.", errors=[FieldError("tenant", "unknown_tenant", error.detail)]
        ) from None


def find_version(values: dict[str, Any], *, at: datetime) -> TierVersion:
    """Return the version that a request names by `tier` and perhaps `version`; else the tier's live one. Raises Invalid (422)."""
    tier = get_tier(values["tier"])
    if values.get("version"):
        return get_version(tier, values["version"])
    # A start before the tier's first publication (a test clock in the past, say) gets what is on offer now.
    version = live_version(tier, at=at) or live_version(tier, at=wall_now())
    if version is None:
        message = "has no version that is live; publish one, or name a version"
        raise Invalid("The tier has no live version.", errors=[FieldError("tier", "no_live_version", message)])
    return version
