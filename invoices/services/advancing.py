"""Advances a test clock: everything that falls due on the way is run, in order, by the same schedule as in wall time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from django.db import connection

from invoices.services.due import run_due
from invoices.services.journal import JournalEntry
from subscriptions.services import clocks
from subscriptions.services.clocks import ClockAdvancing

# The first key of the advisory locks by which advances exclude each other; any number that nothing else in this database uses.
ADVANCES = 1_952_671_084


def advance(*, clock_id: int, to: datetime, actor: str) -> list[JournalEntry]:
    """
    Move a test clock forward to `to`, and return the journal of what was run, in order; it is kept as the clock's entries, too.

    Events of its tenants are rejected meanwhile. An advance that was cut off is resumed by asking for the same goal again; what it had
    run is not run twice. Raises ClockNotFound (404), ClockAdvancing (409) while another advance is at it or for another goal than that
    of an advance that was cut off, ClockMovesForward (422).
    """
    with _alone(clock_id):
        clock = clocks.begin_advance(clock_id=clock_id, to=to, actor=actor)
        journal = run_due(until=to, clock=clock)
        clocks.finish_advance(clock_id=clock_id)
        return journal


@contextmanager
def _alone(clock_id: int) -> Iterator[None]:
    """
    Hold the clock for this connection, over all the transactions of an advance; the lock dies with the connection.

    The clock's row cannot say it: it reads "advancing" after a crash as well, when there is somebody to resume and nobody to wait for.
    """
    if not _ask("SELECT pg_try_advisory_lock(%s, %s::int)", clock_id):
        raise ClockAdvancing("Another advance of this clock is running; wait for it.")
    try:
        yield
    finally:
        if connection.is_usable():
            _ask("SELECT pg_advisory_unlock(%s, %s::int)", clock_id)


def _ask(statement: str, clock_id: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement, [ADVANCES, clock_id])
        return bool(cursor.fetchone()[0])
