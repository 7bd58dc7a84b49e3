"""Which versions staff may choose from, to compare one with."""

from datetime import datetime

from subscriptions.models import Tier, TierVersion
from subscriptions.selectors.catalog import live_versions

OF_TIER_MAX = 50
OTHERS_MAX = 200


def versions_to_compare(tier: Tier | None, *, at: datetime) -> list[TierVersion]:
    """
    Return a tier's newest versions, and what is live of the other tiers at the instant, by their codes; without a tier, what is live of all.

    At most OF_TIER_MAX and OTHERS_MAX; two queries.
    """
    own = TierVersion.objects.filter(tier=tier).select_related("tier").order_by("-number")[:OF_TIER_MAX]
    others = live_versions(at=at).exclude(tier=tier).select_related("tier").order_by("tier__code")[:OTHERS_MAX]
    return [*own, *others]
