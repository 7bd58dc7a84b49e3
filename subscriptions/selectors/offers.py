"""What is offered: each tier with the version that is live, those being made, and those that are to come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_

from django.db.models import Q

from subscriptions.core import words
from subscriptions.core.describing import every
from subscriptions.models import Publication, Tier, TierVersion
from subscriptions.selectors.catalog import tiers_with_live_number

OFFERS_MAX = 50
# Drafts that lie about are found in the list of versions.
DRAFTS_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Offer:
    """One tier as it stands at an instant."""

    tier: Tier
    # What who subscribes now gets.
    live: TierVersion | None
    # The newest first, up to DRAFTS_SHOWN_MAX.
    drafts: tuple[TierVersion, ...]
    # What is published and has not taken effect, the soonest first.
    coming: tuple[Publication, ...]


def offers(*, at: datetime, after: str = "") -> list[Offer]:
    """Return the tiers whose codes come after `after`, in their order, up to OFFERS_MAX, in a fixed number of queries."""
    tiers = list(tiers_with_live_number(at=at).filter(code__gt=after).order_by("code")[:OFFERS_MAX])
    live = {version.tier_id: version for version in _live_versions(tiers)}
    drafts: dict[int, list[TierVersion]] = {}
    for draft in TierVersion.objects.filter(tier__in=tiers, published_at__isnull=True).order_by("-number"):
        drafts.setdefault(draft.tier_id, []).append(draft)
    coming: dict[int, list[Publication]] = {}
    ahead = Publication.objects.filter(version__tier__in=tiers, undone_at__isnull=True, effective_at__gt=at)
    for publication in ahead.select_related("version").order_by("effective_at", "pk"):
        coming.setdefault(publication.version.tier_id, []).append(publication)
    return [
        Offer(
            tier=tier,
            live=live.get(tier.pk),
            drafts=tuple(drafts.get(tier.pk, ())[:DRAFTS_SHOWN_MAX]),
            coming=tuple(coming.get(tier.pk, ())),
        )
        for tier in tiers
    ]


def fee_in_words(version: TierVersion) -> str:
    """Write a version's fee as people say it: "$99.00 every month"."""
    if not version.fee:
        return "no fee"
    rhythm = every(version.interval, version.interval_count * version.fee_every)
    return f"{words.money(version.fee, version.currency)} {rhythm}"


def _live_versions(tiers: Sequence[Tier]) -> list[TierVersion]:
    # The annotation of `tiers_with_live_number`.
    numbers = [(tier.pk, getattr(tier, "live_number", None)) for tier in tiers]
    wanted = [Q(tier=tier, number=number) for tier, number in numbers if number is not None]
    return list(TierVersion.objects.filter(reduce(or_, wanted))) if wanted else []
