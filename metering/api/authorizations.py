"""`/authorizations`: holding a quantity before the work is done."""

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from billing_site.http.queries import NO_PARAMETERS
from metering.api.gate import handle_authorize
from metering.api.gate_documents import AuthorizeInput, DecidedDocument
from metering.api.ingest import wire_headers
from metering.api.raw import as_response, body_of
from subscriptions.selectors.clock import wall_now


class Authorizations(APIView):
    """Holds of quantity."""

    required_scopes = {"POST": "gate"}

    @extend_schema(
        operation_id="authorize",
        summary="Ask whether a call may run, and hold what it may use",
        request=AuthorizeInput,
        responses={
            201: OpenApiResponse(DecidedDocument, "Granted, and held."),
            200: OpenApiResponse(DecidedDocument, "Denied; or the key's authorization in its present state."),
        },
    )
    def post(self, request: Request) -> HttpResponse:
        """A denial is an answer, not an error: it binds nothing, and the key may be tried again."""
        NO_PARAMETERS.read(request)
        return as_response(handle_authorize(body_of(request), wire_headers(request.META), wall_now()))
