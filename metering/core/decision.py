"""
The gate's decision: may a call that will use a quantity run, and what would stop it.

Owns the comparison of a position with every limit that stands in its way. Does not own holds, positions or windows, which the caller reads
under the balance's lock; nor the amount, which is estimated by the function that will bill it (`overage.price_pool`).
Quantities are in the meter's units. Source: semantics, "The gate".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from subscriptions.core.money import exact

_ZERO = Decimal(0)


class AtLimit(StrEnum):
    """What happens to a call that the grants in force do not cover."""

    ALLOW = "allow"  # it runs, and is billed as overage
    DENY = "deny"
    DEGRADE = "degrade"  # it runs and is billed as overage, and the answer says so


class Outcome(StrEnum):
    """The answer to a call."""

    ALLOW = "allow"
    ALLOW_OVERAGE = "allow_overage"
    DEGRADE = "degrade"
    DENY = "deny"


class Reason(StrEnum):
    """Why the answer is what it is."""

    WITHIN_ALLOWANCE = "within_allowance"
    OVERAGE_BILLED = "overage_billed"
    LIMIT_REACHED = "limit_reached"
    OVERAGE_QUANTITY_MAX = "overage_quantity_max"
    WINDOW = "window"
    SPEND_CAP = "spend_cap"
    # No subscription runs now, or its tier has no charge for the meter: there is no position to compare.
    NO_PERIOD = "no_period"
    NOT_IN_TIER = "not_in_tier"
    # The period of a hold has ended: it can be settled, and no longer grow.
    PERIOD_ENDED = "period_ended"


class LimitKind(StrEnum):
    """
    What a limit bounds: everything used, by what grants cover; the overage; what was used within a rolling window; or the money that
    the overage of all of the tenant's pools costs.
    """

    ALLOWANCE = "allowance"
    OVERAGE_QUANTITY_MAX = "overage_quantity_max"
    WINDOW = "window"
    SPEND_CAP = "spend_cap"


@dataclass(frozen=True, slots=True)
class GateState:
    """
    A pool's position now: used = covered + overage.

    `held` is the sum of the holds that have not been settled, `remaining_in_force` what is left of the grants in force
    now. At `period_ends_at` the limits of a period start anew.
    """

    used: Decimal
    covered: Decimal
    held: Decimal
    remaining_in_force: Decimal
    overage: Decimal
    period_ends_at: datetime | None = None

    @property
    def uncommitted(self) -> Decimal:
        """What is left of the grants in force when all holds are settled; negative where holds will be overage."""
        with exact():
            return self.remaining_in_force - self.held


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What the charge says of its limits; `overage_quantity_max` None is no such limit."""

    at_limit: AtLimit = AtLimit.ALLOW
    overage_quantity_max: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """
    Something that stands in a call's way: it runs only if taken + asked ≤ limit.

    `taken` counts what is held, too. All three are meter units, for a `spend_cap` money. `frees_at` is when there will be room for
    what is asked, None where that is not known. `window` is a rolling window's length as the charge says it, "PT5H".
    """

    kind: LimitKind
    limit: Decimal
    taken: Decimal
    asked: Decimal
    frees_at: datetime | None = None
    window: str = ""

    @property
    def left(self) -> Decimal:
        """The most that could still be asked."""
        with exact():
            return max(_ZERO, self.limit - self.taken)

    @property
    def is_exceeded(self) -> bool:
        """Whether the call does not fit."""
        with exact():
            return self.taken + self.asked > self.limit

    @property
    def tightness(self) -> Fraction:
        """How many such calls would fit: the limit of fewest binds first, whatever its unit."""
        if not self.asked:
            return Fraction(10**30) if self.left else Fraction(0)
        return Fraction(self.left) / Fraction(self.asked)


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The answer, with what is left of the grants in force after all holds (this call's too, unless denied), 0 or more.

    `overage_quantity` is the part of the call that no grant would cover; for a denied call, that would have been. `binding_limit` is the
    tightest of all limits, of those exceeded if any is. `frees_at` is when a limit that denied or degraded the call has room again.
    """

    decision: Outcome
    reason: Reason
    remaining: Decimal
    overage_quantity: Decimal
    binding_limit: Limit | None
    frees_at: datetime | None


_REASONS = {
    LimitKind.ALLOWANCE: Reason.LIMIT_REACHED,
    LimitKind.OVERAGE_QUANTITY_MAX: Reason.OVERAGE_QUANTITY_MAX,
    LimitKind.WINDOW: Reason.WINDOW,
    LimitKind.SPEND_CAP: Reason.SPEND_CAP,
}


def decide(state: GateState, policy: GatePolicy, quantity: Decimal, *, further: Sequence[Limit] = ()) -> Decision:
    """
    Decide on a call that will use `quantity`.

    A call is granted only if used + held + quantity ≤ limit. Under `deny` the limit is what is covered plus what
    remains of the grants in force; `overage_quantity_max` lies that much above it; `further` are rolling windows and the spend cap. Recorded
    usage may exceed a limit: then every call is denied until there is room. Binds nothing: the hold is the caller's to write. Raises
    ValueError for a negative quantity.
    """
    if quantity < 0:
        raise ValueError(f"a call does not use a negative quantity: {quantity}")
    uncommitted = state.uncommitted
    uncovered = uncovered_part(state, quantity)
    limits = [*limits_of(state, policy, quantity), *further]
    exceeded = [limit for limit in limits if limit.is_exceeded]
    if exceeded:
        binding = _tightest(exceeded)
        assert binding is not None  # there is at least one
        return Decision(
            Outcome.DENY, _REASONS[binding.kind], max(_ZERO, uncommitted), uncovered, binding, binding.frees_at
        )
    with exact():
        remaining = max(_ZERO, uncommitted - quantity)
    if not uncovered:
        return Decision(Outcome.ALLOW, Reason.WITHIN_ALLOWANCE, remaining, uncovered, _tightest(limits), None)
    if policy.at_limit == AtLimit.DEGRADE:
        limit = _allowance(state, quantity)
        return Decision(Outcome.DEGRADE, Reason.LIMIT_REACHED, remaining, uncovered, limit, state.period_ends_at)
    return Decision(Outcome.ALLOW_OVERAGE, Reason.OVERAGE_BILLED, remaining, uncovered, _tightest(limits), None)


def uncovered_part(state: GateState, quantity: Decimal) -> Decimal:
    """Return how much of a quantity no grant would cover, after all holds."""
    with exact():
        return min(quantity, max(_ZERO, quantity - state.uncommitted))


def limits_of(state: GateState, policy: GatePolicy, quantity: Decimal) -> list[Limit]:
    """Return the limits that the policy sets for a period: one at most, as nothing beyond the allowance is reached under `deny`."""
    if policy.at_limit == AtLimit.DENY:
        return [_allowance(state, quantity)]
    if policy.overage_quantity_max is None:
        return []
    with exact():
        # Overage that is, and that holds will be: the grants may have room that earlier overage cannot have any more.
        taken = state.used + state.held - state.covered - state.remaining_in_force
    return [Limit(LimitKind.OVERAGE_QUANTITY_MAX, policy.overage_quantity_max, taken, quantity, state.period_ends_at)]


def shown_limits(state: GateState, policy: GatePolicy, quantity: Decimal) -> list[Limit]:
    """Return the limits that the policy sets for a period, and under `degrade` the allowance, which denies nothing."""
    limits = limits_of(state, policy, quantity)
    return [_allowance(state, quantity), *limits] if policy.at_limit == AtLimit.DEGRADE else limits


def spend_limit(cap: Decimal, taken: Decimal, amount: Decimal, state: GateState) -> Limit:
    """Return a tenant's cap as a limit: `taken` is what its overage costs and its holds would, `amount` what the call would."""
    return Limit(LimitKind.SPEND_CAP, cap, taken, max(_ZERO, amount), state.period_ends_at)


def _tightest(limits: Sequence[Limit]) -> Limit | None:
    if len(limits) < 2:
        return limits[0] if limits else None
    return min(limits, key=lambda limit: limit.tightness)


def _allowance(state: GateState, quantity: Decimal) -> Limit:
    with exact():
        limit, taken = state.covered + state.remaining_in_force, state.used + state.held
    return Limit(LimitKind.ALLOWANCE, limit, taken, quantity, state.period_ends_at)
