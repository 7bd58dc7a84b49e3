"""
`make run`: one installation on one machine, from nothing to a served page.

    python -m billing_site.launcher

Starts the servers that the environment names none of, brings the database up to date, creates the first admin and the
first API key, loads the demo data, and runs web server, worker and scheduler until Ctrl-C or until one of them ends.
`.env.example` explains the variables: DATA_DIR, HOST, PORT, SITE_URL, DEMO, DATABASE_URL, REDIS_URL, SECRET_KEY.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import environ

from billing_site.carriers import CannotStart
from billing_site.embedded import Servers, servers
from billing_site.instance import READER_ROLE, write_private
from billing_site.supervisor import ChildEnded, child, end_with_parent, wait_until, watch

BASE_DIR = Path(__file__).resolve().parent.parent
PAGE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the environment asks for."""

    data_dir: Path
    host: str
    port: int
    site_url: str
    demo: bool
    database_url: str | None
    redis_url: str | None
    secret_key: str | None

    @classmethod
    def from_environment(cls) -> "Plan":
        """Read the environment, and for what it does not say the file `.env`."""
        env = environ.Env()
        if env_file := env.str("ENV_FILE", default=str(BASE_DIR / ".env")):
            environ.Env.read_env(env_file)
        port = env.int("PORT", default=8000)
        return cls(
            data_dir=Path(env.str("DATA_DIR", default="") or BASE_DIR / ".data").resolve(),
            host=env.str("HOST", default="127.0.0.1"),
            port=port,
            site_url=env.str("SITE_URL", default=f"http://localhost:{port}").rstrip("/"),
            demo=env.bool("DEMO", default=True),
            database_url=env.str("DATABASE_URL", default=None),
            redis_url=env.str("REDIS_URL", default=None),
            secret_key=env.str("SECRET_KEY", default=None),
        )


def main() -> int:
    """Run the installation; return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if "--end-with-parent" in sys.argv[1:]:
        end_with_parent(signal.SIGTERM, parent=os.getppid())()
    try:
        run(Plan.from_environment())
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
        return 0
    except (CannotStart, ChildEnded, TimeoutError) as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Unwind once; while everything is being stopped in order, a second Ctrl-C changes nothing."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    print("\nStopping …", flush=True)
    raise KeyboardInterrupt


def run(plan: Plan) -> None:
    """Start everything and watch over it. Ends by KeyboardInterrupt, or by an exception that names what ended."""
    began = time.monotonic()
    _require_free_port(plan)
    with ExitStack() as stack:
        print(f"Starting {_own_servers(plan)}; files are in {plan.data_dir} …", flush=True)
        started = stack.enter_context(servers(plan.data_dir, postgres=not plan.database_url, valkey=not plan.redis_url))
        environment = stack.enter_context(_environment(plan, started))
        _prepare(plan, environment)
        running = list(started.children())
        for name, command in commands(plan).items():
            log = plan.data_dir / "logs" / f"{name}.log"
            running.append(stack.enter_context(child(name, command, log=log, cwd=BASE_DIR, env=environment)))
        wait_until(lambda: page_answers(plan), running=running, timeout=PAGE_SECONDS, what=f"Port {plan.port}")
        print(_welcome(plan, seconds=time.monotonic() - began), flush=True)
        watch(running)


def _own_servers(plan: Plan) -> str:
    given = {"PostgreSQL": plan.database_url, "Valkey": plan.redis_url}
    return " and ".join(name for name, url in given.items() if not url) or "with the servers that are given"


# Sixty threads that each have a heap of the allocator's own keep a hundred megabytes that none of them uses.
TUNING = {"MALLOC_ARENA_MAX": "2"}


def commands(plan: Plan) -> Mapping[str, Sequence[str]]:
    """Return the commands of the web server, the worker of all queues, and the scheduler, by name."""
    celery = [sys.executable, "-m", "celery", "--app", "billing_site.celery"]
    return {
        "web": [
            *(sys.executable, "-m", "granian", "--interface", "wsgi", "billing_site.wsgi:application"),
            *("--host", plan.host, "--port", str(plan.port), "--workers", "2", "--blocking-threads", "64"),
            *("--backlog", "2048", "--respawn-failed-workers", "--workers-kill-timeout", "8"),
        ],
        "worker": [
            *(*celery, "worker", "--queues", "default,overage,closing", "--concurrency", "2"),
            *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
        ],
        "beat": [*celery, "beat", "--loglevel", "WARNING", "--schedule", str(plan.data_dir / "beat-schedule")],
    }


@contextmanager
def _environment(plan: Plan, started: Servers) -> Iterator[dict[str, str]]:
    """
    Yield the environment of every process of the installation.

    Meanwhile its own part lies in the data directory, where `manage.py` finds it (see settings).
    """
    own = {
        "DATABASE_URL": plan.database_url or started.database_url,
        "REDIS_URL": plan.redis_url or started.redis_url,
        "SECRET_KEY": plan.secret_key or started.secret_key,
        "SITE_URL": plan.site_url,
        "DATA_DIR": str(plan.data_dir),
        # Whoever brings a PostgreSQL says itself which role of it only reads.
        **({"DATABASE_READER_ROLE": READER_ROLE} if started.postgres else {}),
    }
    file = plan.data_dir / "environment"
    write_private(file, "".join(f"{name}='{value}'\n" for name, value in own.items()))
    try:
        yield {**TUNING, **os.environ, **own, "DJANGO_SETTINGS_MODULE": "billing_site.settings"}
    finally:
        file.unlink(missing_ok=True)


def _prepare(plan: Plan, environment: Mapping[str, str]) -> None:
    """Run migrations and, on the first start, make the admin, the API key and the demo data."""
    command = [sys.executable, str(BASE_DIR / "manage.py"), "prepare"]
    if plan.demo:
        command += ["--demo-marker", str(plan.data_dir / "demo-unfinished")]
    completed = subprocess.run(
        command,
        cwd=BASE_DIR,
        env=environment,
        start_new_session=True,
        preexec_fn=end_with_parent(signal.SIGTERM, parent=os.getpid()),
    )
    if completed.returncode:
        raise CannotStart(f"Preparing the database failed (exit status {completed.returncode}); see above.")


def _require_free_port(plan: Plan) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((plan.host, plan.port))
        except OSError as error:
            raise CannotStart(
                f"{plan.host}:{plan.port} cannot be used ({error.strerror}). Choose another: PORT={plan.port + 1} make run"
            ) from None


def page_answers(plan: Plan) -> bool:
    """Whether the web server is up, and reaches what it needs."""
    host = "127.0.0.1" if plan.host == "0.0.0.0" else plan.host
    request = Request(f"http://{host}:{plan.port}/readyz", headers={"Host": urlsplit(plan.site_url).netloc})
    try:
        with urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:  # nobody listens yet, or the answer is a 503
        return False


def _welcome(plan: Plan, *, seconds: float) -> str:
    pages = {
        "Home": "/",
        "Admin": "/admin/",
        "API": "/api/v1/",
        "API documentation": "/api/docs/",
        "OpenAPI schema": "/api/schema/",
        "Health": "/healthz",
        "Readiness": "/readyz",
    }
    lines = [f"    {name:<18} {plan.site_url}{path}" for name, path in pages.items()]
    return "\n".join(
        [
            "",
            f"Tierbook runs (started in {seconds:.1f} s).",
            *lines,
            f"    {'Logs':<18} {plan.data_dir / 'logs'}",
            "Ctrl-C stops everything.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
