"""
Asks what the gate would say, without holding anything.

Reads from PostgreSQL, with others that ask at the same moment in one query (`reading`); nothing is cached, so the answer is of that moment (ADR 0004).
It binds nobody: only a hold keeps the room that it was granted.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from metering.core.decision import (
    AtLimit,
    Decision,
    GatePolicy,
    GateState,
    Limit,
    Outcome,
    Reason,
    decide,
    shown_limits,
    spend_limit,
    uncovered_part,
)
from metering.core.measuring import DimensionSet, MeterDefinition
from metering.selectors.balances import BalanceView, TenantBalances
from metering.selectors.estimates import Estimator
from metering.selectors.meters import read_meter, remembered_meter
from metering.selectors.placement import unopened_subscription
from metering.selectors.terms import pools_of_version
from metering.services.calls import NotAdditive, complete
from metering.services.opening import open_due_periods
from metering.services.reading import read_balances
from metering.services.requests import Authorize, GateAnswer
from subscriptions.core.money import exact
from subscriptions.selectors.catalog import CatalogItemNotFound
from subscriptions.selectors.tenants import TenantNotFound

_ZERO = Decimal(0)


@dataclass(slots=True)
class Checked:
    """What the gate would say to a call of a pool, and every limit that the pool has."""

    decision: Decision
    limits: list[Limit]
    # What the call's overage would cost, in the tenant's currency, not rounded.
    amount: Decimal


def present_balances(code: str, *, wall: datetime) -> TenantBalances:
    """
    Return where the tenant's pools stand, its period opened if that has begun.

    Raises TenantNotFound (404), StorageUnavailable (503).
    """
    found = read_balances(code, wall=wall)
    if found is None:
        raise TenantNotFound(f"There is no tenant {code}.")
    if found.views is None:
        # A period may have begun that beat has not come to yet; whoever needs it first opens it.
        subscription_id = unopened_subscription(tenant_id=found.tenant_id, at=found.now)
        if subscription_id is not None and open_due_periods(subscription_id=subscription_id, now=found.now):
            found = read_balances(code, wall=wall) or found
    return found


def check_call(asked: Authorize) -> GateAnswer:
    """
    Return what the gate would say to a call, of which nothing is held.

    Raises what holding would: TenantNotFound, CatalogItemNotFound (404), NotAdditive, Invalid (422); and StorageUnavailable (503).
    """
    found = present_balances(asked.tenant, wall=asked.now)
    meter_id, definition = _meter(asked.meter, found)
    if not definition.aggregation.is_additive:
        raise NotAdditive(f"The meter {asked.meter} does not add up: no call has a part of its value.")
    names = complete(definition, asked.dimensions)
    view = _view(found, meter_id, names)
    if view is None:
        reason = Reason.NOT_IN_TIER if found.views is not None else Reason.NO_PERIOD
        denied = Decision(Outcome.DENY, reason, _ZERO, asked.quantity, None, None)
        return GateAnswer(denied, asked.quantity, _ZERO, asked.now, found.now)
    checked = check(found, view, asked.quantity, names)
    return GateAnswer(checked.decision, asked.quantity, checked.amount, asked.now, found.now)


def check(found: TenantBalances, view: BalanceView, quantity: Decimal, names: DimensionSet) -> Checked:
    """Return what the gate would say to a call of one of the tenant's pools; `names` is the call's dimension set."""
    with exact():
        held = view.held + view.standing.held_elsewhere
    state = GateState(
        used=view.used,
        covered=view.used - view.overage,
        held=held,
        remaining_in_force=view.remaining,
        overage=view.overage,
        period_ends_at=view.period_ends_at,
    )
    amount = _amount(found, view, state, quantity, names)
    policy = GatePolicy(AtLimit(view.pool.at_limit), view.pool.overage_quantity_max)
    further = [
        window.limit(use, asked=quantity, now=found.now)
        for window, use in zip(view.pool.windows, view.window_uses, strict=True)
    ]
    if found.spend_cap is not None:
        further.append(spend_limit(found.spend_cap, _taken(found), amount, state))
    decision = decide(state, policy, quantity, further=further)
    return Checked(decision, [*shown_limits(state, policy, quantity), *further], amount)


def _meter(code: str, found: TenantBalances) -> tuple[int, MeterDefinition]:
    """Return the meter, read afresh where the tenant has no pool of the one that is remembered."""
    meter = remembered_meter(code)
    if meter is None or all(view.standing.row.meter_id != meter[0] for view in found.views or ()):
        meter = read_meter(code)
    if meter is None:
        raise CatalogItemNotFound(f"There is no meter {code}.")
    return meter


def _view(found: TenantBalances, meter_id: int, names: DimensionSet) -> BalanceView | None:
    """Return the pool that usage of this dimension set burns now; None where there is none."""
    of_meter = [view for view in found.views or () if view.standing.row.meter_id == meter_id]
    if not of_meter:
        return None
    pools = pools_of_version(_version_in_force(found, of_meter[0])).get(meter_id)
    key = pools.key_for(names) if pools else None
    return next((view for view in of_meter if view.standing.row.pool == key), None)


def _version_in_force(found: TenantBalances, view: BalanceView) -> int:
    versions = view.standing.versions
    return versions[max(at for at in versions if at <= found.now)]


def _amount(
    found: TenantBalances, view: BalanceView, state: GateState, quantity: Decimal, names: DimensionSet
) -> Decimal:
    uncovered = uncovered_part(state, quantity)
    if not uncovered:
        return _ZERO
    if view.pool.unit_amount is not None:
        with exact():
            return uncovered * view.pool.unit_amount
    standing = view.standing
    version_id = _version_in_force(found, view)
    estimator = Estimator(standing.row, standing.versions, version_id=version_id, segments=standing.segments)
    return estimator.amount(names, quantity, held=state.held, remaining=state.remaining_in_force)


def _taken(found: TenantBalances) -> Decimal:
    """Return what counts against the tenant's cap: what overage costs, and what holds would."""
    with exact():
        return sum((view.overage_amount_precise + view.standing.row.held_amount for view in found.views or ()), _ZERO)
