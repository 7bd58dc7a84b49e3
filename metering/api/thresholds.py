"""`/tenants/{tenant}/thresholds`: the amounts of overage over all meters at which the operator is told of a tenant."""

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.queries import NO_PARAMETERS
from billing_site.http.serializers import AsGivenField, StrictSerializer
from metering.selectors.thresholds import thresholds_of
from metering.services.tenant_thresholds import set_thresholds
from subscriptions.selectors.tenants import get_tenant
from subscriptions.services.threshold_documents import THRESHOLDS_MAX


@extend_schema_field(
    {
        "type": "array",
        "maxItems": THRESHOLDS_MAX,
        "items": {
            "type": "object",
            "required": ["amount"],
            "properties": {
                "amount": {"type": "string", "format": "decimal"},
                "once": {"type": "string", "enum": ["period", "life"], "default": "period"},
            },
        },
        "example": [{"amount": "50"}, {"amount": "1000", "once": "life"}],
    }
)
class ThresholdsField(AsGivenField):
    """What overage may come to before `usage.threshold_reached` is sent."""


class ThresholdsDocument(StrictSerializer):
    """A tenant's own thresholds."""

    thresholds = ThresholdsField(
        help_text="Amounts of overage over all meters, in the tenant's currency, at each of which you are told: once in a period, or for life."
    )


class Thresholds(APIView):
    """The thresholds of a tenant; those of its pools are its tier's."""

    required_scopes = {"GET": "read", "PUT": "manage"}

    @extend_schema(
        operation_id="tenant_thresholds", summary="Show a tenant's own thresholds", responses=ThresholdsDocument
    )
    def get(self, request: Request, tenant: str) -> Response:
        """Show them in one form: amounts as plain texts, `once` only where it is for life."""
        NO_PARAMETERS.read(request)
        return Response({"thresholds": thresholds_of(get_tenant(tenant))})

    @extend_schema(
        operation_id="set_tenant_thresholds",
        summary="Replace a tenant's own thresholds",
        request=ThresholdsDocument,
        responses=ThresholdsDocument,
    )
    def put(self, request: Request, tenant: str) -> Response:
        """They count from the next movement of usage on, which tells of what is passed already. What was told is not told again."""
        NO_PARAMETERS.read(request)
        found = get_tenant(tenant)
        given = ThresholdsDocument.checked(request.data)
        watch = set_thresholds(tenant=found, thresholds=given["thresholds"], actor=actor_of(request))
        return Response({"thresholds": watch.thresholds})
