"""What is still to come of a subscription: changes that were scheduled, and its end."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from subscriptions.core.periods import period_containing
from subscriptions.models import BillingPeriod, ScheduledChange, Subscription
from subscriptions.selectors.catalog import terms_of

# By what the end that is to come is named among changes, which have ids.
CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingChange:
    """One thing that is to come, and may be undone until then."""

    id: str
    kind: Literal["tier", "anchor", "cancel"]
    # When it is expected to come into force; None where nothing says, or the subscription ends before.
    effective_at: datetime | None
    at_boundary: bool
    # None for a cancellation.
    scheduled: ScheduledChange | None = None


def pending_changes(
    subscription: Subscription,
    *,
    scheduled: Iterable[ScheduledChange],
    newest: BillingPeriod | None,
    now: datetime,
) -> list[PendingChange]:
    """
    Return what is to come, in the order in which it was asked for; the end last.

    `scheduled` are the subscription's changes that wait, in that order, with their versions and tiers; `newest` is its newest period.
    """
    found = [
        PendingChange(
            id=str(change.public_id),
            kind="tier" if change.anchor_at is None else "anchor",
            effective_at=_expected_at(subscription, change, newest),
            at_boundary=change.at_boundary,
            scheduled=change,
        )
        for change in scheduled
    ]
    if subscription.ends_at is not None and subscription.ends_at > now:
        found.append(PendingChange(id=CANCEL, kind="cancel", effective_at=subscription.ends_at, at_boundary=True))
    return found


def _expected_at(subscription: Subscription, change: ScheduledChange, newest: BillingPeriod | None) -> datetime | None:
    expected: datetime | None = change.wanted_at
    if change.at_boundary:
        expected = boundary_from(subscription, change.wanted_at, newest)
    is_late = expected is not None and subscription.ends_at is not None and expected >= subscription.ends_at
    return None if is_late else expected


def boundary_from(subscription: Subscription, wanted_at: datetime, newest: BillingPeriod | None) -> datetime | None:
    """Return the first boundary at the instant or later, as things stand; None while it is paused. `newest` is its newest period."""
    if subscription.paused_at is not None:
        return None
    first = subscription.run_starts_at if newest is None else newest.ends_at
    if wanted_at <= first:
        return first
    around = period_containing(subscription.anchor, terms_of(subscription.version_id).cadence, wanted_at)
    return wanted_at if around.starts_at == wanted_at else around.ends_at
