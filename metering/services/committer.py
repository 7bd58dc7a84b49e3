"""
Group commit: the concurrent requests of a web process are written as one transaction.

One thread and one connection per process, started on first use. A hot tenant's row lock and the flush to disk are paid once for all
requests that arrived meanwhile; no request waits for more than the transaction before its own. Exactness is not its business: every
transaction is `record_events` or the gate's `perform`, which are exact for one request as for many. Of a group that has both, events come first.

A tenant whose balance somebody else holds (a closing, a change) waits apart, on one of few patient threads, and the others go on.
"""

import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection

from billing_site.database import run_with_retries, sqlstate, uuid7
from billing_site.http.problems import DomainError
from metering.services.gate import perform
from metering.services.grouping import Groups, Waiting, wake
from metering.services.ingest import record_events
from metering.services.requests import (
    Authorize,
    Ended,
    Extend,
    GateAnswer,
    GateRequest,
    IngestReport,
    NewEvent,
    Record,
    Release,
    Settle,
)

logger = logging.getLogger(__name__)

# A group takes no more events than one large batch has, so that nobody waits long behind many.
GROUP_EVENTS = 2000
# How long a group waits for a lock before it is split by tenant; the blocked tenant then waits on a thread of its own.
GROUP_LOCK_TIMEOUT_MS = 200
# Threads (and connections) on which blocked tenants wait.
PATIENT_THREADS = 2
# How long a request waits for its answer before it is told to come back with the same events.
ANSWER_SECONDS = 30
# Seconds between attempts on a new connection when one has broken; then the request is answered with 503.
RECONNECTION_PAUSES = (0.0, 0.1, 0.4)
LOCK_NOT_AVAILABLE = "55P03"


class StorageUnavailable(DomainError):
    """Nothing was stored, or it is not known; send the same events again."""

    status = 503
    code = "storage_unavailable"
    title = "Storage unavailable"

    def __init__(self, detail: str) -> None:
        super().__init__(f"{detail} Send the same request again: what is stored already is not counted again.",
                         headers={"Retry-After": "1"})  # fmt: skip


Question = Record | GateRequest
_Group = Sequence[Waiting[Question, Any]]


class _Committer:
    """The queue and the threads of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._groups: Groups[Question, Any] = Groups(size_of=_size, size_max=GROUP_EVENTS)
        self._patient = ThreadPoolExecutor(PATIENT_THREADS, thread_name_prefix="committer-patient")
        # Tenants whose balance somebody else holds, by the number of groups that wait for it.
        self._blocked: Counter[str] = Counter()
        threading.Thread(target=self._run, name="committer", daemon=True).start()

    def submit(self, request: Question) -> Any:
        try:
            return self._groups.ask(request, seconds=ANSWER_SECONDS)
        except queue.Full:
            raise StorageUnavailable("Too many requests are waiting to be stored.") from None
        except TimeoutError:
            raise StorageUnavailable("The request was not stored in time.") from None

    def _run(self) -> None:
        while True:
            group = self._groups.next()
            waiting_apart = [one for one in group if self._blocked and _subjects(one) & self._blocked.keys()]
            for part in _by_kind(waiting_apart):
                self._wait_apart(part)
            at_once = [one for one in group if one not in waiting_apart] if waiting_apart else group
            for part in _by_kind(at_once):
                self._write_at_once(part)

    def _write_at_once(self, group: _Group) -> None:
        """Write a group without waiting long for a lock; where one is held, only the tenant that needs it waits, apart."""
        try:
            _write(group, lock_timeout_ms=GROUP_LOCK_TIMEOUT_MS)
        except LockHeld:
            parts = _by_tenant(group)
            if len(parts) == 1:
                self._wait_apart(group)
                return
            for part in parts:
                self._write_at_once(part)
        except Exception as error:  # the thread must outlive whatever a group does
            _fail(group, error)

    def _wait_apart(self, group: _Group) -> None:
        subjects = set().union(*(_subjects(one) for one in group))
        self._blocked.update(subjects)
        self._patient.submit(self._wait_and_write, group, subjects)

    def _wait_and_write(self, group: _Group, subjects: set[str]) -> None:
        try:
            _write(group, lock_timeout_ms=None)
        except LockHeld:
            _fail(group, StorageUnavailable("The tenant's balance is held by another transaction."))
        except Exception as error:
            _fail(group, error)
        finally:
            self._blocked -= Counter(subjects)


_committer: _Committer | None = None
_starting = threading.Lock()


@overload
def submit(request: Record) -> IngestReport: ...
@overload
def submit(request: Authorize | Extend) -> GateAnswer: ...
@overload
def submit(request: Settle | Release) -> Ended: ...
def submit(request: Question) -> IngestReport | GateAnswer | Ended:
    """
    Write a request together with those that arrive at the same time, and return what became of it.

    Returns when that is durable. Raises StorageUnavailable when it is not, or when that is not known: the same request may be sent again
    at any time. Raises the gate's refusals.
    """
    global _committer
    # A thread that waits must hold no connection: the pool is small, and the committer itself needs one.
    if connection.connection is not None and not connection.in_atomic_block:
        connection.close()
    committer = _committer
    if committer is None or committer.pid != os.getpid():
        with _starting:
            if _committer is None or _committer.pid != os.getpid():
                _committer = _Committer()
            committer = _committer
    return committer.submit(request)


class LockHeld(Exception):
    """Another transaction holds a balance; nothing was written."""


def _write(group: _Group, *, lock_timeout_ms: int | None) -> None:
    """
    Write a group in one transaction, and answer its requests.

    When the connection breaks, perhaps in the middle of COMMIT, it is asked again on a new one what is stored. Raises LockHeld, or
    StorageUnavailable when the database does not come back. A group that fails otherwise is written one by one, so that a request
    that cannot be written fails alone.
    """
    group_id = uuid7()
    for pause in (*RECONNECTION_PAUSES, None):
        try:
            answers = run_with_retries(lambda: _answers(group, group_id, lock_timeout_ms))
        except (OperationalError, InterfaceError) as error:
            if sqlstate(error) == LOCK_NOT_AVAILABLE:
                raise LockHeld from error
            logger.warning("a group of %d requests was not stored at once: %s", len(group), error)
            connection.close()
            if pause is None:
                raise StorageUnavailable("The database did not answer.") from error
            time.sleep(pause)
        except Exception:
            if len(group) == 1:
                raise
            logger.exception("a group of %d requests is written one by one", len(group))
            _write_each(group, lock_timeout_ms)
            return
        else:
            for one, answer in zip(group, answers, strict=True):
                if isinstance(answer, DomainError):
                    one.fail(answer)
                else:
                    one.answer(answer)
            wake(group)
            return


def _answers(group: _Group, group_id: UUID, lock_timeout_ms: int | None) -> Sequence[Any]:
    """Write a group of one kind, and return what became of each request: a refusal of the gate stands in the place of an answer."""
    requests: list[Any] = [one.question for one in group]
    if isinstance(requests[0], Record):
        return record_events(requests, posting_id=group_id, lock_timeout_ms=lock_timeout_ms)
    return perform(requests, group_id=group_id, lock_timeout_ms=lock_timeout_ms)


def _write_each(group: _Group, lock_timeout_ms: int | None) -> None:
    for one in group:
        try:
            _write([one], lock_timeout_ms=lock_timeout_ms)
        except LockHeld:
            _fail([one], StorageUnavailable("The tenant's balance is held by another transaction."))
        except Exception as error:
            _fail([one], error)


def _size(request: Question) -> int:
    return len(request.events) if isinstance(request, Record) else 1


def _by_kind(group: _Group) -> list[_Group]:
    """Part a group into events and what asks the gate: a transaction each. Parts that would be empty are left out."""
    events = [one for one in group if isinstance(one.question, Record)]
    if len(events) == len(group):
        return [events] if events else []
    others = [one for one in group if not isinstance(one.question, Record)]
    return [events, others] if events else [others]


def _by_tenant(group: _Group) -> list[_Group]:
    """Part a group by tenant; a batch of several tenants is a part of its own."""
    parts: dict[frozenset[str], list[Waiting[Question, Any]]] = {}
    for one in group:
        parts.setdefault(frozenset(_subjects(one)), []).append(one)
    return list(parts.values())


def _subjects(one: Waiting[Question, Any]) -> set[str]:
    request = one.question
    if isinstance(request, Record):
        return {event.subject for event in request.events if isinstance(event, NewEvent)}
    # Whose an authorization is, is known once it was looked for; that comes before any lock.
    return {request.tenant or str(request.authorization)} if not isinstance(request, Authorize) else {request.tenant}


def _fail(group: _Group, error: Exception) -> None:
    if not isinstance(error, DomainError):
        logger.error("a group of %d requests failed", len(group), exc_info=error)
    for one in group:
        if not one.is_settled:
            one.fail(error)
    wake(group)
