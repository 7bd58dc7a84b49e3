"""
What a publication does to the subscriptions that its tier has: it schedules a change for each, which may be undone until it takes effect.

Planning runs beside everything else, in chunks (`invoices.services.publishing`); a subscription that comes to the tier later joins by itself. Does
not carry changes out: at a boundary that is `succession`'s, at an instant `invoices.services.changing`'s.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Exists, Max, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from billing_site import doorbell
from billing_site.database import among
from billing_site.http.problems import DomainError
from subscriptions.core.changes import Choices
from subscriptions.models import BillingPeriod, Publication, ScheduledChange, Subscription, Tenant, TierVersion
from subscriptions.services import audit

# A publication that is dated back by more than this concerns nobody's past: the subscriptions change when it is planned. By less, it was meant
# to take effect at once, and does so as of its date however late its changes are carried out.
BACK_DATED = timedelta(minutes=5)


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

    `renewal`: with the first period that begins at `effective_at` or later. `now`: at that instant; at the tenant's own time where a test clock
    has passed it, at the start of a subscription that starts later, and never in a period that has closed. Who ends before, or pays in another
    currency, stays as it is: its change is dropped at once, to be seen.
    """
    wanted_at = _wanted_at(publication, subscriptions)
    tenants = Tenant.objects.filter(among("pk", {one.tenant_id for one in subscriptions}))
    currencies = dict(tenants.values_list("pk", "currency"))
    rows = []
    for one in subscriptions:
        stays = one.ends_at is not None and (_is_renewal(publication) or wanted_at[one.pk] >= one.ends_at)
        stays = stays or currencies[one.tenant_id] != publication.version.currency
        rows.append(_change_of(publication, one, wanted_at[one.pk], is_dropped=stays))
    ScheduledChange.objects.bulk_create(rows, ignore_conflicts=True)


def to_plan(publication: Publication, *, now: datetime) -> QuerySet[Subscription]:
    """Return the subscriptions of its tier that have not ended by their tenant's time, are on another version, and have no change of it yet."""
    planned = ScheduledChange.objects.filter(publication=publication, subscription=OuterRef("pk"))
    others = TierVersion.objects.filter(tier=publication.version.tier_id).exclude(pk=publication.version_id)
    lasting = Q(ends_at__isnull=True) | Q(ends_at__gt=Coalesce("tenant__test_clock__now", Value(now)))
    return Subscription.objects.filter(lasting, ~Exists(planned), version__in=others)


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


def _wanted_at(publication: Publication, subscriptions: Iterable[Subscription]) -> Mapping[int, datetime]:
    """Return from when on each subscription wants its change, by its id."""
    effective_at = publication.effective_at
    if _is_renewal(publication):
        return {one.pk: effective_at for one in subscriptions}
    by_id = {one.pk: one for one in subscriptions}
    closed = BillingPeriod.objects.filter(among("subscription_id", by_id), closed_at__isnull=False)
    closed_until = dict(closed.values_list("subscription_id").annotate(Max("ends_at")))
    on_clocks = Subscription.objects.filter(among("pk", by_id), tenant__test_clock__isnull=False)
    times = dict(on_clocks.values_list("pk", "tenant__test_clock__now"))
    is_back_dated = effective_at < publication.created_at - BACK_DATED
    wall = publication.created_at if is_back_dated else effective_at
    return {
        pk: max(effective_at, times.get(pk, wall), closed_until.get(pk, effective_at), one.starts_at)
        for pk, one in by_id.items()
    }


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
