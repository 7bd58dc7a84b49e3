"""
Kills a process before each of its statements and around each COMMIT, runs the operation again, and compares the books.

The process is a forked child that gets SIGKILL, so that nothing unwinds: no rollback, no `finally`, no callback after commit. The
moments are those at which it is about to send something, has a COMMIT confirmed and told nobody yet, or is about to answer.
"""

import os
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connection

from subscriptions.models import Tenant
from tests.faults.canonical_books import Books, canonical_books

# A child that takes longer hangs.
CHILD_SECONDS = 60
COMMITTED = "after COMMIT"
ANSWERING = "before the answer"


@dataclass(frozen=True)
class Story:
    """Tenants in a state of their own, and the operation that has to survive; it is called again after a crash."""

    tenants: Sequence[Tenant]
    operation: Callable[[], object]

    def books(self) -> Books:
        """Return the tenants' books as they stand."""
        return canonical_books(*self.tenants)


def moments_of(tell: Callable[[], Story]) -> tuple[list[str], Books, Books]:
    """Tell the story without a crash; return the moments at which it can crash, and the books before and after."""
    story = tell()
    before = story.books()
    status, moments = _in_child(story.operation, dies_at=None)
    assert status == 0, "the operation failed in a child; its traceback is above"
    after = story.books()
    assert after != before, "the operation does nothing, so nothing can be lost"
    return moments, before, after


def sweep(tell: Callable[[], Story], *, every: int = 1, offset: int = 0) -> list[str]:
    """
    Tell the story again for each of its moments, with a crash there and the operation repeated; the books must be the same.

    Until a COMMIT is confirmed the crash must leave nothing. With `every`, one moment in so many is tried, after the first `offset`.
    Returns the moments that were tried.
    """
    moments, before, after = moments_of(tell)
    tried = range(1 + offset, len(moments) + 1, every)
    for place in tried:
        story = tell()
        status, passed = _in_child(story.operation, dies_at=place)
        crash = f"a crash at moment {place}, {passed[-1]}"
        assert status == -signal.SIGKILL, f"exit status {status} instead of {crash}"
        if COMMITTED not in passed:
            assert story.books() == before, f"something was stored without a COMMIT by {crash}"
        story.operation()
        assert story.books() == after, f"other books after {crash}"
    return [moments[place - 1] for place in tried]


def _in_child(operation: Callable[[], object], *, dies_at: int | None) -> tuple[int, list[str]]:
    """
    Run the operation in a forked child, and have it killed at its moment number `dies_at`, counted from 1.

    Returns its exit status, negative for a signal, and the moments that it reached, of which the last is the one at which it died.
    """
    connection.close()
    connection.close_pool()  # the child must not talk on this process's sockets
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _live(operation, _Moments(writer, dies_at))
    os.close(writer)
    with open(reader) as told:
        moments = told.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), moments


def _live(operation: Callable[[], object], moments: "_Moments") -> None:
    """Be the child: run the operation under watch, and end without any of the parent's cleaning up."""
    signal.alarm(CHILD_SECONDS)
    status = 1
    try:
        del connection.settings_dict["OPTIONS"]["pool"]  # one connection, and no threads that make it
        connection.ensure_connection()
        moments.watch()
        operation()
        moments.reach(ANSWERING)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class _Moments:
    """Counts the moments of this process, tells each to its parent, and ends the process at one of them."""

    def __init__(self, writer: int, dies_at: int | None) -> None:
        self._writer, self._dies_at, self._count = writer, dies_at, 0

    def reach(self, what: str) -> None:
        self._count += 1
        os.write(self._writer, f"{what}\n".encode())
        if self._count == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """
        Watch psycopg itself, below Django: the hot path may use its cursors directly.

        The patches stay, as the process lives for one operation only.
        """
        for owner, name in _senders():
            setattr(owner, name, self._before(getattr(owner, name)))
        commit = psycopg.Connection.commit

        def committing(driver: psycopg.Connection[Any]) -> None:
            self.reach("before COMMIT")
            commit(driver)
            self.reach(COMMITTED)

        psycopg.Connection.commit = committing  # type: ignore[method-assign]

    def _before(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def sending(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            self.reach(f"before {' '.join(str(query).split())[:100]}")
            return send(cursor, query, *args, **kwargs)

        return sending


def _senders() -> Iterable[tuple[type, str]]:
    yield psycopg.Cursor, "execute"
    yield psycopg.Cursor, "executemany"
    yield psycopg.Cursor, "copy"
    yield psycopg.ServerCursor, "execute"
