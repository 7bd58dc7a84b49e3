"""The product as `make run` starts it: a launcher in a process of its own, with everything that it starts."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.processes import descendants_of

ROOT = Path(__file__).parents[1]
# What the tests' own servers are, and whatever a developer has set, is none of its business.
NOT_INHERITED = {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "SITE_URL", "DATA_DIR", "DJANGO_SETTINGS_MODULE", "DEBUG"}


class Launched:
    """A launcher that was started, and what it has printed so far."""

    def __init__(self, data_dir: Path, *, demo: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        self._own = {"DATA_DIR": str(data_dir), "PORT": str(self.port), "DEMO": str(int(demo)), "ENV_FILE": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "billing_site.launcher", "--end-with-parent"],
            cwd=ROOT,
            env={**kept, **self._own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed = ""

    @property
    def url(self) -> str:
        """Where it is served."""
        return f"http://localhost:{self.port}"

    def until_served(self) -> "Launched":
        """Wait until it says that it is served."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if line.startswith("Ctrl-C"):
                return self
        raise AssertionError(self.printed)

    def manage(self, *arguments: str) -> str:
        """Run a command of manage.py, which finds the running servers, and return what it prints."""
        environment = {"PATH": os.environ["PATH"], **self._own}
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it, and return its exit status."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end, and return its exit status."""
        self.printed += self.process.communicate(timeout=60)[0]
        return self.process.returncode

    def descendants(self) -> list[int]:
        """Return its processes."""
        return descendants_of(self.process.pid)
