"""
Whom a publication concerns: the subscriptions that its tier has, and from when on each wants the version.

The planner (`services.publications`) schedules by these rows, and what is shown before publishing counts them; so neither can promise what the
other does not do.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import (
    BooleanField,
    Count,
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
)
from django.db.models.functions import Coalesce, Greatest

from subscriptions.models import BillingPeriod, Publication, ScheduledChange, Subscription, TierVersion
from subscriptions.selectors.agreement import newest_periods
from subscriptions.selectors.pending import boundary_from

# A publication that is dated back by more than this concerns nobody's past: the subscriptions change when it is planned. By less, it was meant
# to take effect at once, and does so as of its date however late its changes are carried out.
BACK_DATED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """How many subscriptions a publication concerns, and what comes of them; each is counted once, but for those on test clocks."""

    # All that the tier has on other versions.
    subscriptions: int
    # `now`: at its date. `renewal`: with the end of the period that they are in.
    at_once: int
    # `now`: in their own time, as they start later, or have closed that time. `renewal`: with a later period.
    later: int
    # When they are resumed.
    paused: int
    # Nothing changes for them: they end before, or pay in another currency.
    ending: int
    other_currency: int
    # Of all of these, those that live on a test clock.
    on_test_clocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRenewal:
    """Which subscription changes with which boundary, as things stand."""

    subscription: Subscription
    at: datetime


def concerned_by(publication: Publication, *, now: datetime) -> QuerySet[Subscription]:
    """Return the subscriptions of its tier that have not ended by their tenant's time, and are on another version. `now` is wall time."""
    others = TierVersion.objects.filter(tier=publication.version.tier_id).exclude(pk=publication.version_id)
    lasting = Q(ends_at__isnull=True) | Q(ends_at__gt=Coalesce("tenant__test_clock__now", Value(now)))
    return Subscription.objects.filter(lasting, version__in=others)


def to_plan(publication: Publication, *, now: datetime) -> QuerySet[Subscription]:
    """Return the subscriptions that a stored publication concerns, and that have no change of it yet."""
    planned = ScheduledChange.objects.filter(publication=publication, subscription=OuterRef("pk"))
    return concerned_by(publication, now=now).filter(~Exists(planned))


def left_to_plan(publication: Publication, *, now: datetime) -> int:
    """Count those; none once it is planned, or undone."""
    is_settled = publication.planned_at is not None or publication.undone_at is not None
    return 0 if is_settled else to_plan(publication, now=now).count()


def with_wishes(subscriptions: QuerySet[Subscription], publication: Publication) -> QuerySet[Any]:
    """
    Add to each subscription from when on it wants the publication's version, as `wanted_at`, and why it stays as it is: `ends_first`,
    `in_other_currency`.

    `renewal`: with the first period that begins at `effective_at` or later. `now`: at that instant; at the tenant's own time where a test clock
    has passed it, at the start of a subscription that starts later, and never in a period that has closed.
    """
    effective_at = Value(publication.effective_at, output_field=DateTimeField())
    in_other_currency = _flag(~Q(tenant__currency=publication.version.currency))
    if publication.cohort == Publication.Cohort.RENEWAL:
        wishes = {"wanted_at": effective_at, "ends_first": _flag(Q(ends_at__isnull=False))}
        return subscriptions.annotate(**wishes, in_other_currency=in_other_currency)
    wall = Value(_date_in_wall_time(publication), output_field=DateTimeField())
    closed = BillingPeriod.objects.filter(
        subscription=OuterRef("pk"), closed_at__isnull=False, ends_at__gt=publication.effective_at
    ).order_by()
    closed_until = Subquery(closed.values("subscription").annotate(last=Max("ends_at")).values("last"))
    # Of NULLs, such as where nothing has closed, GREATEST makes nothing.
    wanted_at = Greatest(effective_at, Coalesce("tenant__test_clock__now", wall), closed_until, F("starts_at"))
    wishing = subscriptions.annotate(wanted_at=wanted_at, in_other_currency=in_other_currency)
    return wishing.annotate(ends_first=_flag(Q(ends_at__isnull=False, ends_at__lte=F("wanted_at"))))


def affected_by(publication: Publication, *, now: datetime) -> Affected:
    """Count whom a publication concerns, stored or not yet; with one query. Of the cohort `new`, nobody."""
    if publication.cohort == Publication.Cohort.NEW:
        return Affected(**dict.fromkeys(Affected.__slots__, 0))
    # Grouped by what decides, so that the database looks at each subscription's periods once.
    groups = _in_groups(publication, now=now).annotate(
        is_paused=_flag(Q(paused_at__isnull=False)), is_test=_flag(Q(tenant__test_clock__isnull=False))
    )
    deciding = ("ends_first", "in_other_currency", "is_paused", "is_later", "is_test")
    counts: Counter[str] = Counter()
    for *decided, is_test, count in groups.order_by().values_list(*deciding).annotate(Count("pk")):
        counts[next(name for name, applies in zip(_GROUPS, [*decided, True], strict=True) if applies)] += count
        counts["subscriptions"] += count
        counts["on_test_clocks"] += count * is_test
    return Affected(**{name: counts[name] for name in Affected.__slots__})


# The group of a subscription is the first whose condition holds: `ends_first`, `in_other_currency`, `is_paused`, `is_later`, or none.
_GROUPS = ("ending", "other_currency", "paused", "later", "at_once")


def next_renewals(publication: Publication, *, now: datetime, limit: int) -> Sequence[NextRenewal]:
    """Return some of the subscriptions that change at a renewal, with when that is, as things stand: those that come first among them."""
    changing = _in_groups(publication, now=now).filter(
        ends_first=False, in_other_currency=False, paused_at__isnull=True
    )
    found = list(changing.select_related("tenant").order_by("is_later", "due_at", "pk")[:limit])
    newest = newest_periods(one.pk for one in found)
    dated = [(one, boundary_from(one, one.wanted_at, newest.get(one.pk))) for one in found]
    renewals = [NextRenewal(subscription=one, at=at) for one, at in dated if at is not None]
    return sorted(renewals, key=lambda renewal: renewal.at)


def _in_groups(publication: Publication, *, now: datetime) -> QuerySet[Any]:
    """Add whether a subscription changes later than the first ones may."""
    rows = with_wishes(concerned_by(publication, now=now), publication)
    if publication.cohort == Publication.Cohort.NOW:
        return rows.annotate(is_later=_flag(Q(wanted_at__gt=_date_in_wall_time(publication))))
    # Where its period ends, or its first one begins, its next one is due.
    return rows.annotate(is_later=_flag(Q(due_at__lt=publication.effective_at)))


def _date_in_wall_time(publication: Publication) -> datetime:
    """Return from when on whoever lives in wall time has it; `created_at` is when it is published."""
    is_back_dated = publication.effective_at < publication.created_at - BACK_DATED
    return publication.created_at if is_back_dated else publication.effective_at


def _flag(condition: Q) -> ExpressionWrapper:
    return ExpressionWrapper(condition, output_field=BooleanField())
