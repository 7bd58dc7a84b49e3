"""What a version still needs before it may be published: a backtest within its tier's guards, or somebody else's yes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.conf import settings

from subscriptions.core.guards import Breach, Figures, Limits, breaches, worst
from subscriptions.models import Approval, BacktestVerdict, PriceGuard, Publication, Tier, TierVersion

# As many characters of who did something are kept.
ACTOR_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearance:
    """Where a version stands, as it is at its present revision."""

    limits: Limits
    # The newest first.
    verdicts: Sequence[BacktestVerdict]
    approvals: Sequence[Approval]
    breaches: Sequence[Breach]
    # When the newest of the backtests that broke a guard was done; who approved before did not know.
    broken_at: datetime | None
    # Whether the installation wants a second person for every publication.
    is_always_approved: bool
    saved_by: str

    @property
    def needs_backtest(self) -> bool:
        """Whether there are guards, and nothing says yet whether they hold."""
        return bool(self.limits) and not self.verdicts

    @property
    def needs_approval(self) -> bool:
        """Whether a second person has to agree."""
        return self.is_always_approved or bool(self.breaches)

    @property
    def valid_approvals(self) -> list[Approval]:
        """Return those that were given in knowledge of what breaks a guard."""
        return [one for one in self.approvals if self.broken_at is None or one.approved_at >= self.broken_at]

    def is_approved_for(self, actor: str) -> bool:
        """Whether somebody else than who publishes agrees."""
        return any(one.approved_by != actor[:ACTOR_MAX] for one in self.valid_approvals)

    def has_approval_of(self, actor: str) -> bool:
        """Whether this person agrees to it as it is."""
        return any(one.approved_by == actor[:ACTOR_MAX] for one in self.valid_approvals)

    def may_be_approved_by(self, actor: str) -> bool:
        """Whether it is somebody else's version."""
        return self.saved_by != actor[:ACTOR_MAX]


def limits_of(tier: Tier) -> Limits:
    """Return a tier's guards; load many with `guard`."""
    try:
        guard = tier.guard
    except PriceGuard.DoesNotExist:
        return Limits()
    return Limits(rise_percent_max=guard.rise_percent_max, revenue_fall_percent_max=guard.revenue_fall_percent_max)


def clearance_of(version: TierVersion) -> Clearance:
    """Return where a version stands, with three queries."""
    limits = limits_of(Tier.objects.select_related("guard").get(pk=version.tier_id))
    verdicts = list(BacktestVerdict.objects.filter(version=version, revision=version.revision).order_by("-pk"))
    approvals = list(Approval.objects.filter(version=version, revision=version.revision).order_by("pk"))
    breaking = [one.found_at for one in verdicts if breaches(limits, figures_of(one))]
    return Clearance(
        limits=limits,
        verdicts=verdicts,
        approvals=approvals,
        breaches=breaches(limits, worst(map(figures_of, verdicts))),
        broken_at=max(breaking, default=None),
        is_always_approved=settings.PUBLISHING_NEEDS_APPROVAL,
        saved_by=version.saved_by,
    )


def approvals_before(publication: Publication) -> list[Approval]:
    """Return who had approved the version when it was published, whoever that needed."""
    version = publication.version
    given = Approval.objects.filter(version=version, revision=version.revision, approved_at__lte=publication.created_at)
    return list(given.order_by("pk"))


def figures_of(verdict: BacktestVerdict) -> Figures:
    """Return a verdict as the core reads it."""
    rise = Decimal("Infinity") if verdict.rises_from_nothing else verdict.largest_rise_percent
    return Figures(largest_rise_percent=rise, revenue_change_percent=verdict.revenue_change_percent)
