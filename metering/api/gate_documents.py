"""What the questions and answers of the gate look like, for the published schema."""

from typing import Any

from rest_framework import serializers

from billing_site.http.serializers import CodeField, DecimalStringField, TextField, TimestampField
from metering.api.documents import BalanceDocument, EventInput, LimitDocument


class AuthorizeInput(serializers.Serializer[Any]):
    """A call that is about to run."""

    tenant = CodeField()
    meter = CodeField()
    quantity = DecimalStringField(help_text="Meter units: what the call may use at most. Above 0.")
    key = TextField(
        max_length=255, help_text="Yours; a repeat finds the same authorization. Printable ASCII without blanks."
    )
    ttl_seconds = serializers.IntegerField(required=False, min_value=1, max_value=86_400, help_text="300 if absent.")
    dimensions = serializers.DictField(
        child=serializers.CharField(max_length=200),
        required=False,
        help_text="Of the call, as its event will have them.",
    )
    hold = serializers.BooleanField(required=False, help_text="False: only asks. True if absent.")


class DecidedDocument(serializers.Serializer[Any]):
    """What the gate says to a call."""

    id = serializers.UUIDField(allow_null=True, help_text="Null where nothing is held.")
    status = serializers.ChoiceField(["held", "settled", "released", "expired"], allow_null=True)
    decision = serializers.ChoiceField(["allow", "allow_overage", "degrade", "deny"])
    reason = serializers.CharField()
    quantity = DecimalStringField()
    remaining = DecimalStringField(help_text="What is left of the grants in force, after all holds.")
    overage_quantity = DecimalStringField(help_text="The part that no grant covers.")
    estimated_amount = DecimalStringField(help_text="What that part costs, in the tenant's currency, not rounded.")
    binding_limit = LimitDocument(allow_null=True, help_text="The tightest limit, null where nothing limits the call.")
    frees_at = TimestampField(allow_null=True, help_text="When a limit that stood in the way has room again.")
    expires_at = TimestampField(allow_null=True, help_text="When the hold ends by itself.")
    fresh_at = TimestampField(help_text="The answer is of what was true then, or later.")


class ExtendInput(serializers.Serializer[Any]):
    """How much more is held, or for how long; one of them at least."""

    quantity = DecimalStringField(required=False, help_text="How much more, in meter units. Above 0.")
    ttl_seconds = serializers.IntegerField(required=False, min_value=1, max_value=86_400, help_text="From now on.")


class SettleInput(serializers.Serializer[Any]):
    """What was used: one of the two."""

    quantity = DecimalStringField(required=False, help_text="Meter units, 0 or more.")
    event = EventInput(required=False, help_text="Its `subject` may be left out.")


class AuthorizationDocument(serializers.Serializer[Any]):
    """A hold of quantity, or what became of it."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(["held", "settled", "released", "expired"])
    hold = serializers.ChoiceField(
        ["held", "settled", "released", "expired"],
        help_text="How the hold ended: a settled authorization may have expired or been released before.",
    )
    tenant = CodeField()
    meter = CodeField()
    dimensions = serializers.DictField(child=serializers.CharField())
    key = TextField(max_length=255)
    decision = serializers.ChoiceField(["allow", "allow_overage", "degrade"])
    quantity = DecimalStringField(help_text="Held, extensions included.")
    overage_quantity = DecimalStringField()
    estimated_amount = DecimalStringField()
    authorized_at = TimestampField()
    expires_at = TimestampField()
    settled_quantity = DecimalStringField(allow_null=True, help_text="Recorded by settling.")
    event = serializers.UUIDField(allow_null=True, help_text="Our id of the event that settled it.")


class SettledDocument(AuthorizationDocument):
    """A settled authorization, with the pools that were touched."""

    balances = BalanceDocument(many=True)
