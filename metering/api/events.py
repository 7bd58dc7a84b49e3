"""`/events`: taking events in, listing them, taking one back, and counting unmatched ones again. One event by its id is above, in invoices."""

from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.queries import NO_PARAMETERS, QueryParameters, code, text, timestamp
from billing_site.http.schema import PAGING, TIMES, page_of, query
from metering.api.documents import (
    EventDetailDocument,
    EventDocument,
    EventInput,
    IngestDocument,
    ReasonInput,
    ReplayDocument,
    ReplayInput,
)
from metering.api.ingest import handle, wire_headers
from metering.api.raw import as_response, body_of
from metering.selectors.event_details import event_detail, event_document, find_events
from metering.services.replaying import replay_events
from metering.services.reversing import reverse_event
from subscriptions.selectors.catalog import get_meter
from subscriptions.selectors.clock import wall_now

_DESCRIPTION = """
One object, an array, or `{"events": […]}`; at most 1,000 events and 5 MiB, gzip accepted.

CloudEvents 1.0 are read as well: structured (`application/cloudevents+json`), as a batch (`application/cloudevents-batch+json`), and in binary
mode (`ce-*` headers, the body is the data). `subject` is the tenant; extension attributes are accepted.

An event's identity is (subject, source, id), for ever: the whole request may be sent again at any time. A batch is answered with 202 whatever
its parts; `problems` names those that were not counted.
"""

_EXAMPLE = OpenApiExample(
    "One event",
    value={
        "id": "req_81f",
        "source": "gateway-eu",
        "type": "llm.completion",
        "subject": "org_7890",
        "time": "2026-11-23T10:00:00Z",
        "data": {"model": "opus", "input_tokens": 1200, "output_tokens": 340},
    },
    request_only=True,
)


class Events(APIView):
    """Usage events."""

    required_scopes = {"POST": "ingest", "GET": "read"}
    no_parameters = QueryParameters()
    parameters = QueryParameters(
        {"tenant": code, "source": text, "id": text, "meter": code, "from": timestamp, "to": timestamp}, paged=True
    )

    @extend_schema(
        operation_id="record_events",
        summary="Record usage events",
        description=_DESCRIPTION,
        request=EventInput,
        examples=[_EXAMPLE],
        responses={
            202: OpenApiResponse(IngestDocument, "Stored: accepted, or unmatched with the problem named; or a batch."),
            200: OpenApiResponse(IngestDocument, "A single event that was stored before."),
        },
    )
    def post(self, request: Request) -> HttpResponse:
        """Record the events. The body goes past DRF's parsers: it is read once, as bytes."""
        self.no_parameters.read(request)
        return as_response(handle(body_of(request), wire_headers(request.META), wall_now()))

    @extend_schema(
        operation_id="list_events",
        summary="List stored events, the newest first",
        parameters=[
            query("tenant", "Of this tenant (`subject`). Without it, all months that are kept are searched."),
            query("source", "From this source."),
            query("id", "With this id of the sender's."),
            query("meter", "That were counted for this meter."),
            *TIMES,
            *PAGING,
        ],
        responses=page_of("Event", EventDocument),
    )
    def get(self, request: Request) -> Response:
        """List by the time at which they occurred; `from` is included, `to` is not."""
        values = self.parameters.read(request)
        events = find_events(
            subject=values["tenant"],
            source=values["source"],
            event_id=values["id"],
            meter=get_meter(values["meter"]) if values["meter"] else None,
            starts_at=values["from"],
            ends_at=values["to"],
        )
        return page(request, events, ordering=("-occurred_at", "-id"), serialize=event_document)


class EventReversal(APIView):
    """Taking one event back."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="reverse_event",
        summary="Take an event's quantities back, once",
        request=ReasonInput,
        responses=EventDetailDocument,
    )
    def post(self, request: Request, event: UUID) -> Response:
        """The event stays as it is; a negative count in the same segment corrects it. 409 if it was never counted, or reversed before."""
        NO_PARAMETERS.read(request)
        given = ReasonInput.checked(request.data)
        reverse_event(event_id=event, reason=given["reason"], actor=actor_of(request))
        return Response(event_detail(event).document())


class EventReplay(APIView):
    """Counting unmatched events again."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="replay_events",
        summary="Count unmatched events again, once their cause is mended",
        request=ReplayInput,
        responses=ReplayDocument,
    )
    def post(self, request: Request) -> Response:
        """Each event is counted once, however often this is called."""
        NO_PARAMETERS.read(request)
        given = ReplayInput.checked(request.data)
        replay = replay_events(now=wall_now(), tenant=given.get("tenant"))
        return Response({"counted": replay.counted, "unmatched": replay.unmatched})
