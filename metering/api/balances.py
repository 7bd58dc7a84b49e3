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
from billing_site.http.wire import encode
from metering.api.documents import BalanceAtGateDocument
from metering.api.ingest import balance_document
from metering.core.decision import AtLimit, GatePolicy, GateState, decide
from metering.selectors.balances import BalanceView
from metering.selectors.placement import unopened_subscription
from metering.services.opening import open_due_periods
from metering.services.reading import read_balances
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.tenants import TenantNotFound

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
    return encode({"results": [gate_document(view) for view in _views(code, wall)], "next": None})


def _views(code: str, wall: datetime) -> list[BalanceView]:
    found = read_balances(code, wall=wall)
    if found is None:
        raise TenantNotFound(f"There is no tenant {code}.")
    if found.views is None:
        # A period may have begun that beat has not come to yet; whoever needs it first opens it.
        subscription_id = unopened_subscription(tenant_id=found.tenant_id, at=found.now)
        if subscription_id is not None:
            open_due_periods(subscription_id=subscription_id, now=found.now)
            found = read_balances(code, wall=wall)
    return found.views or [] if found is not None else []


def gate_document(view: BalanceView) -> dict[str, Any]:
    """Return a pool with what is held, the limit that binds it, and the decision that the smallest call would get."""
    state = GateState(
        used=view.used,
        covered=view.used - view.overage,
        held=view.held,
        remaining_in_force=view.remaining,
        overage=view.overage,
        period_ends_at=view.period_ends_at,
    )
    policy = GatePolicy(AtLimit(view.pool.at_limit), view.pool.overage_quantity_max)
    decision = decide(state, policy, SMALLEST_CALL)
    limit = decision.binding_limit
    limits = [] if limit is None else [(limit.kind, limit.limit, limit.left, view.period_ends_at)]
    names = ("kind", "limit", "left", "frees_at")
    return {
        **balance_document(view),
        "held": view.held,
        "limits": [dict(zip(names, one, strict=True)) for one in limits],
        "decision": {"decision": decision.decision, "reason": decision.reason},
    }
