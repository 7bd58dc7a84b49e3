"""New drafts: a tier's next one, or a copy of any version into any tier."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST

from billing_site.console.studio.editor import version_or_404
from billing_site.console.studio.pages import MAY_DRAFT, permitted, whole_number
from billing_site.http.problems import DomainError
from billing_site.staff import actor_of
from subscriptions.models import TierVersion
from subscriptions.selectors.catalog import editable_document, tier_by_id
from subscriptions.services import catalog


@require_POST
@permitted(MAY_DRAFT)
def copy(request: HttpRequest, pk: int) -> HttpResponseRedirect:
    """Make a draft that says what a version says, in its own tier or in the one that is named."""
    source = version_or_404(pk)
    tier = source.tier if "tier" not in request.POST else tier_by_id(whole_number(request.POST["tier"]) or 0)
    if tier is None:
        raise Http404("There is no such tier.")
    try:
        draft = catalog.create_version(tier=tier, document=editable_document(source), actor=actor_of(request))
    except DomainError as refusal:
        messages.error(request, refusal.detail)
        return HttpResponseRedirect(_editor_of(source))
    messages.success(request, f"A draft: version {draft.number} of {tier.name}, as a copy of {source}.")
    return HttpResponseRedirect(_editor_of(draft))


@require_POST
@permitted(MAY_DRAFT)
def draft(request: HttpRequest, pk: int) -> HttpResponseRedirect:
    """Make a tier's next draft: a copy of its newest version, or an empty page where it has none."""
    tier = tier_by_id(pk)
    if tier is None:
        raise Http404("There is no such tier.")
    made = catalog.create_version(tier=tier, actor=actor_of(request))
    messages.success(request, f"A draft: version {made.number} of {tier.name}.")
    return HttpResponseRedirect(_editor_of(made))


def _editor_of(version: TierVersion) -> str:
    return reverse("admin:studio_version", args=[version.pk])


paths: list[URLPattern] = [
    path("versions/<int:pk>/copy/", copy, name="studio_copy"),
    path("tiers/<int:pk>/draft/", draft, name="studio_draft"),
]
