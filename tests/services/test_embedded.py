import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from billing_site import carriers
from billing_site.carriers import Account, CannotStart, choose_account
from billing_site.embedded import servers
from billing_site.instance import READER_ROLE, Instance
from tests.processes import is_running

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root does, and this run is not root's")


@pytest.fixture(scope="module")
def data_dir():
    """A directory with an initialised PostgreSQL, which every test here starts again."""
    path = Path(tempfile.mkdtemp(prefix="tierbook-embedded-"))
    path.chmod(0o711)
    with servers(path, durable=False):
        pass
    yield path
    shutil.rmtree(path)


def test_data_and_addresses_outlast_a_restart(data_dir):
    with servers(data_dir, durable=False) as first, psycopg.connect(first.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 7 AS number")
    with servers(data_dir, durable=False) as second, psycopg.connect(second.database_url) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)

    assert (second.database_url, second.redis_url) == (first.database_url, first.redis_url)


def test_a_port_that_someone_else_took_is_replaced(data_dir):
    with servers(data_dir, durable=False) as running:
        assert Instance.of(data_dir).database_url != running.database_url


def test_a_password_is_asked_for_and_the_application_is_no_superuser(data_dir):
    with servers(data_dir, durable=False) as running:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(running.database_url.replace("tierbook:", "tierbook:x"))
        with redis.Redis(port=urlsplit(running.redis_url).port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with psycopg.connect(running.database_url) as connection:
            assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (
                False,
            )


def test_the_role_that_only_reads_cannot_sign_in_and_the_application_may_take_it(data_dir):
    with servers(data_dir, durable=False) as running, psycopg.connect(running.database_url) as connection:
        found = connection.execute(
            "SELECT rolcanlogin, rolsuper, pg_has_role(rolname, 'pg_read_all_data', 'MEMBER'),"
            " pg_has_role(current_user, rolname, 'MEMBER') FROM pg_roles WHERE rolname = %s",
            [READER_ROLE],
        ).fetchone()
        assert found == (False, False, True, True)
        connection.execute("CREATE TABLE IF NOT EXISTS read AS SELECT 7 AS number")
        connection.execute(f"SET LOCAL ROLE {READER_ROLE}")
        assert connection.execute("SELECT number FROM read").fetchone() == (7,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM read")


def test_only_this_machine_is_listened_to(data_dir):
    with servers(data_dir, durable=False) as running, psycopg.connect(running.database_url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        with redis.Redis.from_url(running.redis_url) as client:
            assert client.config_get("bind")["bind"] == "127.0.0.1"


def test_a_second_launcher_is_refused_while_the_first_lives(data_dir):
    with (
        servers(data_dir, durable=False),
        pytest.raises(CannotStart, match=f"in use by another launcher .*{os.getpid()}"),
        servers(data_dir, durable=False),
    ):
        pytest.fail("two launchers share one directory")


def test_servers_end_with_a_killed_launcher_and_the_directory_is_free_again(data_dir):
    program = (
        "import sys, time; from pathlib import Path; from billing_site.embedded import servers\n"
        "with servers(Path(sys.argv[1]), durable=False) as running:\n"
        "    print(*(child.process.pid for child in running.children()), flush=True); time.sleep(600)"
    )
    launcher = subprocess.Popen([sys.executable, "-c", program, data_dir], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with launcher:
        children = [int(number) for number in launcher.stdout.readline().split()]
        launcher.send_signal(signal.SIGKILL)

    assert len(children) == 2
    wait_for(lambda: not any(is_running(child) for child in children))
    with servers(data_dir, durable=False) as running, psycopg.connect(running.database_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_ends_is_described_with_the_end_of_its_log(data_dir):
    with servers(data_dir, durable=False) as running:
        running.valkey.process.kill()
        running.valkey.process.wait()

        assert running.valkey.epitaph().startswith("valkey ended (signal SIGKILL). The end of ")
        assert "Ready to accept connections" in running.valkey.epitaph()


def test_files_of_another_major_are_never_started(data_dir):
    with pytest.raises(CannotStart, match=r"PostgreSQL 12, which wrote .* was not found \(found: \d+ in "):
        carriers.find_postgres(major=12, account=Account(), data_dir=data_dir)


def test_without_any_binary_the_message_says_what_to_do(data_dir, monkeypatch):
    monkeypatch.setattr(carriers, "_directories", list)
    with pytest.raises(CannotStart, match=r"PostgreSQL 15 or newer was not found \(found: none\).*DATABASE_URL"):
        carriers.find_postgres(major=None, account=Account(), data_dir=data_dir)

    monkeypatch.setattr(carriers, "_package_directory", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CannotStart, match="REDIS_URL"):
        carriers.find_valkey(account=Account(), data_dir=data_dir)


@as_root
def test_root_steps_down_to_an_account_of_its_own(data_dir):
    with servers(data_dir, durable=False) as running:
        assert [Path(f"/proc/{child.process.pid}").stat().st_uid for child in running.children()] != [0, 0]


@as_root
def test_below_a_directory_of_root_a_user_namespace_stands_in(data_dir):
    closed = Path(tempfile.mkdtemp(prefix="tierbook-closed-"))  # 0700
    try:
        if not choose_account_or_none(closed):
            pytest.skip("this machine does not allow user namespaces")
        shutil.copytree(data_dir, closed / "data")
        with servers(closed / "data", durable=False) as running, psycopg.connect(running.database_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        shutil.rmtree(closed)


@as_root
def test_without_user_namespaces_the_message_names_another_directory(tmp_path_factory, monkeypatch):
    closed = Path(tempfile.mkdtemp(prefix="tierbook-closed-"))
    monkeypatch.setattr(Account, "succeeds", lambda self, *command: False)
    try:
        with pytest.raises(CannotStart, match="DATA_DIR=/var/lib/tierbook make run"):
            choose_account(closed)
    finally:
        closed.rmdir()


@as_root
def test_binaries_below_a_directory_of_root_are_copied_with_their_libraries(data_dir, monkeypatch):
    closed = Path(tempfile.mkdtemp(prefix="tierbook-closed-"))
    package = carriers._package_directory(carriers.POSTGRES_WHEEL)
    try:
        for source in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(source, closed / source.name, symlinks=True)
        monkeypatch.setattr(carriers, "_package_directory", lambda name: closed / name)
        account = choose_account(data_dir)

        found = carriers.find_postgres(major=None, account=account, data_dir=data_dir)

        assert data_dir / "binaries" in found.directory.parents
        assert account.succeeds(str(found.directory / "initdb"), "--version")
    finally:
        shutil.rmtree(closed)


def choose_account_or_none(directory):
    try:
        return choose_account(directory)
    except CannotStart:
        return None


def wait_for(condition, *, seconds=20):
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.05)
