"""Forces things to happen at once: threads that start together, each on a connection of its own."""

from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

from django.db import connection


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Call all functions at the same moment, and return what each returned, or the exception that it raised."""
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
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


class Killed(BaseException):
    """The process ended here; nothing that catches Exception catches it."""


class KilledBefore:
    """An execute wrapper that ends the process, as it were, before statement number `place`."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.count = 0

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        self.count += 1
        if self.count == self.place:
            raise Killed(sql)
        return execute(sql, params, many, context)
