"""One publication: for whom from when on, by whom and why, how far it is, and taking it back until it takes effect."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path

from billing_site.console.studio import words
from billing_site.console.studio.pages import MAY_LOOK, page, permitted
from billing_site.http.problems import DomainError
from billing_site.staff import actor_of, explain
from subscriptions.models import Publication
from subscriptions.selectors.affected import left_to_plan
from subscriptions.selectors.catalog import progress_of
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.guards import approvals_before
from subscriptions.services import publications

MAY_UNDO = "subscriptions.change_publication"

# What becomes of a subscription's change, as `progress_of` counts them, in the order in which they are shown.
_PROGRESS = {
    "done": "have the version now",
    "scheduled": "still to change",
    "undone": "keep their version, as this was taken back",
    "dropped": "keep their version: they end, left the tier, had it already, or pay in another currency",
}


@permitted(MAY_LOOK)
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """Show the publication; take it back, when that is asked for."""
    publication = get_object_or_404(Publication.objects.select_related("version__tier"), pk=pk)
    now = wall_now()
    if request.method == "POST":
        if not request.user.has_perm(MAY_UNDO):
            raise PermissionDenied
        _undo(request, publication)
        return HttpResponseRedirect(request.path)
    version = publication.version
    is_to_come = publication.undone_at is None and publication.effective_at > now
    progress = progress_of(publication)
    left = left_to_plan(publication, now=now)
    return page(
        request,
        "studio/publication.html",
        title=f"{version.tier.name}, version {version.number}: publication",
        publication=publication,
        version=version,
        now=now,
        cohort=words.COHORTS[publication.cohort],
        at=words.moment(publication.effective_at),
        published_by=words.person(publication.published_by),
        published_at=words.moment(publication.created_at),
        undone_at=None if publication.undone_at is None else words.moment(publication.undone_at),
        approvals=[(words.person(one.approved_by), one.note) for one in approvals_before(publication)],
        is_to_come=is_to_come,
        may_undo=is_to_come and request.user.has_perm(MAY_UNDO),
        progress=_in_words(progress),
        settled=progress["planned"] - progress["scheduled"],
        concerned=progress["planned"] + left,
        left=left,
        parked=progress["parked"],
        moves=bool(is_to_come or left or progress["scheduled"]),
    )


def _undo(request: HttpRequest, publication: Publication) -> None:
    try:
        publications.undo_publication(
            version_id=publication.version_id, cohort=publication.cohort, now=wall_now(), actor=actor_of(request)
        )
    except DomainError as refusal:
        messages.error(request, f"Not taken back. {explain(refusal)}")
    else:
        messages.success(request, "Taken back: nobody gets the version by this publication.")


def _in_words(progress: dict[str, int]) -> list[tuple[str, Any]]:
    return [(words.subscriptions(progress[name]), what) for name, what in _PROGRESS.items() if progress[name]]


paths: list[URLPattern] = [path("publications/<int:pk>/", show, name="studio_publication")]
