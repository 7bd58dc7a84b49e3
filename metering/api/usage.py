"""`/tenants/{tenant}/usage`: what was counted over time."""

from datetime import datetime, timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.problems import FieldError
from billing_site.http.queries import BadQuery, QueryParameters, choice, code, text, timestamp
from billing_site.http.schema import TIMES, query
from metering.api.documents import UsageDocument
from metering.selectors.usage import UsageRow, Window, usage
from subscriptions.models import Meter
from subscriptions.selectors.catalog import get_meter
from subscriptions.selectors.clock import now_for
from subscriptions.selectors.tenants import get_tenant

DEFAULT_STRETCH = timedelta(days=30)
STRETCH_MAX = timedelta(days=400)
HOURLY_STRETCH_MAX = timedelta(days=31)


class Usage(APIView):
    """The usage of a tenant over time."""

    required_scopes = {"GET": "read"}
    parameters = QueryParameters(
        {"meter": code, "from": timestamp, "to": timestamp, "window": choice(*Window), "group_by": text}
    )

    @extend_schema(
        operation_id="tenant_usage",
        summary="Sum up a tenant's usage by time and dimension",
        parameters=[
            query("meter", "Only of this meter."),
            *TIMES,
            query(
                "window", "One row per window of the tenant's local time; without it, one of the whole.", enum=[*Window]
            ),
            query("group_by", "A dimension of the meter: one row per value."),
        ],
        responses=UsageDocument,
    )
    def get(self, request: Request, tenant: str) -> Response:
        """
        The last 30 days by default, at most 400 (31 by the hour). Windows without usage have no row.

        What was reversed is taken off at the time at which it had occurred. A meter that does not add up (max, latest, unique_count) has in
        each window the value of that window's events: per dimension set, and summed up over the sets of a group.
        """
        values = self.parameters.read(request)
        owner = get_tenant(tenant)
        meter = get_meter(values["meter"]) if values["meter"] else None
        window = Window(values["window"]) if values["window"] else None
        starts_at, ends_at = _stretch(values, now=now_for(owner), window=window)
        group_by = _dimension(values["group_by"], meter)
        rows = usage(tenant=owner, meter=meter, starts_at=starts_at, ends_at=ends_at, window=window, group_by=group_by)
        results = [_document(row, group_by) for row in rows]
        stretch = {"from": starts_at, "to": ends_at}
        return Response({"tenant": owner.code, "timezone": owner.timezone, **stretch, "results": results})


def _stretch(values: dict[str, Any], *, now: datetime, window: Window | None) -> tuple[datetime, datetime]:
    # Half-open, and the present event belongs to it.
    ends_at = values["to"] or max(now, values["from"] or now) + timedelta(microseconds=1)
    starts_at = values["from"] or ends_at - DEFAULT_STRETCH
    longest = HOURLY_STRETCH_MAX if window is Window.HOUR else STRETCH_MAX
    if not starts_at < ends_at <= starts_at + longest:
        message = f"Must be later than `from`, and by at most {longest.days} days."
        raise BadQuery("The stretch of time is empty or too long.", errors=[FieldError("to", "invalid", message)])
    return starts_at, ends_at


def _dimension(name: str | None, meter: Meter | None) -> str | None:
    """Refuse a name that the meter does not declare: a mistyped one would sum up everything under ""."""
    if name is None:
        return None
    if meter is None:
        message = "Needs `meter`, whose dimension it is."
    elif name not in meter.dimensions:
        message = f"Must be a dimension of the meter: {', '.join(meter.dimensions) or 'it has none'}."
    else:
        return name
    raise BadQuery("The dimension is not known.", errors=[FieldError("group_by", "invalid", message)])


def _document(row: UsageRow, group_by: str | None) -> dict[str, Any]:
    return {
        "meter": row.meter,
        "starts_at": row.starts_at,
        "ends_at": row.ends_at,
        "group": {group_by: row.group} if group_by else {},
        "quantity": row.quantity,
        "events": row.events,
    }
