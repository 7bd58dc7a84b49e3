"""What the questions and answers of the gate look like, for the published schema."""

from typing import Any

from rest_framework import serializers

from billing_site.http.serializers import CodeField, DecimalStringField, TextField, TimestampField
from metering.api.documents import LimitDocument


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
