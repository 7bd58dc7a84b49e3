"""
Test clocks: making one, and moving it.

Owns the clock's row only. What falls due on the way is run by `invoices.services.advancing`, which calls `begin_advance`, then `move`
before each item, then `finish_advance`.
"""

from datetime import datetime

from django.db import transaction

from billing_site.http.problems import DomainError, Invalid
from subscriptions.models import TestClock
from subscriptions.selectors.clock import ClockNotFound
from subscriptions.services import audit, uniqueness


class ClockAdvancing(DomainError):
    """The clock is on its way to another time; repeat that advance to resume it, or wait."""

    code = "clock_advancing"
    title = "The test clock is advancing"
    always_headers = {"Retry-After": "1"}


class ClockNotAdvancing(DomainError):
    """The clock stands still, so that it has no goal to move to."""

    code = "clock_not_advancing"
    title = "The test clock is not advancing"


class ClockMovesForward(Invalid):
    """A clock never goes back: its tenants' periods and invoices have happened."""

    code = "clock_moves_forward"
    title = "A test clock only moves forward"


@transaction.atomic
def create_clock(*, code: str, now: datetime, actor: str) -> TestClock:
    """Make a clock that stands at `now`. Raises AlreadyExists (409) for a code that is taken."""
    clock = TestClock(code=code, now=now)
    uniqueness.insert(clock, code=code)
    audit.record(actor=actor, action="create", instance=clock, after={"code": code, "now": now})
    return clock


@transaction.atomic
def begin_advance(*, clock_id: int, to: datetime, actor: str = audit.ACTOR_SYSTEM) -> TestClock:
    """
    Set the clock's goal. From here until `finish_advance`, events of its tenants are rejected.

    An advance that was cut off is resumed by asking for the same goal again. Raises ClockAdvancing (409) for another goal meanwhile,
    ClockMovesForward (422) for a goal before the clock's time; the present time is allowed, and runs what is due now.
    """
    clock = _locked(clock_id)
    if clock.status == TestClock.Status.ADVANCING:
        if clock.advancing_to != to:
            raise ClockAdvancing(f"The clock {clock.code} is advancing to {clock.advancing_to:%Y-%m-%dT%H:%M:%SZ}.")
        return clock
    if to < clock.now:
        raise ClockMovesForward(f"The clock {clock.code} stands at {clock.now:%Y-%m-%dT%H:%M:%SZ} already.")
    clock.status = TestClock.Status.ADVANCING
    clock.advancing_to = to
    clock.save(update_fields=["status", "advancing_to"])
    audit.record(actor=actor, action="advance", instance=clock, before={"now": clock.now}, after={"now": to})
    return clock


@transaction.atomic
def move(*, clock_id: int, now: datetime) -> TestClock:
    """
    Move an advancing clock to the time of the next due item.

    An earlier time leaves it where it is: an item that was due before the advance began is run late, as it would be by the wall clock.
    Raises ClockNotAdvancing (409), and ClockMovesForward (422) for a time beyond the goal.
    """
    clock = _locked(clock_id)
    if clock.advancing_to is None:
        raise ClockNotAdvancing(f"The clock {clock.code} is not advancing.")
    if now > clock.advancing_to:
        raise ClockMovesForward(f"The clock {clock.code} advances to {clock.advancing_to:%Y-%m-%dT%H:%M:%SZ} only.")
    clock.now = max(clock.now, now)
    clock.save(update_fields=["now"])
    return clock


@transaction.atomic
def finish_advance(*, clock_id: int) -> TestClock:
    """Put the clock at its goal and let its tenants' events in again. Called again, it changes nothing."""
    clock = _locked(clock_id)
    if clock.advancing_to is None:
        return clock
    clock.now = clock.advancing_to
    clock.status = TestClock.Status.READY
    clock.advancing_to = None
    clock.save(update_fields=["now", "status", "advancing_to"])
    return clock


def _locked(clock_id: int) -> TestClock:
    clock = TestClock.objects.select_for_update(no_key=True, of=("self",)).filter(pk=clock_id).first()
    if clock is None:
        raise ClockNotFound("There is no such test clock.")
    return clock
