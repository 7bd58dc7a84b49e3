"""`/tenants/{tenant}/grant-schedules`: what gives a tenant credit again and again. One is made by a grant that says `every`."""

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.queries import NO_PARAMETERS, PAGE_PARAMETERS
from billing_site.http.schema import PAGING, page_of
from metering.api.documents import ReasonInput
from metering.api.grant_documents import ScheduleDocument
from metering.selectors.grants import find_schedules, get_schedule
from metering.services import grant_schedules
from subscriptions.selectors.clock import now_for
from subscriptions.selectors.tenants import get_tenant


class GrantSchedules(APIView):
    """The schedules of a tenant."""

    required_scopes = {"GET": "read"}

    @extend_schema(
        operation_id="list_grant_schedules",
        summary="List what gives a tenant credit again and again, newest first",
        parameters=[*PAGING],
        responses=page_of("GrantSchedule", ScheduleDocument),
    )
    def get(self, request: Request, tenant: str) -> Response:
        """Those that have ended or were voided, too."""
        PAGE_PARAMETERS.read(request)
        found = find_schedules(tenant=get_tenant(tenant))
        return page(request, found, ordering=("-id",), serialize=lambda schedule: ScheduleDocument(schedule).data)


class GrantScheduleById(APIView):
    """One schedule."""

    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="get_grant_schedule", summary="Show a grant schedule", responses=ScheduleDocument)
    def get(self, request: Request, tenant: str, schedule: UUID) -> Response:
        """The grants that it has made name it, each."""
        NO_PARAMETERS.read(request)
        return Response(ScheduleDocument(get_schedule(tenant=get_tenant(tenant), public_id=schedule)).data)


class GrantScheduleVoid(APIView):
    """Stopping a schedule."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="void_grant_schedule",
        summary="Stop a grant schedule",
        request=ReasonInput,
        responses=ScheduleDocument,
    )
    def post(self, request: Request, tenant: str, schedule: UUID) -> Response:
        """It makes no grant any more; those that it has made stay. Calling again changes nothing."""
        NO_PARAMETERS.read(request)
        owner = get_tenant(tenant)
        given = ReasonInput.checked(request.data)
        found = get_schedule(tenant=owner, public_id=schedule)
        grant_schedules.void_schedule(
            schedule=found, reason=given["reason"], now=now_for(owner), actor=actor_of(request)
        )
        return Response(ScheduleDocument(get_schedule(tenant=owner, public_id=schedule)).data)
