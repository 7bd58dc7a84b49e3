"""
Ends holds: settles them with what was used, or releases them.

Settling records usage as an event, by the same steps as `ingest` does, and frees the hold in the posting that counts it. Usage that has
happened is always recorded: also of a hold that was released or has expired, and also when its period is closed (semantics, "The gate").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from uuid import UUID

from billing_site.http.problems import DomainError, Invalid
from metering.core.measuring import SETTLED_SOURCE, dimension_set, settled_data
from metering.models import Authorization
from metering.selectors.authorizations import AuthorizationNotFound, FoundHold, Hold
from metering.selectors.balances import BalanceView
from metering.selectors.meters import counting_meters
from metering.services import event_rows, holds
from metering.services.candidates import Candidate, Group, classify
from metering.services.ingest import StaleMeters, post_counted, views_of
from metering.services.locked import LockedBalance
from metering.services.requests import (
    ACCEPTED,
    CONFLICT,
    DUPLICATE,
    REJECTED,
    UNMATCHED,
    Ended,
    NewEvent,
    Outcome,
    Record,
    Release,
    Settle,
)
from metering.services.reversing import ClockAdvancing
from subscriptions.core.money import exact

_Status = Authorization.Status


class AuthorizationEnded(DomainError):
    """The hold was settled, released or has expired: it cannot be changed any more."""

    status = 409
    code = "authorization_ended"
    title = "The authorization has ended"


class SettledOtherwise(DomainError):
    """The authorization was settled before, with something else; that happens once."""

    status = 409
    code = "conflict"
    title = "The authorization was settled with something else"


class EventRefused(Invalid):
    """The event that was to settle the authorization was rejected; nothing was recorded, and the hold stands."""

    title = "The event was rejected"


class EventConflict(DomainError):
    """Another event has this identity; nothing was recorded, and the hold stands."""

    status = 409
    code = "conflict"
    title = "Another event has this identity"


@dataclass(slots=True)
class Ending:
    """A settlement or release on its way through a group."""

    request: Settle | Release
    found: FoundHold
    # What settles it, and its content; nothing for a release.
    candidate: Candidate | None = None
    fingerprint: bytes = b""
    refusal: DomainError | None = None
    # Whether there is something left to do: it was not ended before.
    is_open: bool = True

    @property
    def hold(self) -> Hold:
        """The hold as it was found; once it is locked, as it is."""
        return self.found.hold


class Endings:
    """The settlements and releases of a group, each of another authorization."""

    def __init__(self, requests: Sequence[Settle | Release], found: Mapping[UUID, FoundHold]) -> None:
        self._all: list[Ending | DomainError] = [_ending(one, found.get(one.authorization)) for one in requests]
        self._live = [one for one in self._all if isinstance(one, Ending)]
        self._settling = [one for one in self._live if isinstance(one.request, Settle)]
        self._group = Group([Record([_event(one.request, one.found)], one.request.now) for one in self._settling])
        for one, candidate in zip(self._settling, self._group.candidates, strict=True):
            candidate.authorized_at = one.hold.authorized_at
            one.candidate, one.fingerprint = candidate, _fingerprint(candidate)
        self._views: dict[int, BalanceView] = {}

    def resolve(self, *, meters_afresh: bool) -> None:
        """Find what the settling events count; again, where that has changed since, or meters have been added."""
        if self._settling:
            self._group.start_over()
            self._meters = counting_meters(afresh=meters_afresh)
            classify(self._group, self._meters)
            event_rows.answer_rejected_repeats(self._group)

    def take(self, locked: Mapping[UUID, Hold]) -> None:
        """Look at the authorizations under their locks: what has ended before is not ended again."""
        for one in self._live:
            one.found.hold = hold = locked[one.hold.id]
            if one.candidate is not None:
                one.is_open = hold.status != _Status.SETTLED
                if not one.is_open:
                    one.candidate.outcome = Outcome(DUPLICATE, event_id=hold.settled_event)
                    if hold.settled_fingerprint != one.fingerprint:
                        one.refusal = SettledOtherwise(f"The authorization {hold.id} was settled with something else.")
            else:
                one.is_open = hold.is_held
                if hold.status == _Status.SETTLED:
                    one.refusal = AuthorizationEnded(f"The authorization {hold.id} was settled.")

    def store(self, posting_id: UUID) -> list[Candidate]:
        """
        Store the events that settle, and return those that are new and count for something.

        Raises StaleMeters when a meter has been added since they were resolved.
        """
        settling = {id(one.candidate) for one in self._live if one.is_open}
        candidates = [one for one in self._group.storable() if id(one) in settling]
        if not candidates:
            return []
        fresh, sum_of_meter_ids = event_rows.insert(candidates, posting_id)
        if sum_of_meter_ids != self._meters.sum_of_ids:
            raise StaleMeters
        return [candidate for candidate in fresh if candidate.counts]

    def questions(self) -> set[tuple[int, str, int | None, str]]:
        """Return what is to be known of the authorizations' tenants before anything is locked (`holds.read_asked`)."""
        return {
            (one.hold.tenant_id, one.hold.key, None, one.found.now(one.request.now).isoformat()) for one in self._live
        }

    def balances(self) -> set[int]:
        """Return the ids of the balances in which something is freed."""
        return {one.hold.balance_id for one in self._live if one.is_open and one.hold.is_held}

    def end(self, counted: Sequence[Candidate], locked: Mapping[int, LockedBalance], posting_id: UUID) -> None:
        """Free the holds in the locked balances, and post the events that count."""
        ended = [one for one in self._live if one.is_open and self._end(one, locked)]
        posted = {count.balance.id for candidate in counted for count in candidate.counts}
        if counted:
            # Balances that share grants are walked, and so written, together.
            touched = {one.row.pk: one for balance_id in posted for one in locked[balance_id].pool}
            post_counted(counted, touched, posting_id=posting_id, kind="record")
            self._views = views_of(counted, locked)
        if ended:
            freed = {one.hold.balance_id for one in ended if one.hold.balance_id in locked} - posted
            holds.change([one.hold for one in ended], [locked[pk] for pk in sorted(freed)], written_by=posting_id)

    def explain(self) -> None:
        """Name the fields in which events conflict, once all is written."""
        for candidate in self._group.candidates:
            candidate.outcome = _outcome(candidate)
        event_rows.explain_conflicts(self._group)
        for one in self._settling:
            outcome = one.candidate.decided if one.candidate is not None else None
            if outcome is not None and outcome.status == CONFLICT:
                differs = "Differs from the event that was stored first."
                faults = [(f"event.{path}", CONFLICT, differs) for path in outcome.fields]
                one.refusal = EventConflict(outcome.detail, errors=faults)

    def answers(self) -> list[Ended | DomainError]:
        """Return what became of each request."""
        return [self._answer(one) for one in self._all]

    def _answer(self, one: Ending | DomainError) -> Ended | DomainError:
        if isinstance(one, DomainError):
            return one
        if one.refusal is not None:
            return one.refusal
        touched = {count.balance.id: None for count in one.candidate.counts} if one.candidate is not None else {}
        return Ended(one.found, [self._views[pk] for pk in touched if pk in self._views])

    def _end(self, one: Ending, locked: Mapping[int, LockedBalance]) -> bool:
        """End a hold in memory; False where the event that settles it is refused, and the hold stands."""
        hold = one.hold
        candidate = one.candidate
        if candidate is not None:
            outcome = _outcome(candidate)
            if outcome.status == REJECTED:
                one.refusal = _refused(outcome)
            if outcome.status in (REJECTED, CONFLICT):
                return False
            hold.settled_event, hold.settled_fingerprint = outcome.event_id, one.fingerprint
            with exact():
                of_meter = [count.quantity for count in candidate.counts if count.meter.code == one.found.meter]
                hold.settled_quantity = sum(of_meter, Decimal(0))
        if hold.is_held:
            is_overdue = hold.expires_at <= one.found.now(one.request.now)
            by = _Status.EXPIRED if is_overdue else _Status.SETTLED if candidate is not None else _Status.RELEASED
            holds.free(hold, locked[hold.balance_id], by=by)
        if candidate is not None:
            hold.status = _Status.SETTLED
        return True


def _ending(request: Settle | Release, found: FoundHold | None) -> Ending | DomainError:
    if found is None:
        return AuthorizationNotFound(f"There is no authorization {request.authorization}.")
    request.tenant = found.tenant
    event = request.event if isinstance(request, Settle) else None
    if event is not None and event.subject and event.subject != found.tenant:
        message = f"The authorization is of {found.tenant}."
        return Invalid(message, errors=[("event.subject", "other_tenant", message)])
    if found.is_advancing:
        detail = "The tenant's test clock is advancing; try again when it is done."
        return ClockAdvancing(detail, headers={"Retry-After": "1"})
    return Ending(request, found)


def _event(request: Settle | Release, found: FoundHold) -> NewEvent:
    """Return the event that settles a hold: the one that was sent, or one that says the quantity."""
    assert isinstance(request, Settle)  # a release has none
    if request.event is not None:
        request.event.subject = found.tenant
        return request.event
    assert request.quantity is not None  # a settlement has one or the other
    hold = found.hold
    data = settled_data(found.meter, request.quantity, dimension_set(hold.dimension_key))
    return NewEvent(found.tenant, SETTLED_SOURCE, str(hold.id), found.event_type, hold.authorized_at, data)


def _fingerprint(candidate: Candidate) -> bytes:
    """Return 16 bytes of the settling event's identity and content."""
    return blake2b(candidate.digest + candidate.fingerprint, digest_size=16).digest()


def _outcome(candidate: Candidate) -> Outcome:
    """Return what became of a settling event that was to be stored; one that repeats another of the group follows that."""
    if candidate.outcome is not None:
        return candidate.outcome
    first = candidate.first
    if first is not None:
        status = DUPLICATE if first.fingerprint == candidate.fingerprint else CONFLICT
        return Outcome(status, event_id=_outcome(first).event_id)
    return Outcome(ACCEPTED if candidate.counts else UNMATCHED, event_id=candidate.uuid)


def _refused(outcome: Outcome) -> DomainError:
    if outcome.code == ClockAdvancing.code:
        return ClockAdvancing(outcome.detail, headers={"Retry-After": "1"})
    return EventRefused(
        outcome.detail, errors=[(f"event.{path}", outcome.code, outcome.detail) for path in outcome.fields]
    )
