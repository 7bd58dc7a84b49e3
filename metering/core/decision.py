"""
The gate's decision: may a call that will use a quantity run, and what would stop it.

Owns the comparison of a position with the limits of a charge. Does not own holds or positions, which the caller reads
under the balance's lock; nor the amount, which is estimated by the function that will bill it (`overage.price_pool`).
Quantities are in the meter's units. Source: semantics, "The gate".
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

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


class LimitKind(StrEnum):
    """What a limit bounds: everything used, by what grants cover; or the overage."""

    ALLOWANCE = "allowance"
    OVERAGE_QUANTITY_MAX = "overage_quantity_max"


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


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What the charge says of its limits; `overage_quantity_max` None is no such limit."""

    at_limit: AtLimit = AtLimit.ALLOW
    overage_quantity_max: Decimal | None = None


@dataclass(frozen=True, slots=True)
class BindingLimit:
    """
    The limit that binds first.

    `limit` bounds usage and holds for `allowance`, overage for `overage_quantity_max`. `left` is the largest quantity
    that would still be granted under it before this call.
    """

    kind: LimitKind
    limit: Decimal
    left: Decimal


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The answer, with what is left of the grants in force after all holds (this call's too, unless denied), 0 or more.

    `overage_quantity` is the part of the call that no grant would cover; for a denied call, that would have been.
    `frees_at` is when a limit that denied or degraded the call starts anew.
    """

    decision: Outcome
    reason: Reason
    remaining: Decimal
    overage_quantity: Decimal
    binding_limit: BindingLimit | None
    frees_at: datetime | None


def decide(state: GateState, policy: GatePolicy, quantity: Decimal) -> Decision:
    """
    Decide on a call that will use `quantity`.

    A call is granted only if used + held + quantity ≤ limit. Under `deny` the limit is what is covered plus what
    remains of the grants in force; `overage_quantity_max` lies that much above it. Recorded usage may exceed a limit:
    then every call is denied until there is room. Binds nothing: the hold is the caller's to write. Raises ValueError
    for a negative quantity.
    """
    if quantity < 0:
        raise ValueError(f"a call does not use a negative quantity: {quantity}")
    with exact():
        uncommitted = state.remaining_in_force - state.held
        uncovered = min(quantity, max(_ZERO, quantity - uncommitted))
        limit = _binding_limit(state, policy)
        if limit is not None and state.used + state.held + quantity > _ceiling(state, policy):
            reason = Reason.LIMIT_REACHED if limit.kind == LimitKind.ALLOWANCE else Reason.OVERAGE_QUANTITY_MAX
            remaining = max(_ZERO, uncommitted)
            return Decision(Outcome.DENY, reason, remaining, uncovered, limit, state.period_ends_at)
        remaining = max(_ZERO, uncommitted - quantity)
        if quantity <= uncommitted:
            return Decision(Outcome.ALLOW, Reason.WITHIN_ALLOWANCE, remaining, uncovered, limit, None)
        if policy.at_limit == AtLimit.DEGRADE:
            limit = _allowance(state)
            return Decision(Outcome.DEGRADE, Reason.LIMIT_REACHED, remaining, uncovered, limit, state.period_ends_at)
        return Decision(Outcome.ALLOW_OVERAGE, Reason.OVERAGE_BILLED, remaining, uncovered, limit, None)


def _ceiling(state: GateState, policy: GatePolicy) -> Decimal:
    """Return what used and held may come to under the policy's limit."""
    beyond = _ZERO if policy.at_limit == AtLimit.DENY else policy.overage_quantity_max or _ZERO
    return state.covered + state.remaining_in_force + beyond


def _binding_limit(state: GateState, policy: GatePolicy) -> BindingLimit | None:
    """Return the lower of the limits that the policy sets, None where it sets none."""
    if policy.at_limit == AtLimit.DENY:
        return _allowance(state)
    if policy.overage_quantity_max is None:
        return None
    left = max(_ZERO, _ceiling(state, policy) - state.used - state.held)
    return BindingLimit(LimitKind.OVERAGE_QUANTITY_MAX, policy.overage_quantity_max, left)


def _allowance(state: GateState) -> BindingLimit:
    limit = state.covered + state.remaining_in_force
    return BindingLimit(LimitKind.ALLOWANCE, limit, max(_ZERO, limit - state.used - state.held))
