"""`/test-clocks`: time that moves when told to, and runs everything that falls due on the way."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.queries import NO_PARAMETERS, PAGE_PARAMETERS
from billing_site.http.schema import PAGING, page_of
from billing_site.http.serializers import CodeField, StrictSerializer, TimestampField
from billing_site.http.wire import timestamp
from invoices.api.documents import ClockDocument, clock_document
from invoices.services.advancing import advance
from subscriptions.models import TestClock
from subscriptions.selectors.clock import get_clock
from subscriptions.services.clocks import create_clock


class ClockInput(StrictSerializer):
    """A new test clock."""

    id = CodeField()
    now = TimestampField()


class AdvanceInput(StrictSerializer):
    """How far to advance."""

    to = TimestampField()


class JournalEntryDocument(serializers.Serializer[Any]):
    """Something that was run."""

    at = TimestampField()
    what = serializers.CharField()
    object = serializers.CharField()


class AdvanceDocument(serializers.Serializer[Any]):
    """Where the clock stands, and what was run on the way, in order."""

    now = TimestampField()
    journal = JournalEntryDocument(many=True)


class TestClocks(APIView):
    """All test clocks."""

    __test__ = False
    required_scopes = {"GET": "read", "POST": "manage"}

    @extend_schema(
        operation_id="list_test_clocks",
        summary="List test clocks",
        parameters=[*PAGING],
        responses=page_of("TestClock", ClockDocument),
    )
    def get(self, request: Request) -> Response:
        """Newest first."""
        PAGE_PARAMETERS.read(request)
        return page(request, TestClock.objects.all(), ordering=("-id",), serialize=clock_document)

    @extend_schema(
        operation_id="create_test_clock",
        summary="Make a test clock",
        request=ClockInput,
        responses={201: ClockDocument},
    )
    def post(self, request: Request) -> Response:
        """Tenants are bound to it when they are made."""
        NO_PARAMETERS.read(request)
        values = ClockInput.checked(request.data)
        clock = create_clock(code=values["id"], now=values["now"], actor=actor_of(request))
        return Response(clock_document(clock), status=201)


class TestClockDetail(APIView):
    """One test clock."""

    __test__ = False
    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="get_test_clock", summary="Show a test clock", responses=ClockDocument)
    def get(self, request: Request, clock: str) -> Response:
        """Its time and whether it is advancing."""
        NO_PARAMETERS.read(request)
        return Response(clock_document(get_clock(clock)))


class TestClockAdvance(APIView):
    """Advances a test clock."""

    __test__ = False
    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="advance_test_clock",
        summary="Advance a test clock",
        request=AdvanceInput,
        responses=AdvanceDocument,
    )
    def post(self, request: Request, clock: str) -> Response:
        """Answers when everything that falls due until then has been run. Forward only; a repeat resumes what was cut off."""
        NO_PARAMETERS.read(request)
        to = AdvanceInput.checked(request.data)["to"]
        row = get_clock(clock)
        journal = advance(clock_id=row.pk, to=to, actor=actor_of(request))
        row.refresh_from_db()
        entries = [{"at": timestamp(one.at), "what": one.what, "object": one.object} for one in journal]
        return Response({"now": timestamp(row.now), "journal": entries})
