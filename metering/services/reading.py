"""
Balances for a gateway that asks thousands of times a second: concurrent questions of a process are answered by one query.

One thread and one connection per process, started on first use. What is answered is what PostgreSQL says at that moment: nothing is cached.
"""

import logging
import os
import queue
import threading
from datetime import datetime

from django.db import InterfaceError, OperationalError, connection

from billing_site.http.problems import StorageUnavailable
from metering.selectors.balances import TenantBalances, balances_of_tenants
from metering.services.grouping import Groups, Waiting, wake

logger = logging.getLogger(__name__)

# Tenants in one query.
GROUP_TENANTS = 500
# How long a request waits for its answer before it is told to come back.
ANSWER_SECONDS = 10

_Question = tuple[str, datetime]
_Group = list[Waiting[_Question, TenantBalances | None]]


class _Reader:
    """The queue and the thread of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.groups: Groups[_Question, TenantBalances | None] = Groups(size_of=lambda _: 1, size_max=GROUP_TENANTS)
        threading.Thread(target=self._run, name="balance-reader", daemon=True).start()

    def _run(self) -> None:
        while True:
            _answer(self.groups.next())


_reader: _Reader | None = None
_starting = threading.Lock()


def read_balances(code: str, *, wall: datetime) -> TenantBalances | None:
    """
    Return where the tenant's pools stand; None where there is no such tenant.

    Inside of a transaction its own connection is asked, which sees what it wrote. Raises StorageUnavailable (503).
    """
    if connection.in_atomic_block:
        return balances_of_tenants([code], wall=wall).get(code)
    # A thread that waits must hold no connection: the pool is small.
    connection.close()
    try:
        return _of_this_process().groups.ask((code, wall), seconds=ANSWER_SECONDS)
    except (queue.Full, TimeoutError):
        raise StorageUnavailable("Too many requests are waiting to be read.") from None


def _of_this_process() -> _Reader:
    global _reader
    reader = _reader
    if reader is None or reader.pid != os.getpid():
        with _starting:
            if _reader is None or _reader.pid != os.getpid():
                _reader = _Reader()
            reader = _reader
    return reader


def _answer(group: _Group) -> None:
    """Answer a group; where that fails, each alone, so that a tenant whose balances cannot be read fails alone. Never raises."""
    try:
        found = _read(group)
    except Exception as error:
        if len(group) == 1 or isinstance(error, OperationalError | InterfaceError):
            logger.error("balances of %d tenants were not read", len(group), exc_info=error)
            for one in group:
                one.fail(error)
            wake(group)
            return
        for one in group:
            _answer([one])
        return
    for one in group:
        one.answer(found.get(one.question[0]))
    wake(group)


def _read(group: _Group) -> dict[str, TenantBalances]:
    codes = {one.question[0] for one in group}
    wall = max(one.question[1] for one in group)
    try:
        return balances_of_tenants(codes, wall=wall)
    except (OperationalError, InterfaceError):
        # The connection may have broken since it was used last: a new one decides.
        connection.close()
        return balances_of_tenants(codes, wall=wall)
