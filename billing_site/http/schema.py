"""How query parameters and pages stand in the published schema, the same for every resource."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers

from billing_site.http.serializers import TimestampField


def query(
    name: str, description: str, *, kind: Any = OpenApiTypes.STR, required: bool = False, **more: Any
) -> OpenApiParameter:
    """Describe one query parameter."""
    return OpenApiParameter(name, kind, description=description, required=required, **more)


TIMES = (
    query("from", "First instant, included.", kind=OpenApiTypes.DATETIME),
    query("to", "End, not included.", kind=OpenApiTypes.DATETIME),
)
PAGING = (
    query("limit", "Rows per page, 1 to 100; 50 by default.", kind=OpenApiTypes.INT),
    query("cursor", "Where the page begins, from the `next` of the page before."),
)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    required=True,
    description="Yours, 1 to 255 characters. A repeat of the same request with the same key gets the first one's answer.",
)


class PeriodDocument(serializers.Serializer[Any]):
    """A half-open stretch of time."""

    starts_at = TimestampField()
    ends_at = TimestampField()


def page_of(name: str, row: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """Describe one page of a list."""
    fields = {"results": row(many=True), "next": serializers.URLField(allow_null=True)}
    return inline_serializer(f"{name}Page", fields)
