"""Staff pages of publications: for whom from when on, how far they are, and taking them back."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from billing_site.staff import ReadOnlyAdmin, actor_of, either, shown
from subscriptions.models import Publication
from subscriptions.selectors.catalog import progress_of
from subscriptions.selectors.clock import wall_now
from subscriptions.services import publications


def publication_row(publication: Publication) -> tuple[str, str, str, str]:
    """Return the cohort, the date, the state and the progress of a publication, as a row of a table."""
    return (
        publication.cohort,
        f"{publication.effective_at:%Y-%m-%d %H:%M} UTC",
        _state(publication),
        _progress(publication),
    )


def _state(publication: Publication) -> str:
    if publication.undone_at is not None:
        return "undone"
    return "being planned" if publication.planned_at is None else "planned"


def _progress(publication: Publication) -> str:
    counts = progress_of(publication)
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "–"


@admin.register(Publication)
class PublicationAdmin(ReadOnlyAdmin):
    """From when on which version is whose; undone until it takes effect."""

    list_display = ["version", "cohort", "effective_at", shown("state", _state), "published_by"]
    list_select_related = ["version__tier"]
    list_filter = [either("undone", "undone_at", empty="no", filled="yes"), "cohort"]
    search_fields = ["version__tier__code"]
    ordering = ["-pk"]
    actions = ["undo"]
    row_conditions = {
        "undo": lambda publication: publication.undone_at is None and publication.effective_at > wall_now()
    }
    _subscriptions = shown("subscriptions", _progress)
    fields = ["version", "cohort", "effective_at", "published_by", "reason", "planned_at", "undone_at", _subscriptions]
    readonly_fields = [_subscriptions]

    @admin.action(description="Undo", permissions=["operate"])
    def undo(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Take back what has not taken effect."""
        actor = actor_of(request)
        self.run_each(
            request,
            queryset,
            lambda row: publications.undo_publication(
                version_id=row.version_id, cohort=row.cohort, now=wall_now(), actor=actor
            ),
            done="Undone",
        )
