"""Grants, and the schedules that make them, as the API reads and shows them."""

from datetime import datetime
from typing import Any

from rest_framework import serializers

from billing_site.http.serializers import CodeField, DecimalStringField, StrictSerializer, TextField, TimestampField
from metering.api.documents import DimensionsField, PeriodDocument
from metering.models import CreditGrant
from metering.models.grants import KEY_LENGTH_MAX
from metering.selectors.grants import standing_of
from metering.services.grant_schedules import Recurrence
from metering.services.grants import PRIORITY_MAX, GrantTerms
from subscriptions.core.periods import Interval
from subscriptions.selectors.catalog import get_meter

GIVEN_KINDS = [CreditGrant.Kind.PROMOTIONAL.value, CreditGrant.Kind.PURCHASED.value]
STATUSES = ["pending", "active", "used_up", "expired", "voided", "rolled_over"]


class EveryInput(StrictSerializer):
    """How often a grant is given again, counted from the first in the tenant's time zone."""

    interval = serializers.ChoiceField([one.value for one in Interval])
    count = serializers.IntegerField(min_value=1, max_value=366, default=1, help_text="Every so many intervals.")
    until = TimestampField(
        required=False, allow_null=True, help_text="No grant begins then or later; no end if absent."
    )
    expires_after = serializers.IntegerField(
        min_value=1,
        max_value=1000,
        default=1,
        allow_null=True,
        help_text="After how many times that a grant expires: 1, when the next begins. Null: never.",
    )

    @staticmethod
    def recurrence(given: dict[str, Any]) -> Recurrence:
        """Return what is asked for."""
        return Recurrence(
            interval=Interval(given["interval"]),
            count=given["count"],
            until=given.get("until"),
            expires_after=given["expires_after"],
        )


class GrantInput(StrictSerializer):
    """A new grant."""

    meter = CodeField()
    dimensions = serializers.DictField(
        child=TextField(allow_blank=True),
        required=False,
        help_text="Of the charge that has a pool of its own; the meter's shared pool if absent.",
    )
    kind = serializers.ChoiceField(GIVEN_KINDS, default=GIVEN_KINDS[0])
    quantity = DecimalStringField(help_text="Meter units, above 0.", minimum=0)
    priority = serializers.IntegerField(
        min_value=0, max_value=PRIORITY_MAX, default=0, help_text="Low burns first; an allowance has 0."
    )
    effective_at = TimestampField(
        required=False, allow_null=True, help_text="The tenant's now if absent; not in a closed period."
    )
    expires_at = TimestampField(required=False, allow_null=True, help_text="Never if absent.")
    key = TextField(max_length=KEY_LENGTH_MAX, required=False, help_text="Your own id of the grant: it is given once.")

    every = EveryInput(
        required=False,
        allow_null=True,
        help_text="Give it again and again; the answer is a schedule. Without `expires_at`.",
    )

    def validate(self, attrs: Any) -> Any:
        """Refuse two ways of saying when a recurring grant expires."""
        if attrs.get("every") and attrs.get("expires_at"):
            message = "Does not go with `every`, whose `expires_after` says when each grant expires."
            raise serializers.ValidationError({"expires_at": message}, code="invalid")
        return attrs

    def validate_quantity(self, value: Any) -> Any:
        """Refuse nothing at all."""
        if not value:
            raise serializers.ValidationError("Must be above 0.", code="too_small")
        return value

    @staticmethod
    def terms(given: dict[str, Any]) -> GrantTerms:
        """Return what is asked for. Raises CatalogItemNotFound (404) for a meter that is none."""
        return GrantTerms(
            meter=get_meter(given["meter"]),
            dimensions=given.get("dimensions") or {},
            kind=given["kind"],
            quantity=given["quantity"],
            priority=given["priority"],
            effective_at=given.get("effective_at"),
            expires_at=given.get("expires_at"),
            key=given.get("key", ""),
        )


class GrantDocument(serializers.Serializer[Any]):
    """A grant: quantity = burned + expired + voided + rolled_over + remaining."""

    id = serializers.UUIDField(source="grant.public_id")
    tenant = CodeField(source="grant.tenant.code")
    meter = CodeField(source="grant.meter.code")
    dimensions = DimensionsField(source="grant.pool", help_text="Of its pool; empty for the meter's shared one.")
    kind = serializers.ChoiceField(CreditGrant.Kind.choices, source="grant.kind")
    priority = serializers.IntegerField(source="grant.priority")
    key = serializers.CharField(source="grant.key", help_text="Empty where none was given.")
    quantity = DecimalStringField(source="grant.quantity")
    burned = DecimalStringField(source="grant.burned")
    expired = DecimalStringField(source="standing.expired")
    voided = DecimalStringField(source="standing.voided")
    rolled_over = DecimalStringField(source="grant.rolled_over")
    remaining = DecimalStringField(source="standing.remaining", help_text="0 once its time is over.")
    status = serializers.ChoiceField(STATUSES, source="standing.status")
    effective_at = TimestampField(source="grant.effective_at")
    expires_at = TimestampField(source="grant.expires_at", allow_null=True, help_text="Null: never.")
    voided_at = TimestampField(source="grant.voided_at", allow_null=True)
    period = PeriodDocument(
        source="grant.balance.period",
        default=None,
        allow_null=True,
        help_text="The only period that it covers; null for one that covers whatever it touches.",
    )
    rolled_from = serializers.UUIDField(
        source="grant.rolled_from.public_id",
        default=None,
        allow_null=True,
        help_text="The allowance that it was left of.",
    )
    schedule = serializers.UUIDField(
        source="grant.schedule.public_id", default=None, allow_null=True, help_text="The schedule that made it."
    )
    created_at = TimestampField(source="grant.created_at")


def grant_document(grant: CreditGrant, now: datetime) -> dict[str, Any]:
    """Return a grant as every answer shows it, with what has become of it by the tenant's time."""
    return dict(GrantDocument({"grant": grant, "standing": standing_of(grant, at=now)}).data)


class EveryDocument(serializers.Serializer[Any]):
    """How often a schedule makes a grant."""

    interval = serializers.CharField()
    count = serializers.IntegerField(source="interval_count")
    until = TimestampField(allow_null=True)
    expires_after = serializers.IntegerField(allow_null=True)


class ScheduleDocument(serializers.Serializer[Any]):
    """What gives a tenant credit again and again."""

    id = serializers.UUIDField(source="public_id")
    tenant = CodeField(source="tenant.code")
    meter = CodeField(source="meter.code")
    dimensions = DimensionsField(source="pool", help_text="Of its pool; empty for the meter's shared one.")
    kind = serializers.ChoiceField(GIVEN_KINDS)
    priority = serializers.IntegerField()
    key = serializers.CharField(help_text="Empty where none was given.")
    quantity = DecimalStringField(help_text="Of each grant.")
    every = EveryDocument(source="*")
    effective_at = TimestampField(source="starts_at", help_text="When the first grant begins.")
    next_at = TimestampField(source="due_at", allow_null=True, help_text="When the next begins; null: none will.")
    made = serializers.IntegerField(help_text="How many boundaries have passed.")
    voided_at = TimestampField(allow_null=True)
    created_at = TimestampField()
