"""
Real servers for the tests: one PostgreSQL and one Valkey per run, in a directory that is removed afterwards.

`DATABASE_URL` and `REDIS_URL` in the environment replace them; whatever is in that Redis database is flushed. A run of
unit, property and architecture tests alone starts no server.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_django

NEED_NO_SERVER = {"unit", "properties", "architecture"}
TESTS = Path(__file__).parent

_servers = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Give Django its settings, with the addresses where the servers will be, before pytest-django asks for them."""
    from billing_site.instance import READER_ROLE, Instance

    data_dir = Path(tempfile.mkdtemp(prefix="tierbook-tests-"))
    data_dir.chmod(0o711)  # root's servers step down to another account, which has to pass
    _servers.callback(shutil.rmtree, data_dir, ignore_errors=True)
    instance = Instance.of(data_dir)
    config.stash[_given] = {"postgres": "DATABASE_URL" not in os.environ, "valkey": "REDIS_URL" not in os.environ}
    config.stash[_instance] = (data_dir, instance.database_url, instance.redis_url)
    if "DATABASE_URL" not in os.environ:
        os.environ.update(DATABASE_URL=instance.database_url, DATABASE_READER_ROLE=READER_ROLE)
    os.environ.setdefault("REDIS_URL", instance.redis_url)
    # The developer's own .env, and a `make run` beside the tests, are none of their business.
    os.environ.update(ENV_FILE="", DATA_DIR=str(data_dir), SECRET_KEY=instance.secret_key, DEBUG="0")
    # Threads that are stopped in the midst of their transactions hold their connections for longer than anybody waits for one; beside them
    # stand the test's own and those of the threads that a process keeps.
    os.environ["DATABASE_POOL_SIZE"] = "16"
    for name in (
        "SITE_URL",
        "ALLOWED_HOSTS",
        "CELERY_BROKER_URL",
        "EMAIL_URL",
        "LOG_JSON",
        "PUBLISHING_NEEDS_APPROVAL",
    ):
        os.environ.pop(name, None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "billing_site.settings"
    from django.conf import settings

    settings.DATABASES  # noqa: B018  (pytest-django sets Django up when settings are loaded)


_given = pytest.StashKey[dict[str, bool]]()
_instance = pytest.StashKey[tuple[Path, str, str]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the servers when a test among those chosen may need them."""
    rooms = {item.path.relative_to(TESTS).parts[0] for item in session.items if item.path.is_relative_to(TESTS)}
    own = session.config.stash[_given]
    if rooms <= NEED_NO_SERVER or session.config.option.collectonly or not any(own.values()):
        return
    from billing_site.embedded import servers

    data_dir, database_url, redis_url = session.config.stash[_instance]
    running = _servers.enter_context(servers(data_dir, durable=False, **own))
    if (running.database_url, running.redis_url) != (database_url, redis_url):
        pytest.exit("A port that was chosen for the tests' servers was taken meanwhile; run them again.", returncode=3)
    if own["postgres"]:
        _let_tests_set_guards_aside(running.superuser_url)


def _let_tests_set_guards_aside(superuser_url: str) -> None:
    """Allow the application's role, here alone, what the flush between tests needs; it is still no superuser."""
    import psycopg

    from billing_site.instance import ROLE

    with psycopg.connect(superuser_url) as connection:
        connection.execute(f"GRANT SET ON PARAMETER session_replication_role TO {ROLE}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers and remove their directory."""
    _servers.close()


@pytest.fixture(autouse=True)
def redis_flushed(request: pytest.FixtureRequest) -> None:
    """Empty Redis before each test that uses the database, so that no test finds another's keys."""
    fixtures = {"db", "transactional_db", "django_db_setup"} & set(request.fixturenames)
    if fixtures or request.node.get_closest_marker("django_db"):
        from django_redis import get_redis_connection

        get_redis_connection("default").flushdb()


@pytest.fixture(autouse=True)
def books_are_right(request: pytest.FixtureRequest) -> Iterator[None]:
    """Audit the books after each test that may have written to them."""
    marker = request.node.get_closest_marker("django_db")
    if marker is None:
        yield
        return
    request.getfixturevalue("transactional_db" if marker.kwargs.get("transaction") else "db")
    yield
    from invoices.selectors.books import breaches

    assert breaches() == []


@pytest.fixture(autouse=True, scope="session")
def guards_stand_aside_for_flush() -> Iterator[None]:
    """Let the flush between transactional tests empty tables that nothing else may empty."""
    from django.db.backends.postgresql.operations import DatabaseOperations

    flush = DatabaseOperations.sql_flush

    def unguarded(*args: Any, **kwargs: Any) -> list[str]:
        statements = flush(*args, **kwargs)
        switch = """
            DO $$ DECLARE guard record; BEGIN
                FOR guard IN SELECT tgrelid::regclass AS on_table, tgname FROM pg_trigger WHERE tgname LIKE '%\\_truncate' LOOP
                    EXECUTE format('ALTER TABLE %s {} TRIGGER %I', guard.on_table, guard.tgname);
                END LOOP;
            END $$"""
        return [switch.replace("{}", "DISABLE"), *statements, switch.replace("{}", "ENABLE")] if statements else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatabaseOperations, "sql_flush", unguarded)
        yield


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: pytest_django.DjangoDbBlocker) -> Iterator[None]:
    """End the connections that threads of the tested code keep, so that the test database can be dropped."""
    yield
    from django.db import connection

    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
