"""Advances a test clock: everything that falls due on the way is run, in order, by the same schedule as in wall time."""

from datetime import datetime

from invoices.services.due import JournalEntry, run_due
from subscriptions.services import clocks


def advance(*, clock_id: int, to: datetime, actor: str) -> list[JournalEntry]:
    """
    Move a test clock forward to `to`, and return the journal of what was run, in order.

    Events of its tenants are rejected meanwhile. An advance that was cut off is resumed by asking for the same goal again; what it had
    run is not run twice. Raises ClockNotFound (404), ClockAdvancing (409) for another goal meanwhile, ClockMovesForward (422).
    """
    clock = clocks.begin_advance(clock_id=clock_id, to=to, actor=actor)
    journal = run_due(until=to, clock=clock)
    clocks.finish_advance(clock_id=clock_id)
    return journal
