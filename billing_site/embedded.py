"""
A real PostgreSQL and a real Valkey for a machine that runs neither.

    with servers(Path(".data")) as running:
        print(running.database_url, running.redis_url)

Both servers listen on 127.0.0.1 with a password, end with their parent, and keep files, ports and passwords in one data
directory (`instance`) from one start to the next. For evaluation and small single hosts: there is no TLS and no replica.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from billing_site import supervisor
from billing_site.carriers import Account, CannotStart, PostgresBinaries, choose_account, find_postgres, find_valkey
from billing_site.instance import DATABASE, LOCALHOST, READER_ROLE, ROLE, SUPERUSER, Instance, held, write_private
from billing_site.supervisor import Child

START_SECONDS = 60  # recovery after a crash is part of a start


@dataclass(frozen=True, kw_only=True, repr=False)  # holds passwords
class Servers:
    """The running servers, and where they are found; one that was not asked for is None."""

    database_url: str
    superuser_url: str  # for an administrator; the application never uses it
    redis_url: str
    secret_key: str
    postgres: Child | None
    valkey: Child | None

    def children(self) -> tuple[Child, ...]:
        """Return the processes that run."""
        return tuple(one for one in (self.postgres, self.valkey) if one)


@contextmanager
def servers(data_dir: Path, *, postgres: bool = True, valkey: bool = True, durable: bool = True) -> Iterator[Servers]:
    """
    Run the servers for the length of the context; enter it from the main thread.

    With `durable=False` nothing is flushed to disk: for tests that crash no server. Raises CannotStart with what to do,
    among others when another launcher holds the directory.
    """
    data_dir = data_dir.resolve()
    with ExitStack() as stack:
        lock = stack.enter_context(held(data_dir))
        instance = Instance.of(data_dir)
        account = choose_account(data_dir) if postgres or valkey else Account()
        place = _Place(data_dir=data_dir, account=account, lock=lock, durable=durable)
        yield Servers(
            database_url=instance.database_url,
            superuser_url=instance.superuser_url,
            redis_url=instance.redis_url,
            secret_key=instance.secret_key,
            postgres=stack.enter_context(_postgres(place, instance)) if postgres else None,
            valkey=stack.enter_context(_valkey(place, instance)) if valkey else None,
        )


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where and how the servers run: what is the same for both."""

    data_dir: Path
    account: Account
    lock: int
    durable: bool

    def command(self, *words: str | Path) -> list[str]:
        return [*self.account.prefix, *map(str, words)]


@contextmanager
def _postgres(place: _Place, instance: Instance) -> Iterator[Child]:
    files = place.data_dir / "postgres"
    version = files / "PG_VERSION"
    major = int(version.read_text()) if version.exists() else None
    binaries = find_postgres(major=major, account=place.account, data_dir=place.data_dir)
    if major is None:
        _initialise(files, binaries, place, instance)
    place.account.take_over(files)
    settings = {
        "port": instance.postgres_port,
        "listen_addresses": LOCALHOST,
        "unix_socket_directories": "",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "max_connections": 200,
        # Digests fall on pages all over their index, and after a checkpoint each page is logged whole: so there are few.
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        **({} if place.durable else {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}),
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with supervisor.child(
        "postgres",
        place.command(binaries.directory / "postgres", "-D", files, *options),
        log=place.data_dir / "logs" / "postgres.log",
        end_signal=signal.SIGINT,  # PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave
        patience=30,
        cwd="/",
        pass_fds=(place.lock,),
        **place.account.options(),
    ) as running:
        supervisor.wait_until(
            lambda: _postgres_answers(instance), running=[running], timeout=START_SECONDS, what="PostgreSQL"
        )
        _create_database(instance)
        yield running


def _initialise(files: Path, binaries: PostgresBinaries, place: _Place, instance: Instance) -> None:
    """Make a new database cluster beside its place and move it there, so that a broken attempt is never started."""
    unfinished = files.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password_file = unfinished / "password"
    write_private(password_file, instance.postgres_password)
    place.account.take_over(unfinished)
    # The built-in locale folds case alike on every machine; before 17 there is only the C library's.
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if binaries.major >= 17 else []
    completed = subprocess.run(
        place.command(
            *(binaries.directory / "initdb", "-D", unfinished / "files", "-U", SUPERUSER, f"--pwfile={password_file}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", *locale, "--data-checksums"),
            *(() if place.durable else ("--no-sync",)),
        ),
        capture_output=True,
        text=True,
        cwd="/",
        **place.account.options(),
    )
    if completed.returncode:
        raise CannotStart(f"initdb failed:\n{completed.stdout}{completed.stderr}")
    (unfinished / "files").rename(files)
    shutil.rmtree(unfinished)


def _postgres_answers(instance: Instance) -> bool:
    try:
        psycopg.connect(instance.superuser_url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _create_database(instance: Instance) -> None:
    """Create the application's role, which is no superuser, the one under which it only reads, and its database, where they are not there yet."""
    with psycopg.connect(instance.superuser_url, autocommit=True) as connection:
        role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).rowcount:
            connection.execute(
                # CREATEDB: the tests make a database of their own.
                sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                    role, sql.Literal(instance.postgres_password)
                )
            )
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [READER_ROLE]).rowcount:
            connection.execute(
                sql.SQL("CREATE ROLE {} NOLOGIN IN ROLE pg_read_all_data ROLE {}").format(
                    sql.Identifier(READER_ROLE), role
                )
            )
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))


@contextmanager
def _valkey(place: _Place, instance: Instance) -> Iterator[Child]:
    files = place.data_dir / "valkey"
    files.mkdir(mode=0o700, exist_ok=True)
    place.account.take_over(files)
    binary = find_valkey(account=place.account, data_dir=place.data_dir)
    settings = {
        "bind": LOCALHOST,
        "port": instance.redis_port,
        "requirepass": instance.redis_password,
        "dir": files,
        "appendonly": "yes" if place.durable else "no",
        "save": "",
        "daemonize": "no",
    }
    # Read from a pipe: a password on the command line is everybody's.
    reading, writing = os.pipe()
    os.write(writing, "".join(f"{name} {json.dumps(str(value))}\n" for name, value in settings.items()).encode())
    os.close(writing)
    with (
        closing(os.fdopen(reading)) as configuration,
        supervisor.child(
            "valkey",
            place.command(binary, "-"),
            log=place.data_dir / "logs" / "valkey.log",
            stdin=configuration,
            cwd="/",
            pass_fds=(place.lock,),
            **place.account.options(),
        ) as running,
    ):
        supervisor.wait_until(
            lambda: _valkey_answers(instance), running=[running], timeout=START_SECONDS, what="Valkey"
        )
        yield running


def _valkey_answers(instance: Instance) -> bool:
    with closing(redis.Redis.from_url(instance.redis_url, socket_timeout=2)) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
