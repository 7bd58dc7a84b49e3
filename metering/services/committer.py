"""
Group commit: the concurrent requests of a web process are written as one transaction.

One thread and one connection per process, started on first use. A hot tenant's row lock and the flush to disk are paid once for all
requests that arrived meanwhile; no request waits for more than the transaction before its own. Exactness is not its business: every
transaction is `record_events`, which is exact for one request as for many.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError, connection

from billing_site.database import run_with_retries, sqlstate, uuid7
from billing_site.http.problems import DomainError
from metering.services.ingest import record_events
from metering.services.requests import IngestReport, Record

logger = logging.getLogger(__name__)

# Requests that may wait; beyond it the caller is told to come back. A thread waits for each, so servers bound it, too.
QUEUE_SIZE = 2048
# A group takes no more events than one large batch has, so that nobody waits long behind many.
GROUP_EVENTS = 2000
# How long a group waits for a lock before it is split by tenant, so that only the blocked tenant waits.
GROUP_LOCK_TIMEOUT_MS = 300
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
        super().__init__(f"{detail} Send the same events again: what is stored already is answered as a duplicate.",
                         headers={"Retry-After": "1"})  # fmt: skip


class _Committer:
    """The queue and the thread of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._waiting: queue.Queue[tuple[Record, Future[IngestReport]]] = queue.Queue(QUEUE_SIZE)
        threading.Thread(target=self._run, name="committer", daemon=True).start()

    def submit(self, request: Record) -> IngestReport:
        answer: Future[IngestReport] = Future()
        try:
            self._waiting.put_nowait((request, answer))
        except queue.Full:
            raise StorageUnavailable("Too many requests are waiting to be stored.") from None
        try:
            return answer.result(timeout=ANSWER_SECONDS)
        except TimeoutError:
            raise StorageUnavailable("The events were not stored in time.") from None

    def _run(self) -> None:
        while True:
            group = self._next_group()
            try:
                _write(group)
            except Exception as error:  # the thread must outlive whatever a group does
                logger.exception("a group of %d requests failed", len(group))
                for _, answer in group:
                    if not answer.done():
                        answer.set_exception(error)

    def _next_group(self) -> list[tuple[Record, "Future[IngestReport]"]]:
        """Wait for a request, and take with it all that have arrived meanwhile."""
        group = [self._waiting.get()]
        events = len(group[0][0].events)
        while events < GROUP_EVENTS:
            try:
                group.append(self._waiting.get_nowait())
            except queue.Empty:
                break
            events += len(group[-1][0].events)
        return group


_Group = Sequence[tuple[Record, "Future[IngestReport]"]]

_committer: _Committer | None = None
_starting = threading.Lock()


def submit(request: Record) -> IngestReport:
    """
    Write a request together with those that arrive at the same time, and return what became of it.

    Returns when the events are durable. Raises StorageUnavailable when they are not, or when that is not known: the same request may
    be sent again at any time.
    """
    global _committer
    committer = _committer
    if committer is None or committer.pid != os.getpid():
        with _starting:
            if _committer is None or _committer.pid != os.getpid():
                _committer = _Committer()
            committer = _committer
    return committer.submit(request)


def _write(group: _Group) -> None:
    """Write a group in one transaction; where that fails, find out what is stored, and write the rest in smaller ones."""
    posting_id = uuid7()
    for pause in (*RECONNECTION_PAUSES, None):
        try:
            _answer(group, _record(group, posting_id))
            return
        except (OperationalError, InterfaceError) as error:
            if sqlstate(error) == LOCK_NOT_AVAILABLE and len(group) > 1:
                _write_by_tenant(group)
                return
            logger.warning("a group of %d requests was not stored at once: %s", len(group), error)
            # The connection broke, perhaps in the middle of COMMIT. The same posting id tells own writes from others'.
            connection.close()
            if pause is None:
                raise StorageUnavailable("The database did not answer.") from error
            time.sleep(pause)
        except DatabaseError:
            if len(group) == 1:
                raise
            logger.exception("a group of %d requests is written one by one", len(group))
            _write_each(group)
            return


def _record(group: _Group, posting_id: UUID) -> list[IngestReport]:
    timeout = GROUP_LOCK_TIMEOUT_MS if len(group) > 1 else None
    requests = [request for request, _ in group]
    return run_with_retries(lambda: record_events(requests, posting_id=posting_id, lock_timeout_ms=timeout))


def _write_by_tenant(group: _Group) -> None:
    """Write each tenant's requests apart, so that only those of the blocked one wait; mixed batches go alone."""
    parts: dict[object, list[tuple[Record, Future[IngestReport]]]] = {}
    for index, (request, answer) in enumerate(group):
        subjects = {getattr(event, "subject", None) for event in request.events}
        key = next(iter(subjects)) if len(subjects) == 1 else index
        parts.setdefault(key, []).append((request, answer))
    if len(parts) == 1:
        _write_each(group)
        return
    for part in parts.values():
        _guarded(part)


def _write_each(group: _Group) -> None:
    for one in group:
        _guarded([one])


def _guarded(part: _Group) -> None:
    """Write a part of a failed group; its failure is its own."""
    try:
        _write(part)
    except Exception as error:
        for _, answer in part:
            answer.set_exception(error)


def _answer(group: _Group, reports: Sequence[IngestReport]) -> None:
    for (_, answer), report in zip(group, reports, strict=True):
        answer.set_result(report)
