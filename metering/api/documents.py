"""What the answers of metering look like: for the published schema, and where a row is shown field by field, for the answer itself."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing_site.http.schema import PeriodDocument
from billing_site.http.serializers import CodeField, DecimalStringField, StrictSerializer, TextField, TimestampField
from metering.core.measuring import dimension_set
from metering.models import LedgerEntry


@extend_schema_field({"type": "object", "additionalProperties": {"type": "string"}})
class DimensionsField(serializers.Field):
    """A dimension set: its stored key (canonical JSON, or empty) in, an object of names and values out."""

    def to_representation(self, value: str) -> dict[str, str]:
        """Return the names and values."""
        return dict(dimension_set(value)) if value else {}


class EventInput(serializers.Serializer[Any]):
    """A usage event in its native form."""

    id = serializers.CharField(max_length=255, help_text="Yours; unique with `source` for the tenant, for ever.")
    subject = serializers.CharField(max_length=100, help_text="The tenant's id.")
    type = serializers.CharField(max_length=200)
    source = serializers.CharField(max_length=255, default="default")  # type: ignore[assignment]
    time = serializers.DateTimeField(
        required=False, help_text="RFC 3339 with an offset; the moment of receipt if absent."
    )
    data = serializers.DictField(  # type: ignore[assignment]
        required=False, help_text="What meters measure. Numbers are read exactly, or as strings."
    )


class ProblemItem(serializers.Serializer[Any]):
    """What is wrong with one event of a request."""

    index = serializers.IntegerField(help_text="Its place in the request, from 0.")
    id = serializers.CharField(allow_null=True)
    status = serializers.ChoiceField(["conflict", "rejected", "unmatched"])
    code = serializers.CharField()
    detail = serializers.CharField()
    fields_ = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="In which a conflict differs."
    )

    def get_fields(self) -> dict[str, Any]:
        """Return the fields under their names in the answer; `fields` itself is DRF's."""
        found = super().get_fields()
        found["fields"] = found.pop("fields_")
        return found


class BalanceDocument(serializers.Serializer[Any]):
    """Where a pool stands. Quantities are in meter units."""

    tenant = serializers.CharField()
    meter = serializers.CharField()
    dimensions = serializers.DictField(
        child=serializers.CharField(),
        help_text="Of the charge that has a pool of its own; empty for the meter's shared pool.",
    )
    period_ends_at = TimestampField()
    used = DecimalStringField()
    included = DecimalStringField()
    remaining = DecimalStringField()
    overage = DecimalStringField()
    overage_amount_precise = DecimalStringField(help_text="In the tenant's currency, not rounded.")
    state = serializers.ChoiceField(["included", "exhausted", "overage"])


class IngestDocument(serializers.Serializer[Any]):
    """What became of a request. `event` (our id) stands in the answer to a single event only."""

    accepted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    conflicts = serializers.IntegerField()
    rejected = serializers.IntegerField()
    unmatched = serializers.IntegerField()
    problems = ProblemItem(many=True)
    balances = BalanceDocument(many=True)
    event = serializers.UUIDField(required=False)


class EventDocument(serializers.Serializer[Any]):
    """A stored event."""

    event = serializers.UUIDField(help_text="Our id of it.")
    id = serializers.CharField(help_text="The sender's.")
    source = serializers.CharField()  # type: ignore[assignment]
    type = serializers.CharField()
    subject = serializers.CharField()
    time = TimestampField()
    recorded_at = TimestampField()
    data = serializers.DictField()  # type: ignore[assignment]
    status = serializers.ChoiceField(["counted", "unmatched", "reversed"])
    code = serializers.CharField(help_text="Why it is unmatched; else empty.")


class SameDimensionsDocument(serializers.Serializer[Any]):
    """The usage of one dimension set."""

    quantity = DecimalStringField()
    events = serializers.IntegerField()


class SegmentDocument(SameDimensionsDocument):
    """A stretch of a pool's time in which grants and version are constant, with the usage of all events there."""

    starts_at = TimestampField()
    same_dimensions = SameDimensionsDocument()


class PoolDocument(serializers.Serializer[Any]):
    """Where a pool stands in the period of the event."""

    dimensions = serializers.DictField(child=serializers.CharField())
    used = DecimalStringField()
    covered = DecimalStringField()
    overage = DecimalStringField()


class CountedDocument(serializers.Serializer[Any]):
    """One movement that an event caused."""

    kind = serializers.ChoiceField(["record", "replay", "reversal"])
    meter = serializers.CharField()
    dimensions = serializers.DictField(child=serializers.CharField())
    quantity = DecimalStringField(help_text="Meter units; negative in a reversal.")
    period = PeriodDocument()
    segment = SegmentDocument()
    pool = PoolDocument()


class EventDetailDocument(EventDocument):
    """A stored event with all that it was counted as."""

    counted_as = CountedDocument(many=True)


class ReasonInput(StrictSerializer):
    """Why something is done."""

    reason = TextField(max_length=500)


class ReplayInput(StrictSerializer):
    """Whose events are to be counted again."""

    tenant = CodeField(required=False, help_text="Of all tenants if absent.")


class ReplayDocument(serializers.Serializer[Any]):
    """What a replay did."""

    counted = serializers.IntegerField()
    unmatched = serializers.IntegerField(help_text="How many still match nothing.")


class UsageRowDocument(serializers.Serializer[Any]):
    """What one meter counted in one window. Both times are null where no window was asked for."""

    meter = serializers.CharField()
    starts_at = TimestampField(allow_null=True)
    ends_at = TimestampField(allow_null=True)
    group = serializers.DictField(child=serializers.CharField())
    quantity = DecimalStringField()
    events = serializers.IntegerField()


class UsageDocument(serializers.Serializer[Any]):
    """Usage over time."""

    tenant = serializers.CharField()
    timezone = serializers.CharField(help_text="In which windows begin and end.")
    results = UsageRowDocument(many=True)

    def get_fields(self) -> dict[str, Any]:
        """Add the stretch of time, whose names are words of Python."""
        return super().get_fields() | {"from": TimestampField(), "to": TimestampField()}


class LedgerEntryDocument(serializers.Serializer[LedgerEntry]):
    """
    One movement. `usage` consumes, `walk` moves consumption between grants and overage; `grant` credits a grant, and `expire`, `void` and
    `rollover` take out what was left of one.
    """

    posting = serializers.UUIDField(source="posting_id", help_text="What one transaction wrote together.")
    kind = serializers.ChoiceField(LedgerEntry.Kind.choices)
    meter = serializers.CharField(source="pool_of.meter.code")
    pool = DimensionsField(source="pool_of.pool", help_text="Empty for the meter's shared pool.")
    dimensions = DimensionsField(source="dimension_key")
    quantity = DecimalStringField(help_text="Meter units; a reversal's are negative.")
    events = serializers.IntegerField(help_text="How many events are folded into it.")
    grant = serializers.UUIDField(
        source="grant.public_id", default=None, allow_null=True, help_text="Null: overage, which no grant covers."
    )
    segment_at = TimestampField(help_text="First instant of the segment that it belongs to.")
    period = PeriodDocument(
        source="balance.period", default=None, allow_null=True, help_text="Null: of a grant that may cover several."
    )
    recorded_at = TimestampField()


class LimitDocument(serializers.Serializer[Any]):
    """A limit of the gate, in meter units; a `spend_cap` in the tenant's currency."""

    kind = serializers.ChoiceField(["allowance", "overage_quantity_max", "window", "spend_cap"])
    limit = DecimalStringField()
    left = DecimalStringField()
    frees_at = TimestampField(
        allow_null=True,
        help_text="When a call that does not fit will fit; of a window that has room, when its oldest usage leaves.",
    )
    window = serializers.CharField(required=False, help_text="The length of a rolling window, such as PT5H.")


class DecisionDocument(serializers.Serializer[Any]):
    """What a call would be answered now."""

    decision = serializers.ChoiceField(["allow", "allow_overage", "degrade", "deny"])
    reason = serializers.CharField()


class BalanceAtGateDocument(BalanceDocument):
    """Where a pool stands, and what the gate would say."""

    held = DecimalStringField()
    limits = LimitDocument(many=True)
    decision = DecisionDocument()
    fresh_at = TimestampField(help_text="The answer is of what was true then, or later.")
