"""
What a publication does to the subscriptions that its tier has: it schedules a change for each, which may be undone until it takes effect.

Planning runs beside everything else, in chunks (`invoices.services.publishing`); a subscription that comes to the tier later joins by itself. Does
not carry changes out: at a boundary that is `succession`'s, at an instant `invoices.services.changing`'s.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q

from billing_site import doorbell
from billing_site.database import among
from billing_site.http.problems import DomainError
from subscriptions.core.changes import Choices
from subscriptions.models import Publication, ScheduledChange, Subscription
from subscriptions.selectors.affected import with_wishes
from subscriptions.services import audit


class NoPublicationToUndo(DomainError):
    """Every publication of the version has taken effect or was undone, or there is none."""

    code = "nothing_to_undo"
    title = "No publication of the version is still to come"


class PublicationAmbiguous(DomainError):
    """Several publications of the version are still to come; the cohort says which one is meant."""

    code = "ambiguous"
    title = "Several publications of the version are still to come"


@transaction.atomic
def undo_publication(*, version_id: int, now: datetime, actor: str, cohort: str | None = None) -> Publication:
    """
    Take back a publication that takes effect later than `now` (wall time); its changes are not carried out from here on.

    The version stays final, and may be published again. What tenants on a test clock that is ahead have been through stays as it is. Raises
    NoPublicationToUndo and PublicationAmbiguous (409).
    """
    of_version = Publication.objects.select_for_update(no_key=True, of=("self",)).select_related("version__tier")
    to_come = of_version.filter(version_id=version_id, undone_at__isnull=True, effective_at__gt=now).order_by("pk")
    found = list(to_come if cohort is None else to_come.filter(cohort=cohort))
    if not found:
        raise NoPublicationToUndo("Nothing of the version is published for later; what has taken effect is not undone.")
    if len(found) > 1:
        raise PublicationAmbiguous(f"Say which cohort: {', '.join(one.cohort for one in found)}.")
    [publication] = found
    publication.undone_at = now
    publication.save(update_fields=["undone_at"])
    after = {"cohort": publication.cohort, "effective_at": publication.effective_at}
    audit.record(actor=actor, action="undo", instance=publication.version, after=after)
    ring()
    return publication


def ring() -> None:
    """Let a worker look after publications soon; beat does so in any case."""
    doorbell.ring("invoices.plan_publications")


@transaction.atomic
def schedule_all(*, publication: Publication, subscriptions: Sequence[Subscription]) -> None:
    """
    Schedule the publication's change for subscriptions whose locks the caller holds; once for each, however often it is called.

    From when on each wants it is said by `with_wishes`. Who ends before, or pays in another currency, stays as it is: its change is dropped at
    once, to be seen.
    """
    locked = Subscription.objects.filter(among("pk", (one.pk for one in subscriptions)))
    rows = [
        _change_of(publication, one, one.wanted_at, is_dropped=one.ends_first or one.in_other_currency)
        for one in with_wishes(locked, publication).order_by("pk")
    ]
    ScheduledChange.objects.bulk_create(rows, ignore_conflicts=True)


@transaction.atomic
def mark_planned(*, publication: Publication, now: datetime) -> None:
    """Note that every subscription that the publication concerns has its change."""
    Publication.objects.filter(pk=publication.pk, planned_at__isnull=True).update(planned_at=now)


@transaction.atomic
def settle_undone(*, limit: int) -> int:
    """Mark so many of the changes of publications that were undone; return how many there were. Rows that others hold are left to them."""
    waiting = ScheduledChange.objects.filter(
        status=ScheduledChange.Status.SCHEDULED, publication__undone_at__isnull=False
    )
    locked = waiting.select_for_update(no_key=True, of=("self",), skip_locked=True).order_by("pk")
    ids = list(locked.values_list("pk", flat=True)[:limit])
    rows = ScheduledChange.objects.filter(among("pk", ids))
    return rows.update(status=ScheduledChange.Status.UNDONE, due_at=None) if ids else 0


def join(*, subscription: Subscription, at: datetime, resumes: bool = False) -> None:
    """
    Let a subscription that comes to its tier at `at` join the publications of that tier that take effect later.

    One that `resumes` (its end was undone, or it is taken up again) also gets those back that were dropped with its end. The caller has written
    what brings it to the tier, and holds its lock. A publication that is being written meanwhile is waited for, so that none is missed: either
    it is seen here, or its planning sees the subscription.
    """
    _hold_tier(subscription.version.tier_id)
    dropped = ScheduledChange.objects.filter(
        publication=OuterRef("pk"), subscription=subscription, status=ScheduledChange.Status.DROPPED
    )
    concerned = Q(effective_at__gt=at) | Q(Exists(dropped)) if resumes else Q(effective_at__gt=at)
    publications = Publication.objects.filter(
        concerned, version__tier=subscription.version.tier_id, undone_at__isnull=True
    ).exclude(Q(cohort=Publication.Cohort.NEW) | Q(version=subscription.version_id))
    rows = [
        _change_of(publication, subscription, max(publication.effective_at, at), is_dropped=False)
        for publication in publications.select_related("version")
        if publication.version.currency == subscription.tenant.currency
    ]
    written = ["status", "wanted_at", "due_at", "at_boundary"]
    ScheduledChange.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["publication", "subscription"], update_fields=written
    )


@transaction.atomic
def leave(*, subscription: Subscription) -> None:
    """Drop what a subscription that is to end will not live to see; `join` brings it back where the end is undone."""
    waiting = ScheduledChange.objects.filter(subscription=subscription, status=ScheduledChange.Status.SCHEDULED)
    too_late = Q(at_boundary=True) | Q(wanted_at__gte=subscription.ends_at)
    waiting.filter(too_late, publication__isnull=False).update(status=ScheduledChange.Status.DROPPED, due_at=None)


def _is_renewal(publication: Publication) -> bool:
    return publication.cohort == Publication.Cohort.RENEWAL


def _hold_tier(tier_id: int) -> None:
    """Hold the tier against publications until the transaction ends; others may hold it, too."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM subscriptions_tier WHERE id = %s FOR SHARE", [tier_id])


def _change_of(
    publication: Publication, subscription: Subscription, wanted_at: datetime, *, is_dropped: bool
) -> ScheduledChange:
    choices = Choices(**publication.version.change_terms)
    at_boundary = _is_renewal(publication)
    waits = not at_boundary and not is_dropped
    return ScheduledChange(
        tenant_id=subscription.tenant_id,
        subscription=subscription,
        publication=publication,
        to_version=publication.version,
        status=ScheduledChange.Status.DROPPED if is_dropped else ScheduledChange.Status.SCHEDULED,
        at_boundary=at_boundary,
        wanted_at=wanted_at,
        due_at=wanted_at if waits else None,
        fee=choices.fee.value,
        grain=choices.grain.value,
        allowance=choices.allowance.value,
        bill=choices.bill.value,
    )
