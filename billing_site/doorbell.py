"""
Rings Celery by task name after commit, and never makes a stored row wait for a broker.

A ring is a hint: the work it announces is a row in PostgreSQL, and a sweeper finds the rows whose ring was lost. So a ring that
cannot be sent is dropped and counted, never repeated, and never an error.
"""

import functools
import logging
import os
import queue
import threading
from typing import Any

from celery import Celery
from django.db import DEFAULT_DB_ALIAS, transaction

logger = logging.getLogger(__name__)

QUEUE_MAX = 1_000
TIMEOUT_SECONDS = 0.2

# Kombu retries a connection for ever unless told otherwise; Redis and RabbitMQ each read their own names here.
_BROKER_OPTIONS = {
    "socket_timeout": TIMEOUT_SECONDS,
    "socket_connect_timeout": TIMEOUT_SECONDS,
    "retry_on_timeout": False,
    "read_timeout": TIMEOUT_SECONDS,
    "write_timeout": TIMEOUT_SECONDS,
    "max_retries": 0,
    "interval_start": 0,
}


def ring(name: str, *args: Any, using: str = DEFAULT_DB_ALIAS) -> None:
    """
    Send the task `name` with `args` (JSON values, ids as a rule) once the running transaction has committed; at once if none runs.

    Returns without touching the network; a rollback rings nothing. `invoices.book_overage` is such a name.
    """
    transaction.on_commit(functools.partial(_bell.push, name, args), using=using, robust=True)


def counts() -> dict[str, int]:
    """Return how many rings this process has sent, failed to send, and dropped from a full queue; for /metrics."""
    return {"sent": _bell.sent, "failed": _bell.failed, "dropped": _bell.dropped}


@functools.cache
def _app() -> Celery:
    # Celery's current app belongs to the thread that made it; in any other, `current_app` is an unconfigured default that
    # talks to localhost. Sending by name needs the settings alone.
    app = Celery("doorbell", set_as_current=False, fixups=[])
    app.config_from_object("django.conf:settings", namespace="CELERY")
    return app


class _Bell:
    """A bounded queue and the daemon thread that empties it. The thread starts with the first ring."""

    def __init__(self) -> None:
        self.sent = self.failed = self.dropped = 0
        self._queue: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(QUEUE_MAX)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._producer: Any = None

    def push(self, name: str, args: tuple[Any, ...]) -> None:
        try:
            self._queue.put_nowait((name, args))
        except queue.Full:
            self.dropped += 1
            return
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._empty, name="doorbell", daemon=True)
                thread.start()
                self._thread = thread

    def _empty(self) -> None:
        while True:
            name, args = self._queue.get()
            try:
                self._send(name, args)
            except Exception as error:
                self._note_failure(name, error)
            else:
                self.sent += 1
                self._silent = False
            finally:
                self._queue.task_done()

    _silent = False

    def _note_failure(self, name: str, error: Exception) -> None:
        self.failed += 1
        if not self._silent:  # once per outage
            logger.warning("could not ring %s: %s; the sweeper will find its row", name, error)
        self._silent = True

    def _send(self, name: str, args: tuple[Any, ...]) -> None:
        if self._producer is not None:
            try:
                self._publish(name, args)
                return
            except Exception:
                # The connection may merely have been idle for too long: a fresh one decides.
                self._hang_up()
        connection = _app().connection_for_write(
            connect_timeout=TIMEOUT_SECONDS, transport_options=dict(_BROKER_OPTIONS)
        )
        self._producer = _app().amqp.Producer(connection, auto_declare=False)
        try:
            self._publish(name, args)
        except Exception:
            self._hang_up()
            raise

    def _publish(self, name: str, args: tuple[Any, ...]) -> None:
        _app().send_task(name, args, producer=self._producer, retry=False, ignore_result=True)

    def _hang_up(self) -> None:
        producer, self._producer = self._producer, None
        try:
            producer.connection.release()
        except Exception as error:
            logger.debug("while hanging up: %s", error)


_bell = _Bell()


def _after_fork() -> None:
    # Threads do not survive a fork, locks and sockets do: the child starts with a bell of its own.
    global _bell
    _bell = _Bell()


os.register_at_fork(after_in_child=_after_fork)
