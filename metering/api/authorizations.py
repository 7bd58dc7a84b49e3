"""`/authorizations` and `/gate`: holding a quantity before the work is done, and asking whether a call may run."""

from decimal import Decimal
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.queries import NO_PARAMETERS, QueryParameters
from billing_site.http.schema import query
from metering.api.gate import (
    authorization_document,
    handle_authorize,
    handle_check,
    handle_extend,
    handle_release,
    handle_settle,
)
from metering.api.gate_documents import (
    AuthorizationDocument,
    AuthorizeInput,
    DecidedDocument,
    ExtendInput,
    SettledDocument,
    SettleInput,
)
from metering.api.ingest import wire_headers
from metering.api.raw import as_response, body_of
from metering.core.quantities import RefusedValue, read_quantity
from metering.selectors.authorizations import get_hold
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


class AuthorizationById(APIView):
    """One authorization."""

    required_scopes = {"GET": "gate"}

    @extend_schema(operation_id="get_authorization", summary="Show an authorization", responses=AuthorizationDocument)
    def get(self, request: Request, authorization: UUID) -> Response:
        """Show it as it is stored: a hold whose time is up stays `held` until somebody comes to it."""
        NO_PARAMETERS.read(request)
        return Response(authorization_document(get_hold(authorization)))


class Settlement(APIView):
    """Recording what an authorized call has used."""

    required_scopes = {"POST": "gate"}

    @extend_schema(
        operation_id="settle_authorization",
        summary="Record what an authorized call has used, and free the hold",
        request=SettleInput,
        responses=SettledDocument,
    )
    def post(self, request: Request, authorization: UUID) -> HttpResponse:
        """
        Usage is recorded in full, whether more or less than was held, and also when the hold has expired or was released.

        It occurs when the call was authorized, unless the event's own time lies between that and now in the same period. Happens once: the same
        again is answered alike, something else with 409.
        """
        NO_PARAMETERS.read(request)
        return as_response(handle_settle(authorization, body_of(request), wire_headers(request.META), wall_now()))


class Liberation(APIView):
    """Freeing a hold of which nothing was used."""

    required_scopes = {"POST": "gate"}

    @extend_schema(
        operation_id="release_authorization",
        summary="Free a hold of which nothing was used",
        request=None,
        responses=AuthorizationDocument,
    )
    def post(self, request: Request, authorization: UUID) -> HttpResponse:
        """409 once it is settled; one that was released before or has expired is shown as it is."""
        NO_PARAMETERS.read(request)
        return as_response(handle_release(authorization, body_of(request), wire_headers(request.META), wall_now()))


class Extension(APIView):
    """Holding more, or longer."""

    required_scopes = {"POST": "gate"}

    @extend_schema(
        operation_id="extend_authorization",
        summary="Hold more, or longer",
        request=ExtendInput,
        responses=DecidedDocument,
    )
    def post(self, request: Request, authorization: UUID) -> HttpResponse:
        """`quantity` is how much more, and decided as a new call is; a denial leaves the hold as it is. 409 once the hold has ended."""
        NO_PARAMETERS.read(request)
        return as_response(handle_extend(authorization, body_of(request), wire_headers(request.META), wall_now()))


def _quantity(text: str) -> Decimal:
    try:
        quantity = read_quantity(text)
    except RefusedValue:
        quantity = Decimal(0)
    if quantity <= 0:
        raise ValueError(
            "Must be a plain decimal number above 0, with at most 18 digits before the point and 12 after it."
        )
    return quantity


class Gate(APIView):
    """Asking whether a call may run, for proxies that read a status and headers."""

    required_scopes = {"GET": "gate"}
    parameters = QueryParameters({"quantity": _quantity})

    @extend_schema(
        operation_id="ask_gate",
        summary="Say by the status whether a call may run",
        parameters=[query("quantity", "Meter units that the call may use; 1 if absent.")],
        responses={
            200: OpenApiResponse(DecidedDocument, "It may: `X-Tierbook-Decision` says on which terms."),
            429: OpenApiResponse(DecidedDocument, "It may not; a problem document with the same members."),
        },
    )
    def get(self, request: Request, tenant: str, meter: str) -> HttpResponse:
        """
        Holds nothing: of two calls that ask at once, both may be let through. Where that matters, authorize.

        The decision stands in `X-Tierbook-Decision`, `-Remaining` and `-Resets`, and in the `RateLimit` fields of the IETF's draft.
        """
        quantity = self.parameters.read(request)["quantity"] or Decimal(1)
        return as_response(handle_check(tenant, meter, quantity, wall_now()))
