"""
`/tiers`: what is offered, in versions from draft to publication.

A draft is one document, judged by `services.version_documents` and replaced whole; its ETag is its revision.
"""

from typing import Any

from django.utils.http import parse_etags
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.pagination import page
from billing_site.http.problems import DomainError
from billing_site.http.queries import NO_PARAMETERS, PAGE_PARAMETERS
from billing_site.http.schema import PAGING, page_of
from billing_site.http.serializers import (
    AsGivenField,
    CodeField,
    DecimalStringField,
    StrictSerializer,
    TextField,
    TimestampField,
)
from subscriptions.core.money import plain
from subscriptions.models import Tier, TierVersion
from subscriptions.selectors.catalog import (
    get_tier,
    get_version,
    live_version,
    tiers_with_live_number,
    version_document,
    version_document_with_progress,
    with_parts,
)
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.guards import limits_of
from subscriptions.services import catalog, guards
from subscriptions.services.version_documents import TRIAL_DAYS_MAX

COHORTS = ("new", "renewal", "now")

NUMBER = OpenApiParameter("number", OpenApiTypes.INT, OpenApiParameter.PATH, description="1, 2, 3 … within the tier.")
_READ_WITH = 'The ETag that the draft was read with, such as `"3"`; `*` for whatever it is now.'
IF_MATCH = OpenApiParameter("If-Match", location="header", description=_READ_WITH)
IF_MATCH_REQUIRED = OpenApiParameter("If-Match", location="header", description=_READ_WITH, required=True)
ETAG = OpenApiParameter("ETag", location="header", description="Its revision, for If-Match.", response=[200, 201])

_VERSION_DESCRIPTION = """
Only `currency` is required; what is absent or null has its default. Amounts and quantities may be strings or numbers, and are answered as strings.
Each fault is named by its path, such as `charges.0.price.bands.1.up_to`.
"""

_PER_TOKEN = {"model": "per_unit", "unit_amount": "0.0002"}
_EXAMPLE = OpenApiExample(
    "A month for $99 with 10,000 tokens",
    value={
        "currency": "USD",
        "interval": "month",
        "fee": "99.00",
        "charges": [{"kind": "usage", "meter": "tokens", "included": "10000", "price": _PER_TOKEN}],
        "features": {"sso": True, "max_projects": 10},
    },
    request_only=True,
)


class PreconditionRequired(DomainError):
    """A draft is replaced only by who has read it: two editors at once cannot overwrite each other unseen."""

    status = 428
    code = "precondition_required"
    title = "The header If-Match is required"


class GuardsDocument(StrictSerializer):
    """What a new price may do before a second person has to approve it, as a backtest finds it; null: as much as it likes."""

    rise_percent_max = DecimalStringField(
        required=False,
        allow_null=True,
        minimum=0,
        max_integer_digits=7,
        max_decimals=2,
        help_text="By how many percent any one tenant's bills may rise.",
    )
    revenue_fall_percent_max = DecimalStringField(
        required=False,
        allow_null=True,
        minimum=0,
        max_integer_digits=3,
        max_decimals=2,
        help_text="By how many percent the bills of all tenants together may fall.",
    )


class TierChanges(StrictSerializer):
    """What of a tier may change; what is absent stays, of the guards too."""

    name = TextField(required=False)
    description = TextField(max_length=5000, multiline=True, allow_blank=True, required=False)
    guards = GuardsDocument(required=False)


class TierInput(StrictSerializer):
    """A new tier."""

    code = CodeField()
    name = TextField()
    description = TextField(max_length=5000, multiline=True, allow_blank=True, required=False)


class TierDocument(serializers.Serializer[Any]):
    """A tier."""

    code = CodeField()
    name = TextField()
    description = TextField()
    live_version = serializers.IntegerField(
        allow_null=True, help_text="The number of the version that who subscribes now gets."
    )
    guards = GuardsDocument()
    created_at = TimestampField()


@extend_schema_field({"type": "array", "maxItems": 200, "items": {"type": "object", "additionalProperties": {}}})
class ChargesField(AsGivenField):
    """Usage of meters, and licences."""


@extend_schema_field({"type": "object", "additionalProperties": {}})
class TermsField(AsGivenField):
    """An object of choices or entitlements."""


class VersionInput(serializers.Serializer[Any]):
    """How the published schema describes a version's document; what judges it is `version_documents`."""

    currency = serializers.CharField(help_text="ISO 4217.")
    interval = serializers.CharField(default="month", help_text="day, week, month, quarter, semiannual or year.")
    interval_count = serializers.IntegerField(default=1, min_value=1, max_value=366)
    alignment = serializers.CharField(default="anniversary", help_text="anniversary or calendar.")
    fee = DecimalStringField(default="0", help_text="Per `fee_every` periods, in the currency.")
    fee_timing = serializers.CharField(default="advance", help_text="advance or arrears.")
    fee_every = serializers.IntegerField(default=1, min_value=1, max_value=120)
    grace_hours = serializers.IntegerField(
        default=1, min_value=0, max_value=720, help_text="How long an ended period waits for late events."
    )
    trial_days = serializers.IntegerField(default=0, min_value=0, max_value=TRIAL_DAYS_MAX)
    trial_end = serializers.CharField(default="convert", help_text="convert, pause or cancel.")
    trial_overage = serializers.CharField(default="none", help_text="none or bill.")
    change = TermsField(required=False, help_text="Defaults of a change: fee, grain, allowance, bill.")
    charges = ChargesField(required=False)
    features = TermsField(required=False, help_text="Code to true, false, a whole number or a text.")


class ProgressDocument(serializers.Serializer[Any]):
    """How many changes of subscriptions a publication has scheduled, and what has become of them."""

    planned = serializers.IntegerField(help_text="All of them, whatever became of them.")
    scheduled = serializers.IntegerField(help_text="Still to come.")
    done = serializers.IntegerField()
    undone = serializers.IntegerField()
    dropped = serializers.IntegerField(
        help_text="The subscription ends, has left the tier or was on the version already, or its tenant pays in another currency."
    )
    parked = serializers.IntegerField(help_text="Of those still to come: their tries are used up, they wait for staff.")


class PublicationDocument(serializers.Serializer[Any]):
    """That a version was published to a cohort."""

    cohort = serializers.ChoiceField(COHORTS)
    effective_at = TimestampField()
    published_by = serializers.CharField()
    reason = serializers.CharField(help_text="Why, in the words of who published it.")
    planned_at = TimestampField(
        allow_null=True, help_text="When each subscription that it concerns had its change; null while that goes on."
    )
    undone_at = TimestampField(allow_null=True)
    progress = ProgressDocument(required=False, help_text="In the answers of one version, not in lists.")


class VersionDocument(VersionInput):
    """A version of a tier."""

    number = serializers.IntegerField()
    status = serializers.CharField(help_text="draft or published.")
    revision = serializers.IntegerField(help_text="Counts the saves of the draft.")
    published_at = TimestampField(allow_null=True)
    effective_at = TimestampField(allow_null=True, help_text="From when on who subscribes gets it.")
    publications = PublicationDocument(many=True, help_text="Those that were undone among them, the oldest first.")


def _tier_shown(tier: Tier, live_number: int | None) -> dict[str, Any]:
    described = {"code": tier.code, "name": tier.name, "description": tier.description}
    limits = limits_of(tier)
    percents = {name: getattr(limits, name) for name in guards.LIMITS}
    shown = {name: None if percent is None else plain(percent) for name, percent in percents.items()}
    return {**described, "live_version": live_number, "guards": shown, "created_at": tier.created_at}


def _with_live_number(tier: Tier) -> dict[str, Any]:
    live = live_version(tier, at=wall_now())
    return _tier_shown(tier, live.number if live else None)


def version_answer(version: TierVersion, *, status: int = 200, **further: Any) -> Response:
    return Response(
        {**version_document_with_progress(version), **further}, status=status, headers={"ETag": _etag(version)}
    )


def _etag(version: TierVersion) -> str:
    return f'"{version.revision}"'


def expected_revision(request: Request, version: TierVersion) -> int | None:
    """
    Return the revision that the caller's If-Match names, None without one. Raises StaleRevision (412).

    A header that names no present revision matches nothing. The service compares again, under the draft's lock.
    """
    header = request.headers.get("If-Match")
    if header is None:
        return None
    if {"*", _etag(version)}.isdisjoint(parse_etags(header)):
        raise catalog.StaleRevision(f"If-Match does not name the draft as it is now, which is {_etag(version)}.")
    return version.revision


class Tiers(APIView):
    """The offers."""

    required_scopes = {"GET": "read", "POST": "manage"}

    @extend_schema(
        operation_id="list_tiers",
        summary="List the tiers, by their codes",
        parameters=[*PAGING],
        responses=page_of("Tier", TierDocument),
    )
    def get(self, request: Request) -> Response:
        """List them all, each with its live version's number."""
        PAGE_PARAMETERS.read(request)
        tiers: Any = tiers_with_live_number(at=wall_now()).select_related("guard")
        return page(request, tiers, ordering=("code",), serialize=lambda tier: _tier_shown(tier, tier.live_number))

    @extend_schema(operation_id="create_tier", summary="Make a tier", request=TierInput, responses={201: TierDocument})
    def post(self, request: Request) -> Response:
        """It has no version yet; 409 for a code that is taken."""
        NO_PARAMETERS.read(request)
        given = TierInput.checked(request.data)
        tier = catalog.create_tier(**given, actor=actor_of(request))
        return Response(_tier_shown(tier, None), status=201)


class TierByCode(APIView):
    """One offer."""

    required_scopes = {"GET": "read", "PATCH": "manage"}

    @extend_schema(operation_id="get_tier", summary="Show a tier", responses=TierDocument)
    def get(self, request: Request, tier: str) -> Response:
        """Show it with its live version's number, null before the first publication takes effect."""
        NO_PARAMETERS.read(request)
        found = get_tier(tier)
        return Response(_with_live_number(found))

    @extend_schema(
        operation_id="update_tier",
        summary="Change a tier's name, description or guards",
        description="Guards are asked whenever a version of the tier is published: then it needs a backtest of the version as it is, and, "
        "where that finds more than a guard allows, somebody else's approval.",
        request=TierChanges,
        responses=TierDocument,
    )
    def patch(self, request: Request, tier: str) -> Response:
        """Nothing of it changes what has been published."""
        NO_PARAMETERS.read(request)
        found = get_tier(tier)
        given = TierChanges.checked(request.data)
        limits = given.pop("guards", {})
        updated = catalog.update_tier(tier_id=found.pk, changes=given, limits=limits, actor=actor_of(request))
        return Response(_with_live_number(updated))


class Versions(APIView):
    """The versions of a tier."""

    required_scopes = {"GET": "read", "POST": "manage"}

    @extend_schema(
        operation_id="list_tier_versions",
        summary="List a tier's versions, the newest first",
        parameters=[*PAGING],
        responses=page_of("Version", VersionDocument),
    )
    def get(self, request: Request, tier: str) -> Response:
        """List drafts and published ones."""
        PAGE_PARAMETERS.read(request)
        versions = with_parts(get_tier(tier).versions.all())
        return page(request, versions, ordering=("-number",), serialize=version_document)

    @extend_schema(
        operation_id="create_tier_version",
        summary="Make a tier's next draft",
        description=f"Without a document, the draft starts as a copy of the newest version.\n{_VERSION_DESCRIPTION}",
        parameters=[ETAG],
        request=VersionInput,
        examples=[_EXAMPLE],
        responses={201: VersionDocument},
    )
    def post(self, request: Request, tier: str) -> Response:
        """Number it one above the newest."""
        NO_PARAMETERS.read(request)
        found = get_tier(tier)
        document = None if request.data == {} else request.data
        version = catalog.create_version(tier=found, document=document, actor=actor_of(request))
        return version_answer(version, status=201)


class VersionByNumber(APIView):
    """One version of a tier."""

    required_scopes = {"GET": "read", "PUT": "manage"}

    @extend_schema(
        operation_id="get_tier_version",
        summary="Show a version",
        parameters=[NUMBER, ETAG],
        responses=VersionDocument,
    )
    def get(self, request: Request, tier: str, number: str) -> Response:
        """Show it whole, with how far its publications are."""
        NO_PARAMETERS.read(request)
        return version_answer(get_version(get_tier(tier), int(number)))

    @extend_schema(
        operation_id="save_tier_version",
        summary="Replace a draft whole",
        description=f"A published version is final (409). What only the answer has may stay in the document, as it was "
        f"answered.\n{_VERSION_DESCRIPTION}",
        parameters=[NUMBER, IF_MATCH_REQUIRED, ETAG],
        request=VersionInput,
        examples=[_EXAMPLE],
        responses=VersionDocument,
    )
    def put(self, request: Request, tier: str, number: str) -> Response:
        """428 without If-Match; 412 when somebody saved it meanwhile."""
        NO_PARAMETERS.read(request)
        version = get_version(get_tier(tier), int(number))
        revision = expected_revision(request, version)
        if revision is None:
            raise PreconditionRequired("Send the ETag that the draft was read with in the header If-Match.")
        saved = catalog.save_draft(
            version_id=version.pk, document=request.data, expected_revision=revision, actor=actor_of(request)
        )
        return version_answer(saved)
