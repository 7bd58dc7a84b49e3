"""
Cutting a pool's period into segments: stretches in which the same grants are in force and the same version prices.

Inside a segment the order of events cannot matter, so that its total is all that the walk needs. Owns no totals and
burns nothing (`burndown` does). Source: semantics, "Grants, segments, burn-down".
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from metering.core.burndown import Grant, burn_order
from subscriptions.core.periods import Period


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """A tier version, in force from `starts_at` until the next span starts."""

    version_id: int | str
    starts_at: datetime


@dataclass(frozen=True, slots=True)
class Segment:
    """A half-open stretch of a pool's time, with the version that prices it and the grants in force, in burn order."""

    starts_at: datetime
    ends_at: datetime
    version_id: int | str
    grants: tuple[Grant, ...]


def cut(period: Period, versions: Sequence[VersionSpan], grants: Sequence[Grant]) -> tuple[Segment, ...]:
    """
    Cut a period at every instant at which a grant starts, expires or is voided, or another version comes into force.

    The segments tile the period, in time order, and each is as long as it can be. Spans and grants may reach beyond the
    period, and be given in any order. Raises ValueError when no version is in force where the period starts, or two
    come into force at one instant.
    """
    spans = sorted(versions, key=lambda span: span.starts_at)
    starts = [span.starts_at for span in spans]
    if len(set(starts)) < len(starts):
        raise ValueError("two versions come into force at the same instant")
    if not spans or spans[0].starts_at > period.starts_at:
        raise ValueError(f"no version is in force at {period.starts_at}")

    def version_at(instant: datetime) -> int | str:
        return spans[bisect_right(starts, instant) - 1].version_id

    live = [grant for grant in burn_order(grants) if meets(grant, period)]
    changes = {after.starts_at for before, after in pairwise(spans) if before.version_id != after.version_id}
    inside = {instant for instant in changes if period.starts_at < instant < period.ends_at}
    instants = [period.starts_at, *sorted(inside.union(cuts_of(period, live))), period.ends_at]
    return tuple(
        Segment(starts_at, ends_at, version_at(starts_at), tuple(grant for grant in live if grant.covers(starts_at)))
        for starts_at, ends_at in pairwise(instants)
        if starts_at < ends_at
    )


def segment_at(segments: Sequence[Segment], instant: datetime) -> Segment:
    """
    Return the segment in which `instant` lies; its end belongs to the next one.

    The segments stand in time order; there may be gaps between periods. Raises LookupError for an instant outside all
    of them.
    """
    index = bisect_right(segments, instant, key=lambda segment: segment.starts_at) - 1
    if index < 0 or instant >= segments[index].ends_at:
        raise LookupError(f"no segment at {instant}")
    return segments[index]


def cuts_of(period: Period, grants: Iterable[Grant]) -> list[datetime]:
    """Return, in order, the instants inside the period at which a grant that is in force in it starts, expires or is voided."""
    changes = set()
    for grant in grants:
        if meets(grant, period):
            changes.add(grant.effective_at)
            if grant.ends_at is not None:
                changes.add(grant.ends_at)
    return sorted(instant for instant in changes if period.starts_at < instant < period.ends_at)


def meets(grant: Grant, period: Period) -> bool:
    """Return whether the grant is in force at any instant of the period. One that ends where it starts never is."""
    ends_at = grant.ends_at
    starts_in_time = grant.effective_at < period.ends_at
    return starts_in_time and (ends_at is None or max(grant.effective_at, period.starts_at) < ends_at)


def segment_start(starts_at: datetime, cuts: Sequence[datetime], instant: datetime) -> datetime:
    """
    Return where the segment of `instant` starts: its version's stretch starts at `starts_at`, and grants cut it at `cuts`, in order.

    >>> from datetime import UTC
    >>> first, tenth, twentieth = (datetime(2026, 6, day, tzinfo=UTC) for day in (1, 10, 20))
    >>> segment_start(first, [tenth, twentieth], tenth).day, segment_start(first, [tenth], first).day
    (10, 1)
    """
    index = bisect_right(cuts, instant)
    return max(starts_at, cuts[index - 1]) if index else starts_at
