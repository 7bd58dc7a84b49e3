"""`/tenants`: the operator's customers, and what their version entitles them to."""

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
from billing_site.http.serializers import (
    AsGivenField,
    CodeField,
    DecimalStringField,
    MetadataField,
    StrictSerializer,
    TextField,
    TimestampField,
)
from subscriptions.models import Tenant
from subscriptions.selectors.agreement import running_subscription
from subscriptions.selectors.catalog import features_of
from subscriptions.selectors.clock import now_for
from subscriptions.selectors.tenants import get_tenant
from subscriptions.services import tenants

TAX_IDS_MAX = 10


class TaxId(StrictSerializer):
    """A number under which a tax office knows the tenant; printed, not checked."""

    type = TextField(max_length=50, help_text="Such as eu_vat.")
    value = TextField(max_length=100)


class TenantTerms(StrictSerializer):
    """What may be said of a tenant, at first and later."""

    email = serializers.EmailField(max_length=254, allow_blank=True, required=False)
    currency = TextField(
        max_length=3, required=False, help_text="ISO 4217; USD if absent. Fixed once the tenant has subscribed."
    )
    spend_cap = DecimalStringField(
        required=False,
        allow_null=True,
        minimum=0,
        help_text="The most that the overage of a period may cost over all meters, in the tenant's currency; null is no cap. The gate keeps it.",
    )
    timezone = TextField(
        max_length=64, required=False, help_text="IANA zone in which days and months are counted; UTC if absent."
    )
    country = TextField(max_length=2, allow_blank=True, required=False, help_text="ISO 3166, two letters.")
    tax_ids = serializers.ListField(child=TaxId(), max_length=TAX_IDS_MAX, required=False)
    metadata = MetadataField(required=False)


class TenantChanges(TenantTerms):
    """What of a tenant may change."""

    name = TextField(required=False)


class TenantInput(TenantTerms):
    """A new tenant."""

    id = CodeField(source="code", help_text="Your own id of the customer: the `subject` of its events.")
    name = TextField()
    test_clock = CodeField(
        required=False, allow_null=True, help_text="The test clock in whose time the tenant lives, for ever."
    )


class TenantDocument(serializers.Serializer[Any]):
    """A tenant."""

    id = CodeField(source="code")
    name = TextField()
    email = serializers.EmailField(allow_blank=True)
    currency = TextField(max_length=3)
    spend_cap = DecimalStringField(allow_null=True)
    timezone = TextField(max_length=64)
    country = TextField(max_length=2)
    tax_ids = TaxId(many=True)
    metadata = MetadataField()
    test_clock = CodeField(source="test_clock.code", allow_null=True)
    created_at = TimestampField()


@extend_schema_field({"type": "object", "additionalProperties": {}, "example": {"sso": True, "max_projects": 10}})
class FeaturesField(AsGivenField):
    """Entitlements by their codes."""


class FeaturesDocument(serializers.Serializer[Any]):
    """What a tenant may use now."""

    tier = CodeField(allow_null=True, help_text="Null while no subscription runs.")
    version = serializers.IntegerField(allow_null=True)
    features = FeaturesField()


def _shown(tenant: Tenant) -> Any:
    return TenantDocument(tenant).data


class Tenants(APIView):
    """The operator's customers."""

    required_scopes = {"GET": "read", "POST": "manage"}

    @extend_schema(
        operation_id="list_tenants",
        summary="List the tenants, by their ids",
        parameters=[*PAGING],
        responses=page_of("Tenant", TenantDocument),
    )
    def get(self, request: Request) -> Response:
        """List them all, those on test clocks too."""
        PAGE_PARAMETERS.read(request)
        return page(request, Tenant.objects.select_related("test_clock"), ordering=("code",), serialize=_shown)

    @extend_schema(
        operation_id="create_tenant", summary="Make a tenant", request=TenantInput, responses={201: TenantDocument}
    )
    def post(self, request: Request) -> Response:
        """409 for an id that is taken."""
        NO_PARAMETERS.read(request)
        given = TenantInput.checked(request.data)
        tenant = tenants.create_tenant(**given, actor=actor_of(request))
        return Response(_shown(tenant), status=201)


class TenantById(APIView):
    """One tenant."""

    required_scopes = {"GET": "read", "PATCH": "manage"}

    @extend_schema(operation_id="get_tenant", summary="Show a tenant", responses=TenantDocument)
    def get(self, request: Request, tenant: str) -> Response:
        """Show it by the operator's own id."""
        NO_PARAMETERS.read(request)
        return Response(_shown(get_tenant(tenant)))

    @extend_schema(
        operation_id="update_tenant", summary="Change a tenant", request=TenantChanges, responses=TenantDocument
    )
    def patch(self, request: Request, tenant: str) -> Response:
        """What is absent stays; lists and objects are replaced whole. A new time zone counts from the next period on."""
        NO_PARAMETERS.read(request)
        found = get_tenant(tenant)
        given = TenantChanges.checked(request.data)
        updated = tenants.update_tenant(tenant_id=found.pk, changes=given, actor=actor_of(request))
        return Response(_shown(updated))


class Features(APIView):
    """A tenant's entitlements."""

    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="tenant_features", summary="Show what a tenant may use now", responses=FeaturesDocument)
    def get(self, request: Request, tenant: str) -> Response:
        """The features of the version that the tenant has now, in its own time; none while no subscription runs."""
        NO_PARAMETERS.read(request)
        owner = get_tenant(tenant)
        subscription = running_subscription(owner, at=now_for(owner))
        if subscription is None:
            return Response({"tier": None, "version": None, "features": {}})
        version = subscription.version
        return Response({"tier": version.tier.code, "version": version.number, "features": features_of(version)})
