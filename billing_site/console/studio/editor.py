"""
The page of one version: the editor of a draft, which asks the validator and the linter while it is typed into; a published one in words.

Owns no rule. The editor's state is the version document; what its controls do not know of it is kept as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from billing_site.console.studio.document_words import CHOICES, MODELS, PRICE_FIELDS, fault_in_words
from billing_site.console.studio.pages import MAY_DRAFT, MAY_EDIT, MAY_LOOK, page, permitted, whole_number
from billing_site.console.studio.words import FOR_WHOM, person
from billing_site.http import wire
from billing_site.http.parsers import read_limited
from billing_site.http.problems import DomainError
from billing_site.staff import actor_of, explain
from metering.selectors.linting import all_findings
from subscriptions.core import words
from subscriptions.core.describing import ComparedTerm
from subscriptions.core.money import MINOR_UNITS
from subscriptions.models import Meter, TierVersion
from subscriptions.selectors.catalog import (
    CatalogItemNotFound,
    editable_document,
    get_version_by_id,
    meters_by_code,
    tiers_by_code,
    version_terms,
)
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.describing import version_in_words, versions_side_by_side
from subscriptions.selectors.findings import finding_document
from subscriptions.selectors.history import entries_of
from subscriptions.services import audit, catalog
from subscriptions.services.draft_terms import terms_of_document


@permitted(MAY_LOOK)
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a version; a draft to who may edit it as the editor, which posts it back whole."""
    version = version_or_404(pk)
    if request.method == "POST":
        return _save(request, version)
    if version.is_published or not request.user.has_perm(MAY_EDIT):
        return _in_words(request, version)
    return _editor(request, version, editable_document(version))


def version_or_404(pk: int) -> TierVersion:
    """Return a version with its parts."""
    try:
        return get_version_by_id(pk)
    except CatalogItemNotFound as missing:
        raise Http404(missing.detail) from None


def _save(request: HttpRequest, version: TierVersion) -> HttpResponse:
    """Store what was typed, or show it again with what is wrong; a stale form beside what is stored now."""
    if not request.user.has_perm(MAY_EDIT):
        raise PermissionDenied
    if version.is_published:
        return _kept(request, version)
    try:
        document = _decoded(request.POST.get("document", "").encode())
    except DomainError as refusal:
        return _editor(request, version, editable_document(version), status=refusal.status, faults=_faults(refusal))
    try:
        # Without the revision that was read (a tampered form) nothing matches, and the save is refused.
        expected = whole_number(request.POST.get("revision", "")) or 0
        catalog.save_draft(
            version_id=version.pk, document=document, expected_revision=expected, actor=actor_of(request)
        )
    except catalog.StaleRevision:
        return _stale(request, version_or_404(version.pk), document)
    except DomainError as refusal:
        return _editor(request, version, document, status=refusal.status, faults=_faults(refusal))
    messages.success(request, f"Saved: version {version.number} of {version.tier.name}.")
    return HttpResponseRedirect(_address(version))


def _kept(request: HttpRequest, version: TierVersion) -> HttpResponse:
    """Keep what was typed for a version that is final by now as a draft of its own, where it is valid."""
    meanwhile = f"Version {version.number} was published meanwhile and is final."
    if not request.user.has_perm(MAY_DRAFT):
        messages.error(request, f"{meanwhile} What you typed was not saved.")
        return HttpResponseRedirect(_address(version))
    try:
        document = _decoded(request.POST.get("document", "").encode())
        draft = catalog.create_version(tier=version.tier, document=document, actor=actor_of(request))
    except DomainError as refusal:
        messages.error(request, f"{meanwhile} What you typed was not saved. {explain(refusal)}")
        return HttpResponseRedirect(_address(version))
    messages.warning(request, f"{meanwhile} What you typed is kept in this draft, version {draft.number}.")
    return HttpResponseRedirect(_address(draft))


def _stale(request: HttpRequest, version: TierVersion, document: Mapping[str, Any]) -> HttpResponse:
    """Show both versions: who saves again has seen what is stored, and replaces it knowingly."""
    faults: Sequence[Mapping[str, str]] = ()
    compared: Sequence[ComparedTerm] = ()
    try:
        terms_of_document(document, version=version)
        compared = versions_side_by_side(version, document)
    except DomainError as refusal:
        faults = _faults(refusal)
    return _editor(
        request,
        version,
        document,
        status=412,
        faults=faults,
        is_stale=True,
        compared=compared,
        stored=version_in_words(version),
        last_saved=next(iter(_history(version)), None),
    )


def _editor(
    request: HttpRequest,
    version: TierVersion,
    document: Mapping[str, Any],
    *,
    status: int = 200,
    faults: Sequence[Mapping[str, str]] = (),
    **context: Any,
) -> HttpResponse:
    """Show the editor with a document, which need not be valid."""
    features = document.get("features")
    state = {
        "document": {name: value for name, value in document.items() if name != "features"},
        # Apart, and numbers as texts: the browser would cut long ones.
        "features": _features(features if isinstance(features, Mapping) else {}),
        "meters": [_meter(meter) for meter in meters_by_code()],
        "priceFields": PRICE_FIELDS,
        "models": MODELS,
        "faults": faults,
        # Whether what is shown is something else than what is stored.
        "isUnsaved": document != editable_document(version),
    }
    return page(
        request,
        "studio/editor.html",
        title=_title(version),
        status=status,
        version=version,
        state=state,
        choices=CHOICES,
        currencies=sorted(MINOR_UNITS),
        tiers=tiers_by_code(),
        may_copy=request.user.has_perm(MAY_DRAFT),
        **context,
    )


def _in_words(request: HttpRequest, version: TierVersion) -> HttpResponse:
    """Show a version that is final, or that is not the user's to edit."""
    publications = sorted(version.publications.all(), key=lambda one: one.pk)
    return page(
        request,
        "studio/version.html",
        title=_title(version),
        version=version,
        terms=version_in_words(version),
        findings=[finding_document(one) for one in all_findings(version_terms(version), now=wall_now())],
        publications=[
            {"row": one, "for_whom": FOR_WHOM[one.cohort], "by": person(one.published_by)} for one in publications
        ],
        history=_history(version),
        tiers=tiers_by_code(),
        may_copy=request.user.has_perm(MAY_DRAFT),
    )


@require_POST
@permitted(MAY_EDIT)
def check(request: HttpRequest, pk: int) -> JsonResponse:
    """
    Say of a document that is being typed what is wrong with it (`errors`), else what the linter finds and how it reads in words.

    Writes nothing. Takes {"document"}, and answers 200 also where there are errors.
    """
    version = version_or_404(pk)
    try:
        document = _decoded(read_limited(request, request.META), member="document")
        terms = terms_of_document(document, version=version)
    except DomainError as refusal:
        return JsonResponse({"errors": _faults(refusal), "findings": [], "terms": []})
    return JsonResponse(
        {
            "errors": [],
            "findings": [finding_document(one) for one in all_findings(terms, now=wall_now())],
            "terms": [{"label": term.label, "value": term.value} for term in version_in_words(document)],
        }
    )


def _decoded(body: bytes, *, member: str | None = None) -> Mapping[str, Any]:
    """Read a document as exactly as the API does, from the whole body or one member of it. Raises DomainError."""
    document = wire.decode(body)
    if member is not None:
        document = document.get(member) if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping):
        raise NotADocument("The editor sent no version.")
    return document


class NotADocument(DomainError):
    """What was sent is no version document."""

    status = 400
    code = "not_a_document"
    title = "Not a version document"


def _faults(refusal: DomainError) -> list[dict[str, str]]:
    if not refusal.errors:
        return [{"path": "", "message": refusal.detail}]
    return [{"path": error.path, "message": fault_in_words(error.code, error.message)} for error in refusal.errors]


def _features(features: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the bundle as rows: name, kind, and value, a number as text."""
    rows = []
    for code, value in features.items():
        match value:
            case bool():
                rows.append({"code": code, "kind": "flag", "value": value})
            case str():
                rows.append({"code": code, "kind": "text", "value": value})
            case _:
                rows.append({"code": code, "kind": "number", "value": "" if value is None else str(value)})
    return rows


def _meter(meter: Meter) -> dict[str, Any]:
    return {
        "code": meter.code,
        "name": meter.name,
        "one": words.one(meter.unit),
        "many": words.many(meter.unit),
        "dimensions": meter.dimensions,
        "isAdditive": meter.is_additive,
    }


def _history(version: TierVersion) -> list[dict[str, Any]]:
    entries = entries_of(version._meta.label_lower, audit.object_id(version))
    return [{"entry": entry, "who": person(entry.actor)} for entry in entries]


def _title(version: TierVersion) -> str:
    return f"{version.tier.name}, version {version.number}"


def _address(version: TierVersion) -> str:
    return reverse("admin:studio_version", args=[version.pk])


paths: list[URLPattern] = [
    path("versions/<int:pk>/", show, name="studio_version"),
    path("versions/<int:pk>/check/", check, name="studio_check"),
]
