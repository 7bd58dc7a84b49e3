"""
The data directory of an installation that brings its own servers: what it remembers, and who holds it.

Owns ports, passwords and the secret key (`Instance`), and the lock against a second launcher. The servers' own files are
`embedded`'s.
"""

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from billing_site.carriers import CannotStart

LOCALHOST = "127.0.0.1"
SUPERUSER = "postgres"
ROLE = DATABASE = "tierbook"
# The application steps down to it where it only reads.
READER_ROLE = "tierbook_reader"


@dataclass(frozen=True, kw_only=True, repr=False)  # holds passwords
class Instance:
    """What a data directory remembers from one start to the next; its file is readable by its owner only."""

    postgres_port: int
    redis_port: int
    postgres_password: str
    redis_password: str
    secret_key: str

    @classmethod
    def of(cls, data_dir: Path) -> "Instance":
        """Return the directory's instance, made on first use; a port that someone else took meanwhile is replaced."""
        file = data_dir / "instance.json"
        if file.exists():
            known = json.loads(file.read_text())
        else:
            passwords = {name: secrets.token_urlsafe(24) for name in ("postgres_password", "redis_password")}
            known = {"postgres_port": 0, "redis_port": 0, **passwords, "secret_key": secrets.token_urlsafe(50)}
        instance = cls(**{**known, **_free_ports({name: known[name] for name in ("postgres_port", "redis_port")})})
        write_private(file, json.dumps(asdict(instance), indent=2))
        return instance

    @property
    def database_url(self) -> str:
        """Where the application's own role finds its database."""
        return f"postgres://{ROLE}:{self.postgres_password}@{LOCALHOST}:{self.postgres_port}/{DATABASE}"

    @property
    def superuser_url(self) -> str:
        """Where an administrator finds the server; the application never uses it."""
        return f"postgres://{SUPERUSER}:{self.postgres_password}@{LOCALHOST}:{self.postgres_port}/postgres"

    @property
    def redis_url(self) -> str:
        """Where Valkey listens."""
        return f"redis://:{self.redis_password}@{LOCALHOST}:{self.redis_port}/0"


@contextmanager
def held(data_dir: Path) -> Iterator[int]:
    """
    Hold the data directory, and yield the lock's file descriptor.

    The servers inherit it: after a killed launcher the directory stays held until both have finished.
    """
    if not data_dir.exists():
        data_dir.mkdir(parents=True)
        # Root's servers step down to another account, which has to pass; what is secret has a mode of its own.
        data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
    with closing(_LockFile(data_dir / "lock")) as lock:
        for _attempt in range(50):
            if lock.taken():
                break
            if lock.holder_lives():
                raise CannotStart(
                    f"{data_dir} is in use by another launcher (process {lock.holder()}). Stop that one, or choose "
                    "another directory: DATA_DIR=… make run"
                )
            time.sleep(0.2)  # that launcher was killed, and its servers are just finishing
        else:
            raise CannotStart(
                f"{data_dir} is still in use by servers whose launcher (process {lock.holder()}) is gone."
            )
        yield lock.descriptor


class _LockFile:
    """A file that one process holds at a time, with the holder's process id in it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def taken(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, str(os.getpid()).encode(), 0)
        return True

    def holder(self) -> int:
        return int(os.pread(self.descriptor, 20, 0).decode() or 0)

    def holder_lives(self) -> bool:
        try:
            os.kill(self.holder(), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def close(self) -> None:
        os.close(self.descriptor)


def _free_ports(wanted: Mapping[str, int]) -> dict[str, int]:
    """Return a port for each name: the wanted one where nobody listens on it, else one that the kernel chooses."""
    with ExitStack() as stack:
        # All are held until all are chosen, so that no two are the same.
        return {name: _free_port(stack.enter_context(socket.socket()), port) for name, port in wanted.items()}


def _free_port(listener: socket.socket, wanted: int) -> int:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOCALHOST, wanted))
    except OSError:
        listener.bind((LOCALHOST, 0))
    return int(listener.getsockname()[1])


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    unfinished = file.with_name(f".{file.name}")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write(text)
    unfinished.replace(file)
