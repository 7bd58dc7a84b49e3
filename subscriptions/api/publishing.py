"""Publishing a version of a tier, agreeing to it before, and taking it back until it takes effect."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.queries import NO_PARAMETERS
from billing_site.http.serializers import AsGivenField, StrictSerializer, TextField, TimestampField
from subscriptions.api.tiers import (
    COHORTS,
    ETAG,
    IF_MATCH,
    IF_MATCH_REQUIRED,
    NUMBER,
    PreconditionRequired,
    VersionDocument,
    expected_revision,
    version_answer,
)
from subscriptions.selectors.catalog import get_tier, get_version
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.findings import FINDINGS_SCHEMA, finding_document, findings_of
from subscriptions.services import approvals, catalog, publications


@extend_schema_field(FINDINGS_SCHEMA)
class FindingsField(AsGivenField):
    """What the linter found."""


class PublishedDocument(VersionDocument):
    """A version of a tier, and what the linter warns of in it."""

    findings = FindingsField(help_text="Without those that need usage: see /findings.")


class PublishInput(StrictSerializer):
    """When a version takes effect, and for whom."""

    effective_at = TimestampField(
        required=False,
        help_text="Now if absent. For the cohort new, the past concerns test clocks and back-dated starts only; for now, "
        "subscriptions change when it is published at the earliest.",
    )
    cohort = serializers.ChoiceField(
        COHORTS,
        help_text="new: who subscribes from then on. renewal: also the tier's subscriptions, with their first period that begins "
        "then or later. now: also those, at that instant, by the version's terms of change.",
    )
    reason = TextField(
        max_length=1000, multiline=True, allow_blank=True, required=False, help_text="Why; kept with the publication."
    )


class UndoPublicationInput(StrictSerializer):
    """Which publication is taken back."""

    cohort = serializers.ChoiceField(COHORTS, required=False, help_text="Needed where several are still to come.")


class ApprovalInput(StrictSerializer):
    """Agreement to a version as it was read."""

    note = TextField(max_length=1000, multiline=True, allow_blank=True, required=False)


class ApprovalDocument(serializers.Serializer[Any]):
    """That somebody else agrees to a version as it was at a revision."""

    revision = serializers.IntegerField()
    approved_by = serializers.CharField()
    approved_at = TimestampField()
    note = serializers.CharField()


class Publish(APIView):
    """Making a version live, and a draft final."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="publish_tier_version",
        summary="Publish a version to a cohort",
        description="A draft is final from here on. Subscriptions of the tier get their change scheduled shortly: the version's `publications` "
        "say how far that is. 409 when it is published to that cohort already, 422 for terms that this release cannot carry out, and "
        "(`blocked_by_linter`) for prices that cannot be meant; what the linter only warns of comes with the answer. 409 also while the tier's "
        "guards want a backtest of it (`backtest_needed`), one of them is broken and nobody else has approved it (`guard_broken`), or this "
        "installation publishes only what somebody else has approved (`approval_needed`).",
        parameters=[NUMBER, IF_MATCH, ETAG],
        request=PublishInput,
        responses=PublishedDocument,
    )
    def post(self, request: Request, tier: str, number: str) -> Response:
        """Publish what was read, if it says so."""
        NO_PARAMETERS.read(request)
        version = get_version(get_tier(tier), int(number))
        given = PublishInput.checked(request.data)
        revision = expected_revision(request, version)
        terms = {**given, "expected_revision": revision, "actor": actor_of(request)}
        published = catalog.publish(version_id=version.pk, now=wall_now(), **terms)
        findings = [finding_document(finding) for finding in findings_of(published)]
        return version_answer(published, findings=findings)


class UndoPublication(APIView):
    """Taking a publication back before it takes effect."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="undo_tier_version",
        summary="Undo a publication that is to come",
        description="Until its `effective_at`. The version stays final, and may be published again. 409 when nothing of it is still to come, or "
        "when several publications are and none is named.",
        parameters=[NUMBER, ETAG],
        request=UndoPublicationInput,
        responses=VersionDocument,
    )
    def post(self, request: Request, tier: str, number: str) -> Response:
        """None of its changes is carried out from here on."""
        NO_PARAMETERS.read(request)
        version = get_version(get_tier(tier), int(number))
        given = UndoPublicationInput.checked(request.data)
        publications.undo_publication(version_id=version.pk, now=wall_now(), actor=actor_of(request), **given)
        return version_answer(get_version(version.tier, version.number))


class Approve(APIView):
    """The second pair of eyes."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="approve_tier_version",
        summary="Approve a version as it was read",
        description="An API key is a person of its own. Who saved the version last cannot approve it (409 `own_version`), and who approved it "
        "cannot publish it on that approval alone. Saved again, it needs another approval. Approving again is answered with the first approval, "
        "unless a backtest has broken a guard since.",
        parameters=[NUMBER, IF_MATCH_REQUIRED],
        request=ApprovalInput,
        responses=ApprovalDocument,
    )
    def post(self, request: Request, tier: str, number: str) -> Response:
        """428 without If-Match; 412 when somebody saved it meanwhile."""
        NO_PARAMETERS.read(request)
        version = get_version(get_tier(tier), int(number))
        given = ApprovalInput.checked(request.data)
        revision = expected_revision(request, version)
        if revision is None:
            raise PreconditionRequired("Send the ETag that the version was read with in the header If-Match.")
        approval = approvals.approve(
            version_id=version.pk, expected_revision=revision, now=wall_now(), actor=actor_of(request), **given
        )
        return Response(ApprovalDocument(approval).data)
