"""
Plans publications: schedules a change for each subscription that one concerns, in chunks, and settles those of the ones that were undone.

Any number of workers share the work, and each may die at any point: what is left to do is what has no row yet. The changes are carried out like
all others, by `changing` and with the period that they wait for.
"""

from datetime import datetime
from functools import partial
from time import monotonic

from django.db import transaction

from billing_site.database import run_with_retries
from subscriptions.models import Publication
from subscriptions.selectors.affected import to_plan
from subscriptions.services import publications

# Subscriptions per transaction: closings and changes of theirs wait for as long as one takes.
CHUNK = 500


def plan(*, now: datetime, seconds_max: float | None = None, chunk: int = CHUNK) -> int:
    """
    Schedule what publications ask for, and mark what was undone, until nothing is left or the time is up; return how many rows that were.

    `now` is wall time. Calling again goes on where it stopped. Subscriptions that others hold are left for the next call.
    """
    ends_at = None if seconds_max is None else monotonic() + seconds_max
    written = 0
    while count := publications.settle_undone(limit=chunk):
        written += count
        if _is_over(ends_at):
            return written
    waiting = Publication.objects.filter(planned_at__isnull=True, undone_at__isnull=True).select_related("version")
    for publication in waiting.order_by("created_at"):
        after = 0
        while ids := run_with_retries(partial(_plan_chunk, publication, now, after, chunk)):
            after = ids[-1]
            written += len(ids)
            if _is_over(ends_at):
                return written
        if not to_plan(publication, now=now).exists():
            publications.mark_planned(publication=publication, now=now)
    return written


@transaction.atomic
def _plan_chunk(publication: Publication, now: datetime, after: int, chunk: int) -> list[int]:
    """Schedule the change for the next subscriptions by id that nobody holds, and return their ids."""
    wanted = to_plan(publication, now=now).filter(pk__gt=after).order_by("pk")
    free = wanted.select_for_update(no_key=True, of=("self",), skip_locked=True)
    locked = list(free[:chunk])
    publications.schedule_all(publication=publication, subscriptions=locked)
    return [one.pk for one in locked]


def _is_over(ends_at: float | None) -> bool:
    return ends_at is not None and monotonic() >= ends_at
