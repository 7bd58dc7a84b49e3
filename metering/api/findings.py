"""`/tiers/{tier}/versions/{number}/findings`: what the linter says of a version, with what it sees in usage."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.queries import NO_PARAMETERS
from billing_site.http.serializers import AsGivenField
from metering.selectors.linting import all_findings
from subscriptions.selectors.catalog import get_tier, get_version, version_terms
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.findings import FINDINGS_SCHEMA, finding_document

_NUMBER = OpenApiParameter("number", OpenApiTypes.INT, OpenApiParameter.PATH, description="1, 2, 3 … within the tier.")


@extend_schema_field(FINDINGS_SCHEMA)
class FindingsField(AsGivenField):
    """What the linter found."""


class FindingsDocument(serializers.Serializer[Any]):
    """The findings of a version."""

    findings = FindingsField(help_text="What blocks publishing first.")


class Findings(APIView):
    """What the linter says of a version."""

    required_scopes = {"GET": "read"}

    @extend_schema(
        operation_id="tier_version_findings",
        summary="Ask the linter about a version",
        parameters=[_NUMBER],
        responses=FindingsDocument,
    )
    def get(self, request: Request, tier: str, number: str) -> Response:
        """
        Tell what is most likely not meant: of a draft as it is stored, or of a published version.

        What is `blocking` keeps a draft from being published; a `warning` does not. Usage of the last 31 days, of all tenants, is looked at
        for dimension values that no charge of the version covers.
        """
        NO_PARAMETERS.read(request)
        version = get_version(get_tier(tier), int(number))
        findings = all_findings(version_terms(version), now=wall_now())
        return Response({"findings": [finding_document(finding) for finding in findings]})
