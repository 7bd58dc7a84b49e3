"""`/tenants/{tenant}/balances`: where a tenant's pools stand now, and what the gate would say."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from billing_site.http.queries import QueryParameters
from billing_site.http.schema import page_of
from billing_site.http.wire import encode, plain, timestamp
from metering.api.documents import BalanceAtGateDocument
from metering.api.gate import limit_document
from metering.api.ingest import balance_document
from metering.core.measuring import dimension_set
from metering.selectors.balances import BalanceView, TenantBalances
from metering.services.checking import check, present_balances
from subscriptions.selectors.clock import wall_now

# The question is whether any call may run, so it is put for the smallest one.
SMALLEST_CALL = Decimal("0.000000000001")


class Balances(APIView):
    """The pools of a tenant in its present period."""

    required_scopes = {"GET": "read"}
    parameters = QueryParameters()

    @extend_schema(
        operation_id="tenant_balances",
        summary="Show where a tenant's pools stand, and what the gate would say",
        responses=page_of("Balance", BalanceAtGateDocument),
    )
    def get(self, request: Request, tenant: str) -> HttpResponse:
        """One entry per pool: one per meter, unless a charge has a pool of its own. None while the tenant has no period."""
        self.parameters.read(request)
        return HttpResponse(balances_body(tenant, wall_now()), content_type="application/json")


def balances_body(code: str, wall: datetime) -> bytes:
    """Return a tenant's pools as the API shows them. Raises TenantNotFound (404), StorageUnavailable (503)."""
    # A list as every other, though a tenant's pools always fit on one page.
    found = present_balances(code, wall=wall)
    return encode({"results": [gate_document(found, view, wall) for view in found.views or ()], "next": None})


def gate_document(found: TenantBalances, view: BalanceView, wall: datetime) -> dict[str, Any]:
    """Return a pool with what is held, its limits, and the decision that the smallest call would get."""
    names = dimension_set(view.standing.row.pool) if view.standing.row.pool else ()
    checked = check(found, view, SMALLEST_CALL, names)
    return {
        **balance_document(view),
        "held": plain(view.held),
        "limits": [limit_document(limit) for limit in checked.limits],
        "decision": {"decision": checked.decision.decision, "reason": checked.decision.reason},
        "fresh_at": timestamp(wall),
    }
