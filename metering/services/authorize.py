"""
Authorizes calls: each is decided under its balance's lock, and holds what it may use until it is settled, released or expired.

Decides the calls of a group one after the other, in memory, under the locks of their balances: so no two of them are granted the same room,
in this process or another (semantics, "The gate"). A denial binds nothing and writes nothing. The transaction is `gate.perform`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from uuid import UUID

from billing_site.database import uuid7
from billing_site.http.problems import DomainError, Invalid
from metering.core.decision import AtLimit, Decision, GatePolicy, GateState, Outcome, Reason, decide
from metering.core.measuring import dimension_key, dimension_set
from metering.core.pools import Pool
from metering.models import Authorization
from metering.selectors.authorizations import AuthorizationNotFound, FoundHold, Hold
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
from metering.services.ingest import StaleBalances
from metering.services.opening import open_due_periods
from metering.services.posting import LockedBalance
from metering.services.requests import Authorize, Extend, GateAnswer
from metering.services.reversing import ClockAdvancing
from metering.services.settling import AuthorizationEnded
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
    # The hold that is to grow, where it is no new one.
    extends: Extend | None = None
    answer: Answer | None = None

    @property
    def key(self) -> tuple[int, str]:
        """What makes it the same authorization as another."""
        return self.tenant_id, self.request.key


class Calls:
    """The requests of a group to hold a quantity, or more of it; each extension is of another authorization."""

    def __init__(self, requests: Sequence[Authorize | Extend], found: Mapping[UUID, FoundHold]) -> None:
        self._requests = requests
        self._found = found
        self._resolved: list[Call | DomainError] = []

    def resolve(self) -> None:
        """Find for each request the balance that it would use; again, where that has changed since."""
        placements: dict[str, Placement | None] = {}
        self._resolved = [self._resolve(request, placements) for request in self._requests]

    @property
    def live(self) -> list[Call]:
        """The requests that can be decided."""
        return [one for one in self._resolved if isinstance(one, Call)]

    def keys(self) -> set[tuple[int, str]]:
        """Return the keys of new holds."""
        return {call.key for call in self.live if call.extends is None}

    def placed(self) -> dict[int, PlacedBalance]:
        """Return the balances that may be used, by id."""
        return {call.balance.id: call.balance for call in self.live if call.balance is not None}

    def decide(
        self,
        known: dict[tuple[int, str], Hold],
        extended: Mapping[UUID, Hold],
        locked: Mapping[int, LockedBalance],
        group_id: UUID,
    ) -> None:
        """
        Decide the calls in turn under the locks of their balances and authorizations, and write what is granted.

        `known` are the holds that were made under the calls' keys before. Raises StaleBalances when another transaction has taken one
        of the keys since they were read.
        """
        deciding = Deciding(locked, frozenset(extended), group_id)
        for call in self.live:
            if call.extends is not None:
                call.answer = deciding.extend(call, extended[call.extends.authorization])
            elif (hold := known.get(call.key)) is not None:
                call.answer = deciding.repeat(call, hold)
            elif (hold := deciding.hold(call)) is not None:
                known[call.key] = hold
        deciding.write()

    def answers(self) -> list[Answer]:
        """Return what became of each request."""
        return [one if isinstance(one, DomainError) else _answer_of(one) for one in self._resolved]

    def _resolve(self, request: Authorize | Extend, placements: dict[str, Placement | None]) -> Call | DomainError:
        if isinstance(request, Authorize):
            return _resolve(request, placements)
        found = self._found.get(request.authorization)
        if found is None:
            return AuthorizationNotFound(f"There is no authorization {request.authorization}.")
        request.tenant = found.tenant
        dimensions = dict(dimension_set(found.hold.dimension_key))
        more = Authorize(
            found.tenant, found.meter, request.quantity or _ZERO, found.hold.key, dimensions, 0, request.now
        )
        call = _resolve(more, placements)
        if isinstance(call, Call):
            call.extends = request
            if call.balance is None or call.balance.id != found.hold.balance_id:
                # It holds of a period that has ended, or of a pool that its usage would not burn any more.
                call.balance, call.denial = None, Reason.PERIOD_ENDED
        return call


def _answer_of(call: Call) -> Answer:
    assert call.answer is not None  # every call is decided, or the group was not
    return call.answer


def _resolve(request: Authorize, placements: dict[str, Placement | None]) -> Call | DomainError:
    """Return where a request belongs, as remembered where that has it; else as read, which `placements` keeps for the group."""
    if request.tenant not in placements:
        remembered = remembered_placement(request.tenant)
        call = None if remembered is None else _placed(request, remembered, fresh=False)
        if call is not None:
            return call
        placements[request.tenant] = _read(request)
    placement = placements[request.tenant]
    if placement is None:
        return TenantNotFound(f"There is no tenant {request.tenant}.")
    call = _placed(request, placement, fresh=True)
    assert call is not None  # what was read afresh is a finding
    return call


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
    call.balance = period.balances.get((meter_id, pools.key_for(dimensions))) if pools else None
    if pools is None or call.balance is None:
        call.denial = Reason.NOT_IN_TIER
        return call if fresh else None
    call.pool = pools.by_key[call.balance.pool]
    return call


def _fingerprint(request: Authorize, dimension_key: str) -> bytes:
    content = f"{request.meter} {plain(request.quantity)} {request.ttl_seconds} {dimension_key}"
    return blake2b(content.encode(), digest_size=16).digest()


_REASON_OF = {
    Outcome.ALLOW: Reason.WITHIN_ALLOWANCE,
    Outcome.ALLOW_OVERAGE: Reason.OVERAGE_BILLED,
    Outcome.DEGRADE: Reason.LIMIT_REACHED,
}


class Deciding:
    """Decides on calls one after the other, in memory, and keeps what is to be written."""

    def __init__(self, locked: Mapping[int, LockedBalance], extended: frozenset[UUID], group_id: UUID) -> None:
        self._locked = locked
        # Holds that this group extends: their time is not up, whatever is stored.
        self._extended = extended
        self._group_id = group_id
        self._granted: list[Hold] = []
        self._changed: list[Hold] = []
        self._touched: set[int] = set()
        # Balances whose overdue holds were looked for.
        self._tidied: set[int] = set()

    def hold(self, call: Call) -> Hold | None:
        """Decide on a call; where it is granted, hold its quantity in the balance's figures, and return the hold."""
        decision, amount = self._decide(call)
        quantity = call.request.quantity
        call.answer = GateAnswer(decision, quantity, amount, call.request.now)
        if decision.decision == Outcome.DENY:
            return None
        hold = Hold(
            id=uuid7(),
            tenant_id=call.tenant_id,
            balance_id=self._take(call, amount).row.pk,
            key=call.request.key,
            fingerprint=call.fingerprint,
            dimension_key=call.dimension_key,
            quantity=quantity,
            overage_quantity=decision.overage_quantity,
            amount_precise=_held_amount(amount),
            decision=decision.decision.value,
            authorized_at=call.now,
            expires_at=call.now + timedelta(seconds=call.request.ttl_seconds),
            status="held",
            written_by=self._group_id,
        )
        self._granted.append(hold)
        call.answer = self._answer(call, hold, decision, amount, is_new=True)
        return hold

    def extend(self, call: Call, hold: Hold) -> Answer:
        """Decide on more of a hold, or more time for it. A denial leaves it as it is."""
        request = call.extends
        assert request is not None  # the caller has asked
        if not hold.is_held or hold.expires_at <= call.now:
            return AuthorizationEnded(f"The authorization {hold.id} has ended.")
        if request.quantity is None:
            decision, amount = self._stored(call, hold), hold.amount_precise
        else:
            decision, amount = self._decide(call)
        is_own = hold.written_by == self._group_id  # written before an ambiguous COMMIT
        if decision.decision != Outcome.DENY and not is_own:
            if request.quantity is not None:
                self._take(call, amount)
                with exact():
                    hold.quantity += request.quantity
                    hold.overage_quantity += decision.overage_quantity
                    hold.amount_precise += _held_amount(amount)
            if request.ttl_seconds is not None:
                hold.expires_at = max(hold.expires_at, call.now + timedelta(seconds=request.ttl_seconds))
            self._changed.append(hold)
        return self._answer(call, hold, decision, amount)

    def repeat(self, call: Call, hold: Hold) -> Answer:
        """Answer a key that has its authorization already, in its present state."""
        if hold.fingerprint != call.fingerprint:
            return AuthorizationConflict(
                f"The key {hold.key} was used before, for another quantity, meter, dimensions or time to live."
            )
        is_own = hold.written_by == self._group_id
        return self._answer(call, hold, self._stored(call, hold), hold.amount_precise, is_new=is_own)

    def write(self) -> None:
        """Write the holds and what their balances now hold. Raises StaleBalances when another transaction has taken a key."""
        balances = [self._locked[pk] for pk in sorted(self._touched)]
        if self._changed:
            holds.change(self._changed, balances, written_by=self._group_id)
        # Decided again, with the other hold in sight.
        if self._granted and not holds.insert(self._granted, balances, written_by=self._group_id):
            raise StaleBalances

    def _decide(self, call: Call) -> tuple[Decision, Decimal]:
        """Return the decision, and what the call's overage would cost."""
        quantity = call.request.quantity
        if call.balance is None or call.pool is None:
            assert call.denial is not None  # one or the other
            return Decision(Outcome.DENY, call.denial, _ZERO, quantity, None, None), _ZERO
        balance = self._locked[call.balance.id]
        decision = self._compare(call, balance)
        if decision.decision != Outcome.ALLOW and balance.row.held and balance.row.pk not in self._tidied:
            # What nobody settled in time is not held any more, whether or not the sweeper has come: time decides.
            self._tidied.add(balance.row.pk)
            if holds.expire_overdue(balance, now=call.now, besides=self._extended, written_by=self._group_id):
                decision = self._compare(call, balance)
        with exact():
            amount = decision.overage_quantity * (call.pool.unit_amount or _ZERO)
        return decision, amount

    def _compare(self, call: Call, balance: LockedBalance) -> Decision:
        assert call.balance is not None  # without either it is denied
        assert call.pool is not None
        state = state_of(balance, call.now, call.balance.period.ends_at)
        policy = GatePolicy(AtLimit(call.pool.at_limit), call.pool.overage_quantity_max)
        return decide(state, policy, call.request.quantity)

    def _take(self, call: Call, amount: Decimal) -> LockedBalance:
        """Hold a call's quantity in its balance's figures."""
        assert call.balance is not None  # without one it is denied
        balance = self._locked[call.balance.id]
        with exact():
            balance.row.held += call.request.quantity
            balance.row.held_amount += _held_amount(amount)
        self._touched.add(balance.row.pk)
        return balance

    def _stored(self, call: Call, hold: Hold) -> Decision:
        """Return the decision by which a hold was made, with what remains now."""
        remaining = _ZERO
        if call.balance is not None:
            state = state_of(self._locked[call.balance.id], call.now, call.balance.period.ends_at)
            remaining = max(_ZERO, state.uncommitted)
        outcome = Outcome(hold.decision)
        return Decision(outcome, _REASON_OF[outcome], remaining, hold.overage_quantity, None, None)

    def _answer(
        self, call: Call, hold: Hold, decision: Decision, amount: Decimal, *, is_new: bool = False
    ) -> GateAnswer:
        is_overdue = hold.is_held and hold.expires_at <= call.now
        return GateAnswer(
            decision,
            hold.quantity,
            amount,
            call.request.now,
            authorization=hold.id,
            status=Authorization.Status.EXPIRED if is_overdue else hold.status,
            expires_at=hold.expires_at,
            is_new=is_new,
        )


def _held_amount(amount: Decimal) -> Decimal:
    """Return how much of a spend cap an estimate holds: a cheaper band that the call may reach makes no room before it is used."""
    return max(_ZERO, amount)


def state_of(balance: LockedBalance, now: datetime, ends_at: datetime) -> GateState:
    """Return a locked balance's position as the gate sees it, with what is left of the grants in force at the tenant's time."""
    row = balance.row
    with exact():
        in_force = sum((balance.remaining[int(one.id)] for one in balance.grants if one.covers(now)), _ZERO)
        overage = row.used - row.covered
    return GateState(row.used, row.covered, row.held, in_force, overage, ends_at)
