"""`/tenants/{tenant}/grants`: credit given beyond the allowance, where each grant stands, and taking one back."""

from datetime import datetime
from typing import Any
from uuid import UUID

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.queries import NO_PARAMETERS, QueryParameters, code
from billing_site.http.schema import PAGING, page_of, query
from metering.api.documents import ReasonInput
from metering.api.grant_documents import EveryInput, GrantDocument, GrantInput, ScheduleDocument, grant_document
from metering.models import CreditGrant
from metering.selectors.grants import find_grants, get_grant, get_schedule
from metering.services import grants
from metering.services.grant_schedules import schedule_grants
from subscriptions.models import Tenant
from subscriptions.selectors.catalog import get_meter
from subscriptions.selectors.clock import now_for
from subscriptions.selectors.tenants import get_tenant

GRANT_OR_SCHEDULE = PolymorphicProxySerializer(
    component_name="GrantOrSchedule", serializers=[GrantDocument, ScheduleDocument], resource_type_field_name=None
)


class Grants(APIView):
    """The grants of a tenant."""

    required_scopes = {"GET": "read", "POST": "manage"}
    parameters = QueryParameters({"meter": code}, paged=True)

    @extend_schema(
        operation_id="list_grants",
        summary="List a tenant's grants, newest first",
        parameters=[query("meter", "Only of this meter."), *PAGING],
        responses=page_of("Grant", GrantDocument),
    )
    def get(self, request: Request, tenant: str) -> Response:
        """Allowances and what rolled over are grants, too. Each with what has become of it by the tenant's now."""
        values = self.parameters.read(request)
        owner = get_tenant(tenant)
        meter = get_meter(values["meter"]) if values["meter"] else None
        now = now_for(owner)
        found = find_grants(tenant=owner, meter=meter)
        return page(request, found, ordering=("-id",), serialize=lambda grant: grant_document(grant, now))

    @extend_schema(
        operation_id="create_grant",
        summary="Give a tenant credit beyond its allowance",
        request=GrantInput,
        responses={201: GRANT_OR_SCHEDULE, 200: GRANT_OR_SCHEDULE},
    )
    def post(self, request: Request, tenant: str) -> Response:
        """
        The same `key` with the same content is the same grant (200); with other content it is refused (409).

        A start in the past of an open period is taken: usage since then is walked again, and may be covered after all. With `every` the
        answer is the schedule that makes the grants.
        """
        NO_PARAMETERS.read(request)
        owner = get_tenant(tenant)
        given = GrantInput.checked(request.data)
        terms = GrantInput.terms(given)
        now, actor = now_for(owner), actor_of(request)
        if given.get("every"):
            every = EveryInput.recurrence(given["every"])
            schedule, is_new = schedule_grants(tenant=owner, terms=terms, every=every, now=now, actor=actor)
            shown = ScheduleDocument(get_schedule(tenant=owner, public_id=schedule.public_id)).data
            return Response(shown, status=201 if is_new else 200)
        grant, is_new = grants.grant_credit(tenant=owner, terms=terms, now=now, actor=actor)
        return _answer(owner, grant, now, status=201 if is_new else 200)


class GrantById(APIView):
    """One grant."""

    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="get_grant", summary="Show a grant", responses=GrantDocument)
    def get(self, request: Request, tenant: str, grant: UUID) -> Response:
        """With what has become of it by the tenant's now."""
        NO_PARAMETERS.read(request)
        owner = get_tenant(tenant)
        return Response(grant_document(get_grant(tenant=owner, public_id=grant), now_for(owner)))


class GrantVoid(APIView):
    """Taking a grant back."""

    required_scopes = {"POST": "manage"}

    @extend_schema(operation_id="void_grant", summary="Take a grant back", request=ReasonInput, responses=GrantDocument)
    def post(self, request: Request, tenant: str, grant: UUID) -> Response:
        """
        From the tenant's now on it covers nothing. What was burned stays burned; calling again changes nothing.

        409 for an allowance, for what rolled over, and for a grant whose time is over.
        """
        NO_PARAMETERS.read(request)
        owner = get_tenant(tenant)
        given = ReasonInput.checked(request.data)
        found = get_grant(tenant=owner, public_id=grant)
        now = now_for(owner)
        voided = grants.void_grant(grant=found, reason=given["reason"], now=now, actor=actor_of(request))
        return _answer(owner, voided, now)


def _answer(owner: Tenant, grant: CreditGrant, now: datetime, *, status: int = 200) -> Response:
    document: dict[str, Any] = grant_document(get_grant(tenant=owner, public_id=grant.public_id), now)
    return Response(document, status=status)
