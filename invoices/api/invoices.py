"""`/invoices`: what is owed, how each cent was reached, and what staff do with it."""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.queries import NO_PARAMETERS, PAGE_PARAMETERS, QueryParameters, choice, code
from billing_site.http.schema import IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_NOT_KEPT, PAGING, page_of, query
from billing_site.http.serializers import StrictSerializer, TextField
from invoices.api.documents import InvoiceDocument, LineEventDocument, invoice_document
from invoices.api.repeatable import answer_anew, answer_once
from invoices.models import Invoice
from invoices.selectors.invoices import events_of_line, get_invoice, get_line, invoices_of
from invoices.selectors.upcoming import running_period
from invoices.selectors.verifying import verify
from invoices.services import closing, invoicing
from metering.selectors.event_details import described, event_document
from subscriptions.selectors.clock import now_for
from subscriptions.selectors.tenants import get_tenant


class VoidInput(StrictSerializer):
    """Why an invoice is voided."""

    reason = TextField(max_length=500, default="", allow_blank=True, multiline=True)


class NothingInput(StrictSerializer):
    """An empty object, or no body."""


class DifferenceDocument(serializers.Serializer[Any]):
    """A figure that rating again does not confirm."""

    line = serializers.IntegerField(allow_null=True)
    field = serializers.CharField()
    expected = serializers.CharField()
    found = serializers.CharField()


class VerificationDocument(serializers.Serializer[Any]):
    """Whether an invoice is proved by its events."""

    equal = serializers.BooleanField()
    differences = DifferenceDocument(many=True)


class Invoices(APIView):
    """The invoices of all tenants."""

    required_scopes = {"GET": "read"}
    parameters = QueryParameters({"tenant": code, "status": choice(*Invoice.Status)}, paged=True)

    @extend_schema(
        operation_id="list_invoices",
        summary="List invoices, newest first",
        parameters=[query("tenant", "Only of this tenant."), query("status", "Only in this status."), *PAGING],
        responses=page_of("Invoice", InvoiceDocument),
    )
    def get(self, request: Request) -> Response:
        """Each with its lines."""
        values = self.parameters.read(request)
        if values["tenant"]:
            get_tenant(values["tenant"])
        found = invoices_of(tenant=values["tenant"], status=values["status"])
        return page(request, found, ordering=("-id",), serialize=invoice_document)


class InvoiceDetail(APIView):
    """One invoice."""

    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="get_invoice", summary="Show an invoice", responses=InvoiceDocument)
    def get(self, request: Request, invoice: UUID) -> Response:
        """With the components of each line."""
        NO_PARAMETERS.read(request)
        return Response(invoice_document(get_invoice(invoice)))


class LineEvents(APIView):
    """The events behind a line."""

    required_scopes = {"GET": "read"}

    @extend_schema(
        operation_id="list_line_events",
        summary="List the events behind an invoice line, newest first",
        parameters=[*PAGING],
        responses=page_of("LineEvent", LineEventDocument),
    )
    def get(self, request: Request, invoice: UUID, number: int) -> Response:
        """All events of the pool since the line before: which of them were overage depends on all. A fee has none."""
        PAGE_PARAMETERS.read(request)
        line = get_line(get_invoice(invoice), number)
        events = described(events_of_line(line))
        return page(request, events, ordering=("-occurred_at", "-id"), serialize=event_document)


class Finalization(APIView):
    """Makes a draft final."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="finalize_invoice",
        summary="Finalise a draft",
        request=NothingInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=InvoiceDocument,
    )
    def post(self, request: Request, invoice: UUID) -> Response:
        """It takes the next number of its series and never changes again."""
        NO_PARAMETERS.read(request)
        NothingInput.checked(request.data)
        return _changed(request, invoice, invoicing.finalize)


class Voiding(APIView):
    """Voids an open invoice."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="void_invoice",
        summary="Void an open, unpaid invoice",
        request=VoidInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=InvoiceDocument,
    )
    def post(self, request: Request, invoice: UUID) -> Response:
        """What it billed stands on the subscription's next invoice."""
        NO_PARAMETERS.read(request)
        return _changed(request, invoice, partial(invoicing.void, **VoidInput.checked(request.data)))


class Verification(APIView):
    """Rates an invoice again."""

    required_scopes = {"POST": "read"}

    @extend_schema(
        operation_id="verify_invoice",
        summary="Rate an invoice again from its events",
        request=NothingInput,
        parameters=[IDEMPOTENCY_KEY_NOT_KEPT],
        responses=VerificationDocument,
    )
    def post(self, request: Request, invoice: UUID) -> Response:
        """Reads every event that it bills, anew each time; equal means that they, and the immutable versions, say the same to the cent."""
        NO_PARAMETERS.read(request)
        NothingInput.checked(request.data)

        def prove() -> dict[str, Any]:
            differences = [
                {"line": one.line, "field": one.field, "expected": one.expected, "found": one.found}
                for one in verify(get_invoice(invoice))
            ]
            return {"equal": not differences, "differences": differences}

        return answer_anew(request, prove)


class UpcomingInvoice(APIView):
    """What is to come."""

    required_scopes = {"GET": "read"}

    @extend_schema(
        operation_id="upcoming_invoice",
        summary="Preview the invoice of the running period",
        responses=InvoiceDocument,
    )
    def get(self, request: Request, tenant: str) -> Response:
        """The closing itself, played and rolled back: what it would bill if the period closed with the usage so far."""
        NO_PARAMETERS.read(request)
        owner = get_tenant(tenant)
        now = now_for(owner)
        period = running_period(owner, now=now)
        document = closing.preview_closing(period_id=period.pk, now=now, read=_document_or_none)
        if document is None:
            return Response(status=204)
        return Response(document | {"id": None})


def _changed(request: Request, public_id: UUID, change: Callable[..., object]) -> Response:
    """Carry out a service on the invoice, at its tenant's now, and answer with the invoice as it is then; once per key."""

    def act() -> tuple[int, dict[str, Any]]:
        row = get_invoice(public_id)
        change(invoice_id=row.pk, now=now_for(row.tenant), actor=actor_of(request))
        return 200, invoice_document(get_invoice(public_id))

    return answer_once(request, act)


def _document_or_none(invoice: Invoice | None) -> dict[str, Any] | None:
    return None if invoice is None else invoice_document(invoice)
