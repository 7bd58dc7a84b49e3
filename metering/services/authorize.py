"""
Authorizes calls: each is decided under its balance's lock, and holds what it may use until it is settled, released or expired.

Takes a sequence of requests, each with its own `now`, and decides them one after the other, in memory, in one transaction: so no two of them
are granted the same room, in this process or another (semantics, "The gate"). A denial binds nothing and writes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from uuid import UUID

from django.db import transaction

from billing_site.database import uuid7
from billing_site.http.problems import DomainError, Invalid
from metering.core.decision import AtLimit, Decision, GatePolicy, GateState, Outcome, Reason, decide
from metering.core.measuring import dimension_key
from metering.core.pools import Pool
from metering.selectors.authorizations import Hold
from metering.selectors.meters import read_meter, remembered_meter
from metering.selectors.placement import (
    PlacedBalance,
    Placement,
    read_placements,
    remembered_placement,
    unopened_subscription,
)
from metering.selectors.terms import pools_of_version
from metering.services import holds
from metering.services.ingest import RESOLUTIONS_MAX, StaleBalances, lock_placed
from metering.services.opening import open_due_periods
from metering.services.posting import LockedBalance
from metering.services.requests import Authorize, GateAnswer
from metering.services.reversing import ClockAdvancing
from subscriptions.core.money import exact, plain
from subscriptions.selectors.catalog import CatalogItemNotFound
from subscriptions.selectors.tenants import TenantNotFound

_ZERO = Decimal(0)

Answer = GateAnswer | DomainError
"""An answer to one request, or the refusal that its door raises."""


class AuthorizationConflict(DomainError):
    """The key was used before, for something else."""

    status = 409
    code = "conflict"
    title = "Another authorization has this key"


class NotAdditive(Invalid):
    """The meter's value is no sum, so that no call has a part of it to hold."""

    code = "not_additive"
    title = "The meter does not add up"


@dataclass(slots=True)
class Call:
    """A request on its way through a group: where its usage would belong, and what became of it."""

    request: Authorize
    tenant_id: int
    # Tenant time.
    now: datetime
    fingerprint: bytes
    dimension_key: str
    # Why it is denied without a look at any balance; else where it belongs, and on which terms.
    denial: Reason | None = None
    balance: PlacedBalance | None = None
    pool: Pool | None = None
    answer: Answer | None = None

    @property
    def key(self) -> tuple[int, str]:
        """What makes it the same authorization as another."""
        return self.tenant_id, self.request.key


def authorize(
    requests: Sequence[Authorize], *, group_id: UUID | None = None, lock_timeout_ms: int | None = None
) -> list[Answer]:
    """
    Decide on each request in turn, and hold what is granted, in one transaction.

    A repeat of a key finds its authorization in its present state; the same key with other content is an AuthorizationConflict. Refusals
    are returned in the place of an answer, not raised; a database error is raised, and then nothing was held.

    `group_id` is chosen by a caller that may have to ask again after an ambiguous COMMIT: holds that carry it are its own.
    """
    group_id = group_id or uuid7()
    for _ in range(RESOLUTIONS_MAX):
        resolved = _resolve(requests)
        calls = [one for one in resolved if isinstance(one, Call)]
        try:
            if calls:
                with transaction.atomic():
                    _decide(calls, group_id, lock_timeout_ms)
        except StaleBalances:
            continue
        return [one if isinstance(one, DomainError) else _answer_of(one) for one in resolved]
    raise RuntimeError(f"the balances of a group changed {RESOLUTIONS_MAX} times while it was being decided")


def _answer_of(call: Call) -> Answer:
    assert call.answer is not None  # every call is decided, or the group was not
    return call.answer


def _resolve(requests: Sequence[Authorize]) -> list[Call | DomainError]:
    """Find for each request the balance that it would use, as remembered where that has it; else read, and opened where due."""
    placements: dict[str, Placement | None] = {}
    resolved: list[Call | DomainError] = []
    for request in requests:
        placement = placements.get(request.tenant) or remembered_placement(request.tenant)
        call = None if placement is None else _placed(request, placement, fresh=request.tenant in placements)
        if call is None:
            if request.tenant not in placements:
                placement = placements[request.tenant] = _read(request)
            call = (
                TenantNotFound(f"There is no tenant {request.tenant}.")
                if placement is None
                else _placed(request, placement, fresh=True)
            )
        assert call is not None
        resolved.append(call)
    return resolved


def _read(request: Authorize) -> Placement | None:
    """Read where the tenant's usage of now belongs, and open its period if that has begun."""
    now = request.now
    placement = read_placements([request.tenant], earliest=now, latest=now, wall=now).get(request.tenant)
    if placement is None or placement.is_advancing or placement.period_at(placement.now(now)) is not None:
        return placement
    instant = placement.now(now)
    subscription_id = unopened_subscription(tenant_id=placement.tenant_id, at=instant)
    if subscription_id is None or not open_due_periods(subscription_id=subscription_id, now=instant):
        return placement
    return read_placements([request.tenant], earliest=now, latest=now, wall=now).get(request.tenant)


def _placed(request: Authorize, placement: Placement, *, fresh: bool) -> Call | DomainError | None:
    """Return where a request belongs; None where a remembered placement or meter lacks it, which is no finding until read afresh."""
    if placement.is_advancing:
        return ClockAdvancing(
            "The tenant's test clock is advancing; ask again when it is done.", headers={"Retry-After": "1"}
        )
    meter = (read_meter if fresh else remembered_meter)(request.meter)
    if meter is None:
        return CatalogItemNotFound(f"There is no meter {request.meter}.") if fresh else None
    meter_id, definition = meter
    if not definition.aggregation.is_additive:
        return NotAdditive(
            f"The meter {request.meter} has the aggregation {definition.aggregation}: nothing of it can be held."
        )
    unknown = [name for name in request.dimensions if name not in definition.dimensions]
    if unknown:
        faults = [(f"dimensions.{name}", "not_a_dimension", f"is no dimension of {request.meter}") for name in unknown]
        return Invalid("The meter does not know these dimensions.", errors=faults)
    now = placement.now(request.now)
    dimensions = tuple(sorted((name, request.dimensions.get(name, "")) for name in definition.dimensions))
    key = dimension_key(dimensions)
    call = Call(request, placement.tenant_id, now, _fingerprint(request, key), key)
    period = placement.period_at(now)
    if period is None or period.is_closed:
        call.denial = Reason.NO_PERIOD
        return call if fresh else None
    _, version_id = period.segment_of(now)
    pools = pools_of_version(version_id).get(meter_id)
    call.balance = pools and period.balances.get((meter_id, pools.key_for(dimensions)))
    if not pools or not call.balance:
        call.denial = Reason.NOT_IN_TIER
        return call if fresh else None
    call.pool = pools.by_key[call.balance.pool]
    return call


def _fingerprint(request: Authorize, dimension_key: str) -> bytes:
    content = f"{request.meter} {plain(request.quantity)} {request.ttl_seconds} {dimension_key}"
    return blake2b(content.encode(), digest_size=16).digest()


def _decide(calls: Sequence[Call], group_id: UUID, lock_timeout_ms: int | None) -> None:
    """Decide the calls in turn under the locks of their balances, and write the holds that are granted."""
    known = holds.find_by_keys({call.key for call in calls}, lock_timeout_ms=lock_timeout_ms)
    locked = lock_placed({call.balance.id: call.balance for call in calls if call.balance is not None})
    granted: list[Hold] = []
    for call in calls:
        hold = known.get(call.key)
        if hold is not None:
            call.answer = _repeated(call, hold, locked, group_id)
            continue
        hold = _try(call, locked)
        if hold is not None:
            hold.written_by = group_id
            known[call.key] = hold
            granted.append(hold)
    if granted:
        touched = {hold.balance_id for hold in granted}
        if not holds.insert(granted, [locked[balance_id] for balance_id in touched], written_by=group_id):
            # Another transaction has taken one of the keys: decide again, with its hold in sight.
            raise StaleBalances


def _try(call: Call, locked: Mapping[int, LockedBalance]) -> Hold | None:
    """Decide on a call; where it is granted, hold its quantity in the balance's figures, and return the hold."""
    request = call.request
    if call.balance is None or call.pool is None:
        assert call.denial is not None
        denied = Decision(Outcome.DENY, call.denial, _ZERO, request.quantity, None, None)
        call.answer = GateAnswer(denied, request.quantity, _ZERO, request.now)
        return None
    balance = locked[call.balance.id]
    state = state_of(balance, call.now, call.balance.period.ends_at)
    policy = GatePolicy(AtLimit(call.pool.at_limit), call.pool.overage_quantity_max)
    decision = decide(state, policy, request.quantity)
    with exact():
        amount = decision.overage_quantity * (call.pool.unit_amount or _ZERO)
    call.answer = GateAnswer(decision, request.quantity, amount, request.now)
    if decision.decision == Outcome.DENY:
        return None
    with exact():
        balance.row.held += request.quantity
        balance.row.held_amount += amount
    hold = Hold(
        id=uuid7(),
        tenant_id=call.tenant_id,
        balance_id=balance.row.pk,
        key=request.key,
        fingerprint=call.fingerprint,
        dimension_key=call.dimension_key,
        quantity=request.quantity,
        overage_quantity=decision.overage_quantity,
        amount_precise=amount,
        decision=decision.decision.value,
        authorized_at=call.now,
        expires_at=call.now + timedelta(seconds=request.ttl_seconds),
        status="held",
    )
    call.answer.authorization, call.answer.status, call.answer.expires_at = hold.id, hold.status, hold.expires_at
    call.answer.is_new = True
    return hold


def state_of(balance: LockedBalance, now: datetime, ends_at: datetime) -> GateState:
    """Return a locked balance's position as the gate sees it, with what is left of the grants in force at the tenant's time."""
    row = balance.row
    with exact():
        in_force = sum((balance.remaining[int(one.id)] for one in balance.grants if one.covers(now)), _ZERO)
        overage = row.used - row.covered
    return GateState(row.used, row.covered, row.held, in_force, overage, ends_at)


_REASON_OF = {
    Outcome.ALLOW: Reason.WITHIN_ALLOWANCE,
    Outcome.ALLOW_OVERAGE: Reason.OVERAGE_BILLED,
    Outcome.DEGRADE: Reason.LIMIT_REACHED,
}


def _repeated(call: Call, hold: Hold, locked: Mapping[int, LockedBalance], group_id: UUID) -> Answer:
    """Answer a key that has its authorization already, in its present state."""
    if hold.fingerprint != call.fingerprint:
        return AuthorizationConflict(
            f"The key {hold.key} was used before, for another quantity, meter, dimensions or time to live."
        )
    outcome = Outcome(hold.decision)
    remaining = _ZERO
    if call.balance is not None:
        state = state_of(locked[call.balance.id], call.now, call.balance.period.ends_at)
        remaining = max(_ZERO, state.uncommitted)
    decision = Decision(outcome, _REASON_OF[outcome], remaining, hold.overage_quantity, None, None)
    return GateAnswer(
        decision,
        hold.quantity,
        hold.amount_precise,
        call.request.now,
        authorization=hold.id,
        status=hold.status,
        expires_at=hold.expires_at,
        is_new=hold.written_by == group_id,
    )
