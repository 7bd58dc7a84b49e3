"""Compares calls with every limit that stands in their way. The caller holds the locks, and writes what is granted."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from metering.core.burndown import GrantKind
from metering.core.decision import (
    AtLimit,
    Decision,
    GatePolicy,
    GateState,
    Limit,
    decide,
    spend_limit,
    uncovered_part,
)
from metering.core.measuring import dimension_set
from metering.selectors.balances import Standing, overage_amounts
from metering.selectors.estimates import Estimator
from metering.selectors.placement import PlacedPeriod
from metering.selectors.windows import WindowUses
from metering.services.calls import Call
from metering.services.locked import LockedBalance
from subscriptions.core.money import exact

_ZERO = Decimal(0)


class Room:
    """Compares calls with every limit that stands in their way: of the period, of rolling windows, and of the tenant's spend."""

    def __init__(
        self, locked: Mapping[int, LockedBalance], spend_caps: Mapping[int, Decimal], uses: WindowUses | None
    ) -> None:
        self._locked = locked
        self._spend_caps = spend_caps
        self._uses = uses
        # By period: what its overage costs. Nothing is posted while calls are decided.
        self._spent: dict[int, Decimal] = {}
        self._estimators: dict[int, Estimator] = {}

    def has_cap(self, call: Call) -> bool:
        """Whether the tenant's spend is capped."""
        return call.tenant_id in self._spend_caps

    def that_count(self, call: Call) -> list[LockedBalance]:
        """Return the balances whose holds stand in a call's way: its own and those that share its grants, for a capped tenant all of the period."""
        assert call.balance is not None  # without one it was denied
        pool = self._locked[call.balance.id].pool
        if not self.has_cap(call):
            return pool
        of_period = (self._locked[placed.id] for placed in call.balance.period.balances.values())
        return list({one.row.pk: one for one in (*pool, *of_period)}.values())

    def decide(self, call: Call) -> tuple[Decision, Decimal]:
        """Return the decision on a call whose balance is locked, and what its overage would cost."""
        assert call.balance is not None  # without either it was denied
        assert call.pool is not None
        balance = self._locked[call.balance.id]
        quantity, pool = call.request.quantity, call.pool
        state = state_of(balance, call.now, call.balance.period.ends_at)
        amount = self._amount(call, state, balance)
        further: list[Limit] = []
        if self._uses is not None:
            for window in pool.windows:
                use = self._uses.of(balance.row.pk, window.seconds, held=balance.row.held)
                further.append(window.limit(use, asked=quantity, now=call.now))
        cap = self._spend_caps.get(call.tenant_id)
        if cap is not None:
            further.append(spend_limit(cap, self._taken(call.balance.period), amount, state))
        policy = GatePolicy(AtLimit(pool.at_limit), pool.overage_quantity_max)
        return decide(state, policy, quantity, further=further), amount

    def _amount(self, call: Call, state: GateState, balance: LockedBalance) -> Decimal:
        assert call.balance is not None  # the caller has looked
        assert call.pool is not None
        uncovered = uncovered_part(state, call.request.quantity)
        if not uncovered:
            return _ZERO
        if call.pool.unit_amount is not None:
            with exact():
                return uncovered * call.pool.unit_amount
        estimator = self._estimators.get(balance.row.pk)
        if estimator is None:
            period = call.balance.period
            _, version_id = period.segment_of(call.now)
            estimator = Estimator(balance.row, period.versions, version_id=version_id)
            self._estimators[balance.row.pk] = estimator
        names = dimension_set(call.dimension_key)
        return estimator.amount(names, call.request.quantity, held=state.held, remaining=state.remaining_in_force)

    def _taken(self, period: PlacedPeriod) -> Decimal:
        """Return what counts against the tenant's cap: the overage of the period's pools, and all that is held of them."""
        rows = [self._locked[placed.id].row for placed in period.balances.values()]
        spent = self._spent.get(period.id)
        if spent is None:
            standings = [Standing(row, "", "", period.ends_at, period.versions) for row in rows]
            with exact():
                spent = self._spent[period.id] = sum(overage_amounts(standings).values(), _ZERO)
        with exact():
            return sum((row.held_amount for row in rows), spent)


def state_of(balance: LockedBalance, now: datetime, ends_at: datetime) -> GateState:
    """
    Return a locked balance's position as the gate sees it, with what is left of the grants in force at the tenant's time.

    Balances of two periods may share a grant (the earlier one waits for late usage): what the others hold may burn all that they share, so
    it counts as held here, too. Nothing is promised twice.
    """
    row = balance.row
    in_force = [grant for grant in balance.grants if grant.covers(now)]
    with exact():
        remaining = sum((balance.remaining[int(grant.id)] for grant in in_force), _ZERO)
        held = row.held
        if balance.mates:
            shared = sum((balance.remaining[int(one.id)] for one in in_force if one.kind != GrantKind.ALLOWANCE), _ZERO)
            held += min(shared, sum((mate.row.held for mate in balance.mates if mate is not balance), _ZERO))
        overage = row.used - row.covered
    return GateState(row.used, row.covered, held, remaining, overage, ends_at)
