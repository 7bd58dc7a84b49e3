"""The product's own processes on the tests' servers, started by the launcher's commands, to be killed at will."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg
from django.db import connection

from billing_site.launcher import BASE_DIR, Plan, commands, page_answers
from billing_site.supervisor import Child, child, wait_until
from examples.replay_trace import Api
from subscriptions.services.keys import issue_key
from tests.processes import descendants_of, is_running, owner_of_port

Found = TypeVar("Found")

START_SECONDS = 60
POOL_CHILDREN = 2
WEB_WORKERS = 2
# granian takes a worker that ends within 5.5 s of its start for a fault of the program, and ends itself: who supervises it starts it anew.
CRASH_LOOP_SECONDS = 6


class Installation:
    """
    Web server, worker and scheduler of one installation; whichever were started end with the context.

    On the tests' servers, unless other addresses are given; `key` is then an API key that is stored there. `variables` are added to the
    environment of every process.
    """

    def __init__(
        self,
        directory: Path,
        *,
        database: str | None = None,
        redis: str | None = None,
        key: str | None = None,
        **variables: str,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._plan = Plan(
            data_dir=directory,
            host="127.0.0.1",
            port=self.port,
            site_url=f"http://127.0.0.1:{self.port}",
            demo=False,
            database_url=database or database_url(),
            redis_url=redis or os.environ["REDIS_URL"],
            secret_key=os.environ["SECRET_KEY"],
        )
        self._running: dict[str, tuple[ExitStack, Child]] = {}
        self._killed_at: dict[str, float] = {}
        servers = {"DATABASE_URL": self._plan.database_url, "REDIS_URL": self._plan.redis_url}
        self.environment = {**os.environ, **servers, **variables}
        if "DATABASE_POOL_SIZE" not in variables:
            self.environment.pop("DATABASE_POOL_SIZE", None)  # that of this test run, not the product's
        self.url = self._plan.site_url
        self.key = key or issue_key(name="test", scopes=["ingest", "gate", "read", "manage"], actor="system")[1]
        self.api = Api(self.url, self.key)

    def __enter__(self) -> "Installation":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for name in list(self._running):
            self.stop(name)

    def start(self, *names: str) -> None:
        """
        Start `web`, `worker` or `beat`, and return when they are at work.

        A name may end in a number: `beat 2` is another beat, as on another machine.
        """
        for name in names:
            kind, _, number = name.partition(" ")
            directory = self._plan.data_dir / number
            directory.mkdir(exist_ok=True)
            command = commands(dataclasses.replace(self._plan, data_dir=directory))[kind]
            stack = ExitStack()
            options = {"log": directory / "logs" / f"{kind}.log", "cwd": BASE_DIR, "env": self.environment}
            self._running[name] = (stack, stack.enter_context(child(name, command, **options)))
        ready = {
            "web": lambda name: self._listens(name) and page_answers(self._plan),
            "worker": lambda name: len(self.processes(name)) > POOL_CHILDREN,
        }
        for name in names:
            if is_ready := ready.get(name.partition(" ")[0]):
                waiting = partial(is_ready, name)
                wait_until(waiting, running=[self._running[name][1]], timeout=START_SECONDS, what=name)

    def _listens(self, name: str) -> bool:
        """Whether both workers of a web server listen: several servers may share the port."""
        workers = self.processes(name)[1:]
        return len(workers) == WEB_WORKERS and all(owner_of_port(self.port, among=[worker]) for worker in workers)

    def stop(self, name: str) -> None:
        """End a process and all that it left behind."""
        self._running.pop(name)[0].close()

    def restart(self, name: str) -> None:
        """Start a process again that has been killed, as whatever supervises an installation does."""
        self.stop(name)
        self.start(name)

    def processes(self, name: str) -> list[int]:
        """Return the process ids of a process and its children, its own first."""
        main = self._running[name][1].process.pid
        return [main, *descendants_of(main)]

    def kill(self, process_id: int) -> None:
        """kill -9, in the middle of whatever it is doing."""
        os.kill(process_id, signal.SIGKILL)
        until(lambda: not is_running(process_id), what=f"the end of process {process_id}")

    def kill_a_child(self, name: str) -> None:
        """Kill a web worker, or a child of Celery's pool."""
        self._kill_a_worker(name, lambda: self.processes(name)[1:2], what=f"a child of the {name}")

    def kill_who_waits(self, name: str, lock: "Lock") -> None:
        """Wait until `name`, or a child of it, waits for the lock, and kill that process."""

        def waiting() -> list[int]:
            owners = (owner_of_port(port, among=self.processes(name)) for port in lock.ports_that_wait())
            return list(filter(None, owners))

        self._kill_a_worker(name, waiting, what=f"a process of the {name} that waits for the lock")

    def _kill_a_worker(self, name: str, find: Callable[[], list[int]], *, what: str) -> None:
        """Kill the first that is found; one of a web server no sooner than that server forgives."""
        if killed_at := self._killed_at.get(name):
            time.sleep(max(0.0, killed_at + CRASH_LOOP_SECONDS - time.monotonic()))
        self.kill(until(find, what=what)[0])
        if name.startswith("web"):
            self._killed_at[name] = time.monotonic()

    def audit(self) -> str:
        """Run `manage.py audit`, and return what it prints; it must find nothing."""
        command = [sys.executable, "manage.py", "audit"]
        completed = subprocess.run(command, cwd=BASE_DIR, env=self.environment, capture_output=True, text=True)
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout


class Lock:
    """A row lock that the test holds on a connection of its own."""

    def __init__(self, holder: psycopg.Connection) -> None:
        self._holder = holder

    def ports_that_wait(self) -> list[int]:
        """Return the local ports of the clients that wait for it, also behind others that do."""
        own = self._holder.info.backend_pid
        with connection.cursor() as cursor:
            cursor.execute(
                """
                WITH RECURSIVE waiting (pid) AS (
                    SELECT %s::int
                    UNION SELECT a.pid FROM pg_stat_activity a JOIN waiting w ON w.pid = ANY (pg_blocking_pids(a.pid))
                ) SELECT client_port FROM waiting JOIN pg_stat_activity USING (pid) WHERE pid <> %s
                """,
                [own, own],
            )
            return [port for (port,) in cursor]


@contextmanager
def held(statement: str, *parameters: object) -> Iterator[Lock]:
    """Hold the rows that a `SELECT … FOR UPDATE` finds, for the length of the context."""
    with psycopg.connect(database_url()) as holder:
        found = holder.execute(statement, parameters).fetchall()
        assert found, "there is no such row to lock"
        yield Lock(holder)
        holder.rollback()


def until(find: Callable[[], Found | None], *, what: str, seconds: float = 60) -> Found:
    """Ask until something is found, and return it."""
    give_up_at = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < give_up_at, f"waited {seconds} s in vain for {what}"
        time.sleep(0.01)
    return found


def database_url() -> str:
    """Return the address of the test database."""
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}"))
