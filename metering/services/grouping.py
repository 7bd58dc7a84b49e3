"""
Many threads that ask, and one that answers them in groups.

A web process has a thread for each request; what costs the same for one request as for thirty (a transaction, a flush to disk, a row's lock,
a query) is done by one thread for all that have asked meanwhile. Owns the queue and the waiting; what a group is for is its user's.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# Questions that may wait; a thread waits for each, so servers bound them, too.
QUEUE_SIZE = 2048
# How long a group waits for more questions when there are many.
GATHER_SECONDS = 0.002


class Waiting(Generic[Question, Answer]):
    """A question whose thread waits for the answer. A lock is the cheapest thing in Python that a thread can wait for."""

    __slots__ = ("_answer", "_bell", "_error", "_following", "_gone", "question")

    def __init__(self, question: Question) -> None:
        self.question = question
        self._answer: list[Answer] = []
        self._error: Exception | None = None
        # Whom its thread wakes; at most one, taken out by whoever does it.
        self._following: list[Waiting[Question, Answer]] = []
        # Whether its thread has waited too long, and will wake nobody.
        self._gone = False
        self._bell = threading.Lock()
        self._bell.acquire()

    @property
    def is_settled(self) -> bool:
        """Whether it has its answer, or an error."""
        return bool(self._answer) or self._error is not None

    def answer(self, answer: Answer) -> None:
        """Note the answer; `wake` lets the thread go on with it."""
        self._answer.append(answer)

    def fail(self, error: Exception) -> None:
        """Note the error, in place of an answer."""
        self._error = error

    def wait(self, seconds: float) -> Answer:
        """Return the answer. Raises the error, or TimeoutError."""
        if not self._bell.acquire(timeout=seconds):
            self._gone = True
            if not self._bell.acquire(blocking=False):
                raise TimeoutError
        if (following := self._take_following()) is not None:
            following.ring()
        if self._error is not None:
            raise self._error
        return self._answer[0]

    def precede(self, following: "Waiting[Question, Answer]") -> None:
        """Have this one's thread wake another."""
        self._following.append(following)

    def ring(self) -> None:
        """Wake the thread; of one that has gone, the one that it would wake."""
        one: Waiting[Question, Answer] | None = self
        while one is not None:
            one._bell.release()
            one = one._take_following() if one._gone else None

    def _take_following(self) -> "Waiting[Question, Answer] | None":
        # Taking out of a list is one step: only one of two threads gets it.
        try:
            return self._following.pop()
        except IndexError:
            return None


def wake(group: Sequence[Waiting[Any, Any]]) -> None:
    """
    Let the threads of a settled group go on, each woken by the one before it. Once for each question.

    Thirty threads that are woken together all come for the interpreter's lock, and most are put to sleep again, some several times; this costs
    a fifth of all that a single event does.
    """
    for one, following in pairwise(group):
        one.precede(following)
    if group:
        group[0].ring()


class Groups(Generic[Question, Answer]):
    """The queue: threads `ask`, and one thread takes `next`."""

    def __init__(self, *, size_of: Callable[[Question], int], size_max: int) -> None:
        self._waiting: queue.SimpleQueue[Waiting[Question, Answer]] = queue.SimpleQueue()
        self._size_of = size_of
        self._size_max = size_max
        self._last = 0

    def ask(self, question: Question, *, seconds: float) -> Answer:
        """Wait for the answer, and return it. Raises queue.Full when too many wait, TimeoutError, or what the answering thread failed with."""
        if self._waiting.qsize() >= QUEUE_SIZE:
            raise queue.Full
        waiting: Waiting[Question, Answer] = Waiting(question)
        self._waiting.put(waiting)
        return waiting.wait(seconds)

    def next(self) -> list[Waiting[Question, Answer]]:
        """
        Wait for a question, and take with it all that have arrived meanwhile, up to the group's size.

        Where the last group was one of many, those just answered are about to come again: a moment's patience makes groups twice as
        large, and each costs what half of it did.
        """
        group = [self._waiting.get()]
        if self._last > 1:
            time.sleep(GATHER_SECONDS)
        size = self._size_of(group[0].question)
        while size < self._size_max:
            try:
                group.append(self._waiting.get_nowait())
            except queue.Empty:
                break
            size += self._size_of(group[-1].question)
        self._last = len(group)
        return group
