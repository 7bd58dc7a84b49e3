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


def _idempotency_key(what_becomes_of_it: str) -> OpenApiParameter:
    return OpenApiParameter(
        "Idempotency-Key",
        OpenApiTypes.STR,
        OpenApiParameter.HEADER,
        required=True,
        description=f"Yours, 1 to 255 characters. {what_becomes_of_it}",
    )


IDEMPOTENCY_KEY = _idempotency_key("A repeat of the same request with the same key gets the first one's answer.")
IDEMPOTENCY_KEY_NOT_KEPT = _idempotency_key("Not kept, as nothing is changed: each answer is computed anew.")


class PeriodDocument(serializers.Serializer[Any]):
    """A half-open stretch of time."""

    starts_at = TimestampField()
    ends_at = TimestampField()


def page_of(name: str, row: type[serializers.Serializer[Any]]) -> serializers.Serializer[Any]:
    """Describe one page of a list."""
    fields = {"results": row(many=True), "next": serializers.URLField(allow_null=True)}
    return inline_serializer(f"{name}Page", fields)
