"""`/meters`: what is counted. How a meter counts is fixed when it is made; its name, unit and lateness may change."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.queries import NO_PARAMETERS, PAGE_PARAMETERS
from billing_site.http.schema import PAGING, page_of
from billing_site.http.serializers import AsGivenField, CodeField, StrictSerializer, TextField, TimestampField
from subscriptions.models import Meter
from subscriptions.selectors.catalog import get_meter
from subscriptions.services import catalog
from subscriptions.services.meter_documents import PRECISION_MAX, WINDOW_DAYS_MAX


@extend_schema_field({"type": "string", "enum": ["sum", "count", "max", "latest", "unique_count"]})
class AggregationField(AsGivenField):
    """How events become a quantity."""


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string"},
            {
                "type": "array",
                "maxItems": 20,
                "items": {
                    "type": "object",
                    "required": ["property"],
                    "properties": {
                        "property": {"type": "string"},
                        "weight": {"type": "string", "format": "decimal"},
                        "money": {"type": "boolean"},
                    },
                },
            },
        ],
        "nullable": True,
        "example": "usage.total_tokens",
    }
)
class ValuePropertyField(AsGivenField):
    """Where an event says how much."""


@extend_schema_field({"type": "object", "additionalProperties": {}, "example": {"region": ["eu", "us"]}})
class FiltersField(AsGivenField):
    """Which events are counted."""


@extend_schema_field({"type": "array", "items": {"type": "string"}, "maxItems": 10, "example": ["model"]})
class DimensionsField(AsGivenField):
    """By what usage is told apart."""


class MeterChanges(StrictSerializer):
    """What of a meter may change."""

    name = TextField(required=False)
    unit = TextField(max_length=50, allow_blank=True, required=False)
    precision = serializers.IntegerField(
        min_value=0, max_value=PRECISION_MAX, required=False, help_text="Decimals of a prorated allowance."
    )
    late_policy = serializers.ChoiceField(
        Meter.LatePolicy.choices, required=False, help_text="What becomes of usage whose period has closed."
    )
    window_days = serializers.IntegerField(
        min_value=1, max_value=WINDOW_DAYS_MAX, required=False, help_text="How far back an event may lie."
    )


class MeterInput(MeterChanges):
    """A new meter."""

    code = CodeField()
    name = TextField()
    event_type = TextField(help_text="The `type` of the events that it counts.")
    aggregation = AggregationField(
        help_text="sum and count add up; max, latest and unique_count are one value per period and dimension set."
    )
    value_property = ValuePropertyField(
        required=False,
        allow_null=True,
        help_text="A dotted path into `data`, or weighted ones (not in a unique_count); none in a count.",
    )
    filters = FiltersField(required=False, help_text="Dotted path to the value, or values, that an event must have.")
    dimensions = DimensionsField(required=False, help_text="Dotted paths by which usage is shown and may be priced.")


class MeterDocument(serializers.Serializer[Any]):
    """A meter."""

    code = CodeField()
    name = TextField()
    event_type = TextField()
    aggregation = AggregationField()
    value_property = ValuePropertyField(allow_null=True)
    filters = FiltersField()
    dimensions = DimensionsField()
    unit = TextField()
    precision = serializers.IntegerField()
    late_policy = serializers.ChoiceField(Meter.LatePolicy.choices)
    window_days = serializers.IntegerField()
    created_at = TimestampField()


def _shown(meter: Meter) -> Any:
    return MeterDocument(meter).data


class Meters(APIView):
    """The meters of the catalogue."""

    required_scopes = {"GET": "read", "POST": "manage"}

    @extend_schema(
        operation_id="list_meters",
        summary="List the meters, by their codes",
        parameters=[*PAGING],
        responses=page_of("Meter", MeterDocument),
    )
    def get(self, request: Request) -> Response:
        """List them all."""
        PAGE_PARAMETERS.read(request)
        return page(request, Meter.objects.all(), ordering=("code",), serialize=_shown)

    @extend_schema(
        operation_id="create_meter", summary="Make a meter", request=MeterInput, responses={201: MeterDocument}
    )
    def post(self, request: Request) -> Response:
        """How it counts is fixed from here on; 409 for a code that is taken."""
        NO_PARAMETERS.read(request)
        given = MeterInput.checked(request.data)
        meter = catalog.create_meter(**given, actor=actor_of(request))
        return Response(_shown(meter), status=201)


class MeterByCode(APIView):
    """One meter."""

    required_scopes = {"GET": "read", "PATCH": "manage"}

    @extend_schema(operation_id="get_meter", summary="Show a meter", responses=MeterDocument)
    def get(self, request: Request, meter: str) -> Response:
        """Show how it counts."""
        NO_PARAMETERS.read(request)
        return Response(_shown(get_meter(meter)))

    @extend_schema(
        operation_id="update_meter",
        summary="Change a meter's name, unit, precision or lateness",
        request=MeterChanges,
        responses=MeterDocument,
    )
    def patch(self, request: Request, meter: str) -> Response:
        """What is absent stays. What decides the count cannot change: make another meter."""
        NO_PARAMETERS.read(request)
        found = get_meter(meter)
        given = MeterChanges.checked(request.data)
        updated = catalog.update_meter(meter_id=found.pk, changes=given, actor=actor_of(request))
        return Response(_shown(updated))
