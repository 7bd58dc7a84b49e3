"""
Authorizes calls: each is decided under its balance's lock, and holds what it may use until it is settled, released or expired.

Decides the calls of a group one after the other, in memory, under the locks of their balances: so no two of them are granted the same room,
in this process or another (semantics, "The gate"). A denial binds nothing and writes nothing. The transaction is `gate.perform`'s.
"""

from collections.abc import Container, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from billing_site.database import uuid7
from billing_site.http.problems import DomainError
from metering.core.decision import Decision, Outcome, Reason
from metering.core.measuring import dimension_set
from metering.models import Authorization
from metering.selectors.authorizations import AuthorizationNotFound, FoundHold, Hold
from metering.selectors.placement import PlacedBalance, Placement
from metering.selectors.windows import WindowUses
from metering.services import holds
from metering.services.calls import Answer, Call, find_call
from metering.services.ingest import StaleBalances
from metering.services.locked import LockedBalance
from metering.services.requests import Authorize, Extend, GateAnswer
from metering.services.room import Room, state_of
from metering.services.settling import AuthorizationEnded
from subscriptions.core.money import exact

_ZERO = Decimal(0)


class AuthorizationConflict(DomainError):
    """The key was used before, for something else."""

    status = 409
    code = "conflict"
    title = "Another authorization has this key"


class Calls:
    """The requests of a group to hold a quantity, or more of it; each extension is of another authorization."""

    def __init__(self, requests: Sequence[Authorize | Extend], found: Mapping[UUID, FoundHold]) -> None:
        self._requests = requests
        self._found = found
        self._resolved: list[Call | DomainError] = []

    def resolve(self) -> None:
        """Find for each request the balance that it would use; again, where that has changed since."""
        placements: dict[str, Placement | None] = {}
        self._resolved = [self._find(request, placements) for request in self._requests]

    @property
    def live(self) -> list[Call]:
        """The requests that can be decided."""
        return [one for one in self._resolved if isinstance(one, Call)]

    def questions(self) -> set[tuple[int, str, int | None, str]]:
        """Return what is to be known before anything is locked (`holds.read_asked`)."""
        return {
            (*call.key, None if call.balance is None else call.balance.id, call.now.isoformat()) for call in self.live
        }

    def placed(self, capped: Container[int]) -> dict[int, PlacedBalance]:
        """Return the balances that may be used, by id, and of `capped` tenants all those of the period: their overage counts against the cap."""
        placed: dict[int, PlacedBalance] = {}
        for call in self.live:
            if call.balance is None:
                continue
            placed[call.balance.id] = call.balance
            if call.tenant_id in capped:
                placed |= {one.id: one for one in call.balance.period.balances.values()}
        return placed

    def decide(
        self,
        asked: holds.Asked,
        extended: Mapping[UUID, Hold],
        locked: Mapping[int, LockedBalance],
        group_id: UUID,
    ) -> None:
        """
        Decide the calls in turn under the locks of their balances and authorizations, and write what is granted.

        Raises StaleBalances when another transaction has taken one of the keys since `asked` was read.
        """
        windowed = {call.balance.id: call.now for call in self.live if call.balance and call.pool and call.pool.windows}
        room = Room(locked, asked.spend_caps, WindowUses(windowed) if windowed else None)
        deciding = Deciding(locked, room, asked.overdue, frozenset(extended), group_id)
        known = asked.holds
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

    def _find(self, request: Authorize | Extend, placements: dict[str, Placement | None]) -> Call | DomainError:
        if isinstance(request, Authorize):
            return find_call(request, placements)
        found = self._found.get(request.authorization)
        if found is None:
            return AuthorizationNotFound(f"There is no authorization {request.authorization}.")
        request.tenant = found.tenant
        dimensions = dict(dimension_set(found.hold.dimension_key))
        more = Authorize(
            found.tenant, found.meter, request.quantity or _ZERO, found.hold.key, dimensions, 0, request.now
        )
        call = find_call(more, placements)
        if isinstance(call, Call):
            call.extends = request
            if call.balance is None or call.balance.id != found.hold.balance_id:
                # It holds of a period that has ended, or of a pool that its usage would not burn any more.
                call.balance, call.denial = None, Reason.PERIOD_ENDED
        return call


def _answer_of(call: Call) -> Answer:
    assert call.answer is not None  # every call is decided, or the group was not
    return call.answer


_REASON_OF = {
    Outcome.ALLOW: Reason.WITHIN_ALLOWANCE,
    Outcome.ALLOW_OVERAGE: Reason.OVERAGE_BILLED,
    Outcome.DEGRADE: Reason.LIMIT_REACHED,
}


class Deciding:
    """Decides on calls one after the other, in memory, and keeps what is to be written."""

    def __init__(
        self,
        locked: Mapping[int, LockedBalance],
        room: Room,
        overdue: Container[int],
        extended: frozenset[UUID],
        group_id: UUID,
    ) -> None:
        self._locked = locked
        self._room = room
        # Balances that held something whose time was up, before they were locked.
        self._overdue = overdue
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
        call.answer = GateAnswer(decision, quantity, amount, call.request.now, call.now)
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
        if call.balance.id in self._overdue or self._room.has_cap(call):
            self._expire_overdue(call)
        decision, amount = self._room.decide(call)
        if decision.decision == Outcome.DENY and self._expire_overdue(call):
            decision, amount = self._room.decide(call)
        return decision, amount

    def _expire_overdue(self, call: Call) -> bool:
        """Free what nobody has settled in time, whether or not the sweeper has come: time decides. Looked for once in a group."""
        untidy = [one for one in self._room.that_count(call) if one.row.held and one.row.pk not in self._tidied]
        self._tidied.update(balance.row.pk for balance in untidy)
        expired = [
            holds.expire_overdue(balance, now=call.now, besides=self._extended, written_by=self._group_id)
            for balance in untidy
        ]
        return any(expired)

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
            call.now,
            authorization=hold.id,
            status=Authorization.Status.EXPIRED if is_overdue else hold.status,
            expires_at=hold.expires_at,
            is_new=is_new,
        )


def _held_amount(amount: Decimal) -> Decimal:
    """Return how much of a spend cap an estimate holds: a cheaper band that the call may reach makes no room before it is used."""
    return max(_ZERO, amount)
