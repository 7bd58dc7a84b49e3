"""Forces things to happen at once: threads that start together, each on a connection of its own, and cut into each other where dice say."""

from collections.abc import Callable
from random import Random
from threading import Barrier, Condition, Thread, local
from typing import Any

import psycopg
import pytest
from django.db import connection


def together(*calls: Callable[[], Any], seconds: float = 60) -> list[Any]:
    """Call all functions at the same moment, and return what each returned, or the exception that it raised, within `seconds`."""
    results: list[Any] = [None] * len(calls)
    barrier = Barrier(len(calls))

    def run(place: int, call: Callable[[], Any]) -> None:
        try:
            barrier.wait(timeout=10)
            results[place] = call()
        except Exception as error:
            results[place] = error
        finally:
            connection.close()

    threads = [Thread(target=run, args=(place, call)) for place, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=seconds)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


def interleaved(*calls: Callable[[], Any], dice: Random, seconds: float = 60) -> list[Any]:
    """
    Call all functions at the same moment, as `together` does, and let each stop before statements that the dice choose.

    It goes on when the others have sent some statements more, or, where all of them wait (for a lock that it holds, perhaps), after a moment.
    """
    turns = _Turns()

    class CutCursor(psycopg.Cursor[Any]):
        """The cursor of the hot path, which Django's wrappers do not see."""

        def execute(self, *statement: Any, **how: Any) -> Any:
            turns.let_others_go_first()
            return super().execute(*statement, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg, "Cursor", CutCursor)
        return together(*[turns.taken_by(call, Random(dice.random())) for call in calls], seconds=seconds)


class _Turns:
    """How many statements all threads have sent, and each thread's dice."""

    # How long a thread lets the others go first: longer than they take for some statements, shorter than they may wait for a lock.
    PATIENCE = 0.05

    def __init__(self) -> None:
        self._sent = 0
        self._moved = Condition()
        self._own = local()

    def taken_by(self, call: Callable[[], Any], dice: Random) -> Callable[[], Any]:
        def run() -> Any:
            self._own.dice = dice
            with connection.execute_wrapper(self._before_each):
                return call()

        return run

    def let_others_go_first(self) -> None:
        """Stop, if this thread's dice say so."""
        dice: Random = self._own.dice
        with self._moved:
            if dice.random() < 0.15:
                goal = self._sent + dice.randint(1, 20)
                self._moved.wait_for(lambda: self._sent >= goal, timeout=self.PATIENCE)
            self._sent += 1
            self._moved.notify_all()

    def _before_each(self, execute: Callable[..., Any], *statement: Any) -> Any:
        self.let_others_go_first()
        return execute(*statement)
