"""`/tenants/{tenant}/ledger`: every movement of a tenant's usage and grants, newest first."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.pagination import page
from billing_site.http.queries import QueryParameters, code
from billing_site.http.schema import PAGING, page_of, query
from metering.api.documents import LedgerEntryDocument
from metering.selectors.ledger import ledger_entries
from subscriptions.selectors.catalog import get_meter
from subscriptions.selectors.tenants import get_tenant


class Ledger(APIView):
    """The ledger of a tenant."""

    required_scopes = {"GET": "read"}
    parameters = QueryParameters({"meter": code}, paged=True)

    @extend_schema(
        operation_id="tenant_ledger",
        summary="List the movements of a tenant's usage and grants, newest first",
        parameters=[query("meter", "Only of this meter."), *PAGING],
        responses=page_of("LedgerEntry", LedgerEntryDocument),
    )
    def get(self, request: Request, tenant: str) -> Response:
        """Over a balance: used is the sum of `usage`; covered is the sum of `usage` and `walk` that name a grant."""
        values = self.parameters.read(request)
        owner = get_tenant(tenant)
        meter = get_meter(values["meter"]) if values["meter"] else None
        entries = ledger_entries(tenant=owner, meter=meter)
        return page(request, entries, ordering=("-id",), serialize=lambda entry: LedgerEntryDocument(entry).data)
