"""
Performs what gateways ask of the gate: the one transaction in which holds are made, grow, and end.

Locks in the documented order: the spend rows of capped tenants, authorizations by id, event keys, balances by id. What ends frees its room before anything new is decided.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from billing_site.database import uuid7
from billing_site.http.problems import DomainError
from metering.models import Authorization
from metering.selectors.authorizations import FoundHold, find_holds
from metering.services import holds
from metering.services.authorize import Calls
from metering.services.ingest import RESOLUTIONS_MAX, Stale, StaleMeters, lock_placed
from metering.services.locked import lock_balances
from metering.services.requests import Authorize, Ended, Extend, GateAnswer, GateRequest, Release
from metering.services.settling import Endings
from subscriptions.services import audit

Answer = GateAnswer | Ended | DomainError


def perform(
    requests: Sequence[GateRequest], *, group_id: UUID | None = None, lock_timeout_ms: int | None = None
) -> list[Answer]:
    """
    Do what each request asks, each at its own `now`, in one transaction, and return an answer or a refusal for each.

    Settling and releasing come first, then the calls are decided in turn. Idempotent: a repeat of a key finds its authorization, a
    repeated settlement what was settled; other content is refused. Raises a database error when nothing was stored.

    `group_id` is chosen by a caller that may have to ask again after an ambiguous COMMIT: what carries it is its own. Requests for one
    authorization that meet in a group are done one after the other, in transactions of their own.
    """
    answers: list[Any] = [None] * len(requests)
    for number, places in enumerate(_rounds(requests)):
        chosen = group_id if group_id is not None and number == 0 else uuid7()
        done = _perform([requests[place] for place in places], chosen, lock_timeout_ms)
        for place, answer in zip(places, done, strict=True):
            answers[place] = answer
    return answers


def _rounds(requests: Sequence[GateRequest]) -> list[list[int]]:
    """Part the requests, given by their places, so that none has two for one authorization."""
    rounds: list[list[int]] = []
    met: dict[UUID, int] = {}
    for place, request in enumerate(requests):
        number = 0
        if not isinstance(request, Authorize):
            number = met.get(request.authorization, -1) + 1
            met[request.authorization] = number
        while len(rounds) <= number:
            rounds.append([])
        rounds[number].append(place)
    return rounds


def _perform(requests: Sequence[GateRequest], group_id: UUID, lock_timeout_ms: int | None) -> list[Answer]:
    ids = [request.authorization for request in requests if not isinstance(request, Authorize)]
    found = find_holds(ids) if ids else {}
    calls = Calls([one for one in requests if isinstance(one, Authorize | Extend)], found)
    endings = Endings([one for one in requests if not isinstance(one, Authorize | Extend)], found)
    stale: Stale | None = None
    for _ in range(RESOLUTIONS_MAX):
        calls.resolve()
        endings.resolve(meters_afresh=isinstance(stale, StaleMeters))
        try:
            with transaction.atomic():
                _write(calls, endings, found, group_id, lock_timeout_ms)
            break
        except Stale as error:
            stale = error
    else:
        raise RuntimeError(f"what a group uses changed {RESOLUTIONS_MAX} times while it was being decided")
    endings.explain()
    decided, ended = iter(calls.answers()), iter(endings.answers())
    return [next(decided) if isinstance(one, Authorize | Extend) else next(ended) for one in requests]


def _write(
    calls: Calls, endings: Endings, found: dict[UUID, FoundHold], group_id: UUID, lock_timeout_ms: int | None
) -> None:
    asked = holds.read_asked(calls.questions() | endings.questions(), lock_timeout_ms=lock_timeout_ms)
    if asked.spend_caps:
        holds.lock_spend(asked.spend_caps)
    own = holds.lock(found) if found else {}
    endings.take(own)
    counted = endings.store(group_id)
    placed = {count.balance.id: count.balance for candidate in counted for count in candidate.counts}
    locked = lock_placed(calls.placed(asked.spend_caps) | placed, also=endings.balances())
    endings.end(counted, locked, group_id)
    calls.decide(asked, own, locked, group_id)


def release_hold(*, authorization_id: UUID, now: datetime, actor: str, reason: str) -> None:
    """Free a hold for staff, with an audit entry. `now` is wall time. Raises AuthorizationEnded for one that was settled."""
    with transaction.atomic():
        [answer] = perform([Release(authorization_id, now)])
        if isinstance(answer, DomainError):
            raise answer
        assert isinstance(answer, Ended)  # as a release is answered
        hold = answer.found.hold
        authorization = Authorization.objects.get(pk=hold.id)
        after = {"key": hold.key, "status": hold.status, "quantity": hold.quantity}
        audit.record(actor=actor, action="release", instance=authorization, after=after, reason=reason)


def expire_holds(*, authorization_ids: Sequence[UUID], now: datetime) -> None:
    """Free the holds among these whose time is up at `now`, the tenants' time; what has ended since is left as it is."""
    with transaction.atomic():
        overdue = [one for one in holds.lock(authorization_ids).values() if one.is_held and one.expires_at <= now]
        if not overdue:
            return
        locked = lock_balances(hold.balance_id for hold in overdue)
        for hold in overdue:
            holds.free(hold, locked[hold.balance_id], by=Authorization.Status.EXPIRED)
        holds.change(overdue, locked.values(), written_by=uuid7())
