"""
Processes that write without HTTP: the floors, and the product's services called directly.

A task is a function that prepares, and returns what is to be timed; so the preparation of one process never overlaps with the work of
another. All processes of a group begin together.
"""

import importlib
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

PROCESSES = 2


class Failed(Exception):
    """A task raised; the text says what."""


class Workers:
    """Processes with Django set up on one database."""

    def __init__(self, environment: Mapping[str, str], *, processes: int = PROCESSES) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            pipe, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, dict(environment)), daemon=True)
            process.start()
            other.close()
            self._pipes.append(pipe)
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [process.pid for process in self._processes if process.pid]

    def call(self, task: str, *arguments: Any) -> Any:
        """Run one task, "module:function", in the first process, and return its result."""
        self._pipes[0].send(("call", task, arguments))
        return _answer(self._pipes[0])

    def timed(self, task: str, arguments: Sequence[tuple[Any, ...]]) -> tuple[float, list[Any]]:
        """
        Let each process prepare the task with arguments of its own, then run what they returned, all at once.

        Returns the seconds from the common start to the last end, and what each returned.
        """
        pipes = self._pipes[: len(arguments)]
        for pipe, own in zip(pipes, arguments, strict=True):
            pipe.send(("prepare", task, own))
        for pipe in pipes:
            _answer(pipe)
        began = time.perf_counter()
        for pipe in pipes:
            pipe.send(("go", "", ()))
        ended = [_answer(pipe) for pipe in pipes]
        return max(end for end, _ in ended) - began, [result for _, result in ended]

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)


def _answer(pipe: Connection) -> Any:
    failure, result = pipe.recv()
    if failure:
        raise Failed(failure)
    return result


def _serve(pipe: Connection, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    import django

    django.setup()
    prepared: Callable[[], Any] = lambda: None  # noqa: E731
    while True:
        try:
            what, task, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if what == "go":
                result: Any = prepared()
                pipe.send(("", (time.perf_counter(), result)))
                continue
            module, _, name = task.partition(":")
            result = getattr(importlib.import_module(module), name)(*arguments)
            if what == "prepare":
                prepared, result = result, None
            pipe.send(("", result))
        except Exception as error:
            pipe.send((f"{type(error).__name__}: {error}", None))
