"""Forces things to happen at once: threads that start together, each on a connection of its own, and cut into each other where dice say."""

from collections.abc import Callable
from random import Random
from threading import Barrier, Condition, Thread
from typing import Any

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
    return together(*[turns.taken_by(call, Random(dice.random())) for call in calls], seconds=seconds)


class _Turns:
    """How many statements all threads have sent."""

    # How long a thread lets the others go first: longer than they take for some statements, shorter than they may wait for a lock.
    PATIENCE = 0.05

    def __init__(self) -> None:
        self._sent = 0
        self._moved = Condition()

    def taken_by(self, call: Callable[[], Any], dice: Random) -> Callable[[], Any]:
        def run() -> Any:
            with connection.execute_wrapper(self._stopping(dice)):
                return call()

        return run

    def _stopping(self, dice: Random) -> Callable[..., Any]:
        def before_each(execute: Callable[..., Any], *statement: Any) -> Any:
            with self._moved:
                if dice.random() < 0.15:
                    goal = self._sent + dice.randint(1, 20)
                    self._moved.wait_for(lambda: self._sent >= goal, timeout=self.PATIENCE)
                self._sent += 1
                self._moved.notify_all()
            return execute(*statement)

        return before_each
