"""
The processes of a run: PostgreSQL, Valkey and the web server, all durable and configured as in `make run`, and what they use.

Owns their start and end, their addresses and what the kernel says of them. Nothing outlives the run.
"""

import os
import platform
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import psycopg
import redis

from billing_site.embedded import servers
from billing_site.launcher import TUNING, Plan, commands, page_answers
from billing_site.supervisor import Child, child, wait_until

ROOT = Path(__file__).resolve().parent.parent
MAIN_DATABASE = "tierbook"
LOG_LINES, LOG_LINE = 5, 1500
_TICK = os.sysconf("SC_CLK_TCK")


class Stage:
    """Running servers. Enter it from the main thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._valkey_stack = ExitStack()
        self.web: Child | None = None
        self.web_command: list[str] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self) -> "Stage":
        self.postgres = self._stack.enter_context(servers(self._directory / "postgres", valkey=False))
        self.start_valkey()
        self._stack.callback(self.stop_valkey)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_valkey(self) -> None:
        """Start Valkey with what it has stored; a directory of its own, so that it can end alone."""
        self.valkey = self._valkey_stack.enter_context(servers(self._directory / "valkey", postgres=False))

    def stop_valkey(self) -> None:
        """Stop Valkey."""
        self._valkey_stack.close()

    @contextmanager
    def without_valkey(self) -> Iterator[None]:
        """Do something while Valkey is down."""
        self.stop_valkey()
        try:
            yield
        finally:
            self.start_valkey()

    def environment(self, database: str = MAIN_DATABASE) -> dict[str, str]:
        """Return what a Django process of this stage finds in its environment."""
        return {
            "DATABASE_URL": _database(self.postgres.database_url, database),
            "REDIS_URL": self.valkey.redis_url,
            "SECRET_KEY": self.postgres.secret_key,
            "SITE_URL": f"http://localhost:{self.port}",
            "DATA_DIR": str(self._directory),
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "ENV_FILE": "",
            "DEBUG": "0",
        }

    def start_web(self) -> None:
        """Start the web server by the command of `make run`."""
        environment = self.environment()
        plan = Plan(
            data_dir=self._directory,
            host="127.0.0.1",
            port=self.port,
            site_url=environment["SITE_URL"],
            demo=False,
            database_url=environment["DATABASE_URL"],
            redis_url=environment["REDIS_URL"],
            secret_key=environment["SECRET_KEY"],
        )
        self.web_command = list(commands(plan)["web"])
        log = self._directory / "logs" / "web.log"
        running = child("web", self.web_command, log=log, cwd=ROOT, env={**TUNING, **os.environ, **environment})
        self.web = self._stack.enter_context(running)
        wait_until(lambda: page_answers(plan), running=[self.web], timeout=60, what="The web server")

    @property
    def web_workers(self) -> int:
        """The number of the web server's workers."""
        return int(self._web_option("--workers"))

    def _web_option(self, name: str) -> str:
        return self.web_command[self.web_command.index(name) + 1] if name in self.web_command else "1"

    def superuser(self, database: str = MAIN_DATABASE) -> psycopg.Connection:
        """Connect as the administrator; writes of this connection pass no trigger and no foreign key."""
        return psycopg.connect(self.superuser_url(database), autocommit=True)

    def superuser_url(self, database: str = MAIN_DATABASE) -> str:
        """Return where the administrator connects."""
        url = _database(self.postgres.superuser_url, database)
        return f"{url}?options=-c%20session_replication_role%3Dreplica%20-c%20jit%3Doff"

    def copy_database(self, name: str) -> None:
        """Make a copy of the main database, to which nobody may be connected."""
        with self.superuser("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {MAIN_DATABASE} OWNER tierbook")

    def web_errors(self) -> str:
        """Return the end of what the web server logged as errors."""
        lines = (self._directory / "logs" / "web.log").read_text(errors="replace").splitlines()
        return "\n".join([line[:LOG_LINE] for line in lines if '"error"' in line or "Traceback" in line][-LOG_LINES:])

    def cpu(self) -> dict[str, float]:
        """Return the seconds of CPU that each server has used so far, with all of its processes."""
        roots = {"web": self.web, "postgres": self.postgres.postgres, "redis": self.valkey.valkey}
        return {name: cpu_of_tree(one.process.pid) if one else 0.0 for name, one in roots.items()}

    def web_memory(self) -> list[int]:
        """Return the resident bytes of each worker of the web server."""
        assert self.web is not None
        workers = [pid for pid in _tree(self.web.process.pid) if pid != self.web.process.pid]
        return sorted(filter(None, map(_resident, workers)), reverse=True)

    def facts(self) -> Mapping[str, str]:
        """Return what the figures depend on."""
        with self.superuser() as connection:
            postgres = connection.execute("SHOW server_version").fetchone()
            settings = connection.execute(
                "SELECT string_agg(name || ' ' || setting, ', ' ORDER BY name) FROM pg_settings"
                " WHERE name IN ('fsync', 'synchronous_commit', 'wal_compression', 'full_page_writes')"
            ).fetchone()
        assert postgres is not None
        assert settings is not None
        with redis.Redis.from_url(self.valkey.redis_url) as client:
            info = client.info("server")
        return {
            "machine": f"{os.cpu_count()} cores, {_cpu_model()}, {platform.system()} {platform.machine()}",
            "Python": f"{platform.python_version()}, Django {version('django')}, psycopg {version('psycopg')}",
            "PostgreSQL": f"{postgres[0]} ({settings[0]})",
            "Valkey": str(info.get("valkey_version") or info["redis_version"]) + " (appendonly)",
            "web": f"granian {version('granian')}, {self.web_workers} workers, "
            f"{self._web_option('--blocking-threads')} blocking threads each",
        }


def _database(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown model"


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the third on; none for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _tree(root: int) -> list[int]:
    """Return a process and all of its descendants."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (stat := _stat(int(name))):
            parents.setdefault(int(stat[1]), []).append(int(name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def cpu_of_tree(root: int) -> float:
    """Return the seconds of CPU, user and system, that a process and its descendants have used, with those that have ended."""
    return sum(sum(map(int, stat[11:15])) for stat in map(_stat, _tree(root)) if stat) / _TICK


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    kilobytes = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")]
    return kilobytes[0] * 1024 if kilobytes else 0
