"""
Many threads that ask, and one that answers them in groups.

A web process has a thread for each request; what costs the same for one request as for thirty (a transaction, a flush to disk, a row's lock,
a query) is done by one thread for all that have asked meanwhile. Owns the queue and the waiting; what a group is for is its user's.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# Questions that may wait; a thread waits for each, so servers bound them, too.
QUEUE_SIZE = 2048
# How long a group waits for more questions when there are many.
GATHER_SECONDS = 0.002


class Waiting(Generic[Question, Answer]):
    """A question whose thread waits for the answer. A lock is the cheapest thing in Python that a thread can wait for."""

    __slots__ = ("_answer", "_answered", "_error", "question")

    def __init__(self, question: Question) -> None:
        self.question = question
        self._answer: list[Answer] = []
        self._error: Exception | None = None
        self._answered = threading.Lock()
        self._answered.acquire()

    def answer(self, answer: Answer) -> None:
        """Let the thread go on with this answer."""
        self._answer.append(answer)
        self._answered.release()

    def fail(self, error: Exception) -> None:
        """Let the thread go on with this error, if it still waits."""
        if not self._answer and self._error is None:
            self._error = error
            self._answered.release()

    def wait(self, seconds: float) -> Answer:
        """Return the answer. Raises the error, or TimeoutError."""
        if not self._answered.acquire(timeout=seconds):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._answer[0]


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
