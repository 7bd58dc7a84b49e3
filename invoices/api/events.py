"""`GET /events/{event}`: what an event was counted as, and the invoice lines it stands on."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.queries import NO_PARAMETERS
from invoices.selectors.invoices import lines_of_event
from metering.selectors.event_details import event_detail


class ExplainedEventDocument(serializers.Serializer[Any]):
    """An event, explained."""

    event = serializers.UUIDField()
    id = serializers.CharField()
    status = serializers.CharField()
    counted_as = serializers.ListField(child=serializers.DictField())
    invoice_lines = serializers.ListField(child=serializers.DictField())


class EventExplanation(APIView):
    """One event."""

    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="get_event", summary="Explain an event", responses=ExplainedEventDocument)
    def get(self, request: Request, event: UUID) -> Response:
        """What it was counted as, with its segment's and pool's totals, and the invoice lines that bill its charge."""
        NO_PARAMETERS.read(request)
        detail = event_detail(event)
        lines = [
            {"invoice": str(line.invoice.public_id), "number": line.invoice.printed_number, "line": line.number}
            for line in lines_of_event(detail)
        ]
        return Response(detail.document() | {"invoice_lines": lines})
