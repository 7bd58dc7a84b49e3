"""
Burning grants: which grant covers which usage, what is left of each, and what none of them covers.

Owns the order of burning and the walk over segments, which alone defines a position. Owns neither what the overage
costs (`overage`) nor where segments begin (`segments`). Quantities are in the meter's units, exact. Source: semantics,
"Grants, segments, burn-down".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

from subscriptions.core.money import exact

GrantId = int | str

_ZERO = Decimal(0)
_NEVER = datetime.max.replace(tzinfo=UTC)


class GrantKind(StrEnum):
    """Where a grant comes from. The allowance of a period burns as a promotional grant does: nobody paid for it apart."""

    ALLOWANCE = "allowance"
    PROMOTIONAL = "promotional"
    PURCHASED = "purchased"
    # What was left of an allowance: among grants that expire together it burns first.
    ROLLOVER = "rollover"


@dataclass(frozen=True, slots=True)
class Grant:
    """
    A quantity that covers usage which occurs in [effective_at, ends_at).

    `quantity` is what is left where the walk begins: all of it, less what closed periods have burned. A rescaled grant
    has its present quantity from its beginning on. A grant that never expires has `expires_at` None.
    """

    id: GrantId
    quantity: Decimal
    priority: int  # low first
    effective_at: datetime
    expires_at: datetime | None
    voided_at: datetime | None
    kind: GrantKind
    created_at: datetime
    # The expiry by which it stands in the burn order, where that is not its own.
    ranked_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.quantity < 0:
            raise ValueError(f"grant {self.id} has a negative quantity: {self.quantity}")

    @property
    def ends_at(self) -> datetime | None:
        """When it stops covering: the earlier of expiry and voiding, None for never. One voided before its start never covers anything."""
        ends = [end for end in (self.expires_at, self.voided_at) if end is not None]
        return max(self.effective_at, min(ends)) if ends else None

    def covers(self, instant: datetime) -> bool:
        """Return whether usage that occurs at `instant` may burn this grant: whether it lies in [effective_at, ends_at)."""
        return (
            self.effective_at <= instant
            and (self.expires_at is None or instant < self.expires_at)
            and (self.voided_at is None or instant < self.voided_at)
        )


@dataclass(frozen=True, slots=True)
class Burndown:
    """How usage was covered: what each grant gave (those that gave nothing are left out), and the rest."""

    burns: Mapping[GrantId, Decimal]
    overage: Decimal


@dataclass(frozen=True, slots=True)
class Position:
    """
    Where a pool stands after a walk. used = covered + overage.

    `segments` are in the order of the walk. `remaining` names every grant, also those no longer in force: what they
    have left can still be burned by late events of their time.
    """

    segments: tuple[Burndown, ...]
    remaining: Mapping[GrantId, Decimal]
    used: Decimal
    covered: Decimal
    overage: Decimal


def burn_order(grants: Iterable[Grant]) -> list[Grant]:
    """
    Sort grants into the order in which they burn: priority, soonest expiry (never last), what rolled over before promotional
    before paid, oldest, id.

    Voiding a grant does not move it: what was burned before keeps its order.
    """
    return sorted(grants, key=_burn_key)


def burn_down(usage: Decimal, *, grants: Sequence[Grant], as_of: datetime) -> Burndown:
    """
    Consume the grants in force at `as_of` in the documented order, and report what none of them covers.

    The order in which `grants` are given does not matter. sum(burns) + overage == usage, always. Raises ValueError for
    negative usage.
    """
    position = walk([(as_of, usage)], grants)
    return position.segments[0]


def split(
    quantity: Decimal, grants_in_order: Iterable[tuple[GrantId, Decimal]]
) -> tuple[list[tuple[GrantId, Decimal]], Decimal]:
    """
    Split a quantity over (grant, what is left of it) pairs that stand in burn order, and return the burns and the
    overage.

    This is how an event in the newest segment appends to a position: with what is left of the grants in force there,
    the result is what walking again would add. Grants that give nothing are left out. Raises ValueError for a negative
    quantity.

    >>> split(Decimal(150), [(1, Decimal(100)), (2, Decimal(0)), (3, Decimal(20))])
    ([(1, Decimal('100')), (3, Decimal('20'))], Decimal('30'))
    """
    if quantity < 0:
        raise ValueError(f"usage is not negative, a correction walks again: {quantity}")
    burns = []
    with exact():
        for grant_id, remaining in grants_in_order:
            if not quantity:
                break
            burned = min(quantity, remaining)
            if burned > 0:
                burns.append((grant_id, burned))
                quantity -= burned
    return burns, quantity


def walk(segment_totals: Iterable[tuple[datetime, Decimal]], grants: Sequence[Grant]) -> Position:
    """
    Walk the segments of a pool in time order over their totals, and return the position.

    A segment is given by its start and its usage, because the grants in force at the start are those of the whole
    segment. It may belong to any period: grants that reach over several are walked over the segments of all that are
    not yet closed, in one call. Neither the order of events inside a segment nor that of `grants` matters.

    Raises ValueError for segments out of time order, negative usage, or a grant given twice.

    >>> from datetime import timedelta
    >>> start = datetime(2026, 6, 1, tzinfo=UTC)
    >>> grant = Grant(1, Decimal(100), 0, start, start + timedelta(days=9), None, GrantKind.PURCHASED, start)
    >>> position = walk([(start, Decimal(70)), (start + timedelta(days=9), Decimal(50))], [grant])
    >>> position.covered, position.overage, position.remaining
    (Decimal('70'), Decimal('50'), {1: Decimal('30')})
    """
    ordered = burn_order(grants)
    remaining = {grant.id: grant.quantity for grant in ordered}
    if len(remaining) < len(ordered):
        raise ValueError("a grant is given twice")
    segments: list[Burndown] = []
    used = overage = _ZERO
    latest: datetime | None = None
    for starts_at, usage in segment_totals:
        if latest is not None and starts_at <= latest:
            raise ValueError(f"segments are walked in time order: {starts_at} after {latest}")
        latest = starts_at
        burns, uncovered = split(
            usage, [(grant.id, remaining[grant.id]) for grant in ordered if grant.covers(starts_at)]
        )
        segments.append(Burndown(dict(burns), uncovered))
        with exact():
            for grant_id, burned in burns:
                remaining[grant_id] -= burned
            used, overage = used + usage, overage + uncovered
    with exact():
        return Position(tuple(segments), remaining, used, used - overage, overage)


_RANKS = {GrantKind.ROLLOVER: 0, GrantKind.ALLOWANCE: 1, GrantKind.PROMOTIONAL: 1, GrantKind.PURCHASED: 2}


def _burn_key(grant: Grant) -> tuple[int, datetime, int, datetime, GrantId]:
    return (
        grant.priority,
        grant.ranked_at or grant.expires_at or _NEVER,
        _RANKS[grant.kind],
        grant.created_at,
        grant.id,
    )
