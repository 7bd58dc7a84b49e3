"""`/subscriptions/{id}/…`: cancel, pause, resume, reactivate, move the anchor, and undo what is still to come."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.queries import NO_PARAMETERS
from billing_site.http.schema import IDEMPOTENCY_KEY
from billing_site.http.serializers import CodeField, StrictSerializer, TimestampField
from invoices.api.documents import SubscriptionDocument
from invoices.api.repeatable import answer_once
from invoices.api.subscriptions import find_subscription, shown
from invoices.services import anchoring, pausing, subscribing, undoing
from subscriptions.selectors.clock import now_for
from subscriptions.selectors.pending import CANCEL
from subscriptions.services.agreement import REACTIVATION_DAYS

Transition = Callable[..., object]
"""A service: gets `subscription_id`, `now`, `actor`, and what the request says."""


def _credit() -> serializers.ChoiceField:
    return serializers.ChoiceField(
        ["unused", "none"], default="unused", help_text="What becomes of the unused part of the running fee."
    )


class CancelInput(StrictSerializer):
    """How a subscription ends."""

    when = serializers.ChoiceField([subscribing.NOW, subscribing.PERIOD_END])
    credit = _credit()


class PauseInput(StrictSerializer):
    """How a subscription pauses."""

    credit = _credit()


class NoInput(StrictSerializer):
    """Nothing is asked."""


class AnchorInput(StrictSerializer):
    """From where boundaries are counted."""

    anchor_at = TimestampField(help_text="Read as local time in the tenant's zone.")


class UndoInput(StrictSerializer):
    """What is undone."""

    change = CodeField(
        required=False,
        help_text=f"The id of a pending change, `{CANCEL}` for the cancellation; may be absent where one thing is pending.",
    )


class Cancellation(APIView):
    """Ends a subscription."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="cancel_subscription",
        summary="Cancel a subscription",
        request=CancelInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=SubscriptionDocument,
    )
    def post(self, request: Request, subscription: UUID) -> Response:
        """Now or at the end of the period; the final invoice comes when the last period closes."""
        return _carry_out(request, subscription, CancelInput, subscribing.cancel_subscription)


class Pause(APIView):
    """Pauses a subscription."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="pause_subscription",
        summary="Pause a subscription",
        request=PauseInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=SubscriptionDocument,
    )
    def post(self, request: Request, subscription: UUID) -> Response:
        """
        Its period ends now, and is billed when it closes. Until it is resumed events are `unmatched` (`no_period`), and the gate denies.

        What was scheduled is dropped. By day, today counts as used.
        """
        return _carry_out(request, subscription, PauseInput, pausing.pause_subscription)


class Resumption(APIView):
    """Resumes a paused subscription."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="resume_subscription",
        summary="Resume a paused subscription",
        request=NoInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=SubscriptionDocument,
    )
    def post(self, request: Request, subscription: UUID) -> Response:
        """A period begins now, boundaries are counted from it, and a fee in advance has its opening invoice at once."""
        return _carry_out(request, subscription, NoInput, pausing.resume_subscription)


class Reactivation(APIView):
    """Takes up a subscription that has ended."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="reactivate_subscription",
        summary="Take up a subscription that has ended",
        description=f"At most {REACTIVATION_DAYS} days after its end, on the version that it had; a period begins now, as after a pause.",
        request=NoInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=SubscriptionDocument,
    )
    def post(self, request: Request, subscription: UUID) -> Response:
        """Begin a new run of it."""
        return _carry_out(request, subscription, NoInput, pausing.reactivate_subscription)


class AnchorMove(APIView):
    """Moves the instant from which boundaries are counted."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="move_subscription_anchor",
        summary="Count the boundaries of a subscription from another instant",
        request=AnchorInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=SubscriptionDocument,
    )
    def post(self, request: Request, subscription: UUID) -> Response:
        """
        With the period that follows the running one: a stub, whose fee is prorated by day. It replaces a move that is still to come.

        Of a fee that pays for several periods the unused part is given back then. Refused where periods follow the calendar.
        """
        return _carry_out(request, subscription, AnchorInput, anchoring.move_anchor)


class Undoing(APIView):
    """Takes back what is still to come."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="undo_subscription_change",
        summary="Undo what is still to come of a subscription",
        request=UndoInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=SubscriptionDocument,
    )
    def post(self, request: Request, subscription: UUID) -> Response:
        """A cancellation at the period's end, a change of tier that was scheduled, or a move of the anchor: one of its `pending_changes`."""
        return _carry_out(request, subscription, UndoInput, undoing.undo)


def _carry_out(request: Request, subscription: UUID, asked: type[StrictSerializer], transition: Transition) -> Response:
    NO_PARAMETERS.read(request)
    values = asked.checked(request.data)

    def action() -> tuple[int, dict[str, Any]]:
        row = find_subscription(subscription)
        now: datetime = now_for(row.tenant)
        transition(subscription_id=row.pk, now=now, actor=actor_of(request), **values)
        return 200, shown(find_subscription(subscription))

    return answer_once(request, action)
