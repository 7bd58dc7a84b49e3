"""`/subscriptions/{id}/trial`: where a trial ends."""

from datetime import datetime
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.queries import NO_PARAMETERS
from billing_site.http.schema import IDEMPOTENCY_KEY
from billing_site.http.serializers import StrictSerializer, TimestampField
from invoices.api.documents import SubscriptionDocument
from invoices.api.repeatable import answer_once
from invoices.api.subscriptions import find_subscription, shown
from invoices.services.trials import move_trial_end
from subscriptions.selectors.clock import now_for

NOW = "now"


@extend_schema_field({"oneOf": [{"type": "string", "format": "date-time"}, {"type": "string", "enum": [NOW]}]})
class NowOrLaterField(TimestampField):
    """An instant, or "now", which is the tenant's and is read as None."""

    def to_internal_value(self, data: Any) -> datetime | None:  # type: ignore[override]
        """Return the instant in UTC."""
        return None if data == NOW else super().to_internal_value(data)


class TrialInput(StrictSerializer):
    """Where a trial ends."""

    ends_at = NowOrLaterField(help_text="The end, or `now`: what follows begins at once.")


class TrialEnd(APIView):
    """The end of a subscription's trial."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="move_trial_end",
        summary="Extend a trial, or end it early",
        request=TrialInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=SubscriptionDocument,
    )
    def post(self, request: Request, subscription: UUID) -> Response:
        """Its allowance, its closing and the boundaries counted from its end move with it."""
        NO_PARAMETERS.read(request)
        values = TrialInput.checked(request.data)

        def move() -> tuple[int, dict[str, Any]]:
            row = find_subscription(subscription)
            now = now_for(row.tenant)
            move_trial_end(subscription_id=row.pk, ends_at=values["ends_at"], now=now, actor=actor_of(request))
            return 200, shown(find_subscription(subscription))

        return answer_once(request, move)
