"""PostgreSQL is killed, restarted, cut off, crowded and locked while usage comes in: what was acknowledged is stored, and counted once."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import psycopg
import pytest

from billing_site.database import run_with_retries
from billing_site.launcher import BASE_DIR
from examples.replay_trace import EVENT_TYPE, TENANT, Api, set_up
from metering.models import Posting
from metering.services.ingest import record_events
from metering.services.requests import Record
from tests.faults.acklog import HANG_SECONDS, AckLog
from tests.faults.installation import Installation, database_url, until
from tests.faults.own_servers import OwnServer
from tests.faults.proxy import proxy_before
from tests.races import together
from tests.world import make_world

KEY = "tb_a_key_for_the_tests_of_faults_0123456789"
NOW = datetime(2026, 6, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def durable_postgres() -> Iterator[OwnServer]:
    """Run a PostgreSQL that flushes every commit, with the product's tables."""
    with OwnServer("postgres") as server:
        environment = os.environ | {"DATABASE_URL": server.url, "TIERBOOK_BOOTSTRAP_API_KEY": KEY}
        command = [sys.executable, "manage.py", "prepare"]
        subprocess.run(command, cwd=BASE_DIR, env=environment, check=True, capture_output=True, timeout=300)
        yield server


class TestKilledAndRestarted:
    """On a server of its own, and through the API alone: Django's own connection of the tests leads elsewhere."""

    @pytest.fixture
    def durable(self, durable_postgres: OwnServer, tmp_path: Path) -> Iterator[Installation]:
        with Installation(tmp_path, database=durable_postgres.url, key=KEY) as running:
            running.start("web")
            set_up(running.api, NOW)
            yield running

    @pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.long)])
    def test_kill_9_of_postgresql_loses_and_doubles_nothing(self, durable, durable_postgres, record_property, times):
        self.interrupt(durable, durable_postgres, durable_postgres.kill, times, record_property)

    @pytest.mark.long
    def test_a_restart_of_postgresql_loses_and_doubles_nothing(self, durable, durable_postgres, record_property):
        self.interrupt(durable, durable_postgres, durable_postgres.stop, 5, record_property)

    @pytest.mark.long
    @pytest.mark.django_db(transaction=True)
    def test_what_redis_knows_and_postgresql_does_not_is_stored(self, durable, tmp_path, record_property):
        """As after a restore from a backup: the Redis of this installation has seen the batch in the database of another one."""
        tenant = self.another_tenant(durable.api, f"{TENANT}-{os.urandom(4).hex()}")
        make_world(code=tenant)
        data = {"total_tokens": 1}
        events = [
            {"id": f"seen-{n}", "source": tenant, "type": EVENT_TYPE, "subject": tenant, "data": data}
            for n in range(500)
        ]
        (tmp_path / "other").mkdir()
        with Installation(tmp_path / "other") as other:
            other.start("web")
            assert other.api.call("POST", "/events", events).body["unmatched"] == 500
            assert other.api.call("POST", "/events", events).body["duplicates"] == 500
        began = time.monotonic()
        assert durable.api.call("POST", "/events", events).body["accepted"] == 500
        record_property("runs", len(events))
        record_property("throughput", f"{len(events) / (time.monotonic() - began):.0f} events/s, in one request")
        assert durable.api.call("POST", "/events", events).body["duplicates"] == 500

    def interrupt(self, durable, durable_postgres, end, times, record_property):
        tenants = [self.another_tenant(durable.api, f"{TENANT}-{os.urandom(4).hex()}-{place}") for place in range(4)]
        source = tenants[0]
        with AckLog(durable.url, durable.key, tenants, source=source, event_type=EVENT_TYPE) as log:
            for _ in range(times):
                log.recovery(time.monotonic())
                time.sleep(1)
                end()
                down_at = time.monotonic()
                time.sleep(0.5)
                durable_postgres.start()
                record_property("recovery_seconds", log.recovery(down_at))
        log.check(durable_postgres.url)
        log.repeat()
        log.check(durable_postgres.url)
        assert durable.audit().startswith("The books are right")
        record_property("throughput", log.summary())

    def another_tenant(self, api: Api, code: str) -> str:
        """Make a tenant beside the example's, on its clock and tier."""
        api.make("/tenants", {"id": code, "name": "Other", "currency": "USD", "test_clock": "trace-clock"})
        start = {"tenant": code, "tier": "trace-tier", "starts_at": NOW.replace(day=1).isoformat()}
        assert api.make("/subscriptions", start, **{"Idempotency-Key": code})
        return code


@pytest.mark.django_db(transaction=True)
class TestCutOff:
    """A proxy stands between the product and PostgreSQL."""

    @pytest.mark.parametrize(("requests", "cuts"), [(300, 20), pytest.param(5000, 500, marks=pytest.mark.long)])
    def test_connections_cut_in_mid_commit_leave_no_doubt_and_no_double(
        self, tmp_path, record_property, requests, cuts
    ):
        worlds = [make_world() for _ in range(4)]
        with (
            proxy_before(database_url()) as (proxy, address),
            Installation(tmp_path, database=address) as installation,
        ):
            installation.start("web")
            proxy.cut_every = 5
            with AckLog(installation.url, installation.key, [world.tenant.code for world in worlds]) as log:
                until(lambda: proxy.cuts >= cuts and len(log.attempts) >= requests, what="the cuts", seconds=300)
            proxy.cut_every = 0
            # The server had committed each of them: the product found that out by itself, and most clients noticed nothing.
            assert log.outcomes()[202] > requests // 2
            log.check(database_url())
            log.repeat()
            log.check(database_url())
        record_property("recovery_seconds", log.longest_silence())
        record_property("runs", proxy.cuts)
        record_property("throughput", log.summary())

    @pytest.mark.long
    def test_a_network_that_breaks_every_connection_loses_nothing(self, tmp_path, record_property):
        worlds = [make_world() for _ in range(4)]
        with (
            proxy_before(database_url()) as (proxy, address),
            Installation(tmp_path, database=address) as installation,
        ):
            installation.start("web")
            with AckLog(installation.url, installation.key, [world.tenant.code for world in worlds]) as log:
                for _ in range(20):
                    time.sleep(0.5)
                    proxy.cut_all()
                    record_property("recovery_seconds", log.recovery(time.monotonic()))
            log.check(database_url())
            log.repeat()
        record_property("throughput", log.summary())


@pytest.mark.django_db(transaction=True)
class TestCrowded:
    @pytest.mark.long
    def test_an_exhausted_pool_is_a_503_with_retry_after_and_never_a_hang(self, tmp_path, record_property):
        """Every connection of the pools waits for a lock: whoever asks is told to come back, and is served once it is free."""
        world = make_world()
        with Installation(tmp_path, DATABASE_POOL_SIZE="3") as installation:
            installation.start("web")
            path = f"/api/v1/tenants/{world.tenant.code}"

            def read(_: int) -> tuple[int, str | None, float]:
                began = time.monotonic()
                connection = HTTPConnection("127.0.0.1", installation.port, timeout=HANG_SECONDS)
                connection.request("GET", path, headers={"Authorization": f"Bearer {installation.key}"})
                response = connection.getresponse()
                response.read()
                connection.close()
                return response.status, response.headers.get("Retry-After"), time.monotonic() - began

            assert read(0)[0] == 200
            with psycopg.connect(database_url()) as holder, ThreadPoolExecutor(64) as threads:
                holder.execute("LOCK TABLE subscriptions_tenant IN ACCESS EXCLUSIVE MODE")
                answers = list(threads.map(read, range(192)))
                holder.rollback()
            freed_at = time.monotonic()
            until(lambda: read(0)[0] == 200, what="an answer")
            record_property("recovery_seconds", time.monotonic() - freed_at)
        refused = [retry_after for status, retry_after, _ in answers if status == 503]
        assert len(refused) == len(answers), Counter(status for status, _, _ in answers)
        assert all(refused)
        seconds = sorted(seconds for _, _, seconds in answers)
        record_property("runs", len(answers))
        record_property("throughput", f"{len(refused)} of {len(answers)} answered 503; p99 {seconds[-2]:.1f} s")


@pytest.mark.django_db(transaction=True)
class TestDeadlocks:
    @pytest.mark.long
    def test_batches_that_name_tenants_in_opposite_orders_do_not_deadlock(self, record_property):
        worlds = [make_world() for _ in range(6)]
        orders = [worlds, worlds[::-1]]
        transactions, threads = 10_000, 4
        before, began = deadlocks_so_far(), time.monotonic()

        def record(first: int) -> None:
            for number in range(first, transactions, threads):
                events = [world.event(3, id=f"n{number}") for world in orders[number % 2]]
                [report] = run_with_retries(lambda events=events: record_events([Record(events, datetime.now(tz=UTC))]))
                assert {outcome.status for outcome in report.outcomes} == {"accepted"}

        results = together(*(partial(record, first) for first in range(threads)), seconds=600)
        assert results == [None] * threads
        assert {world.position()[0] for world in worlds} == {str(3 * transactions)}
        deadlocks = deadlocks_so_far() - before
        assert deadlocks == 0
        rate = transactions / (time.monotonic() - began)
        record_property("runs", transactions)
        record_property("throughput", f"{deadlocks} deadlocks; {rate:.0f} transactions/s")

    @pytest.mark.long
    def test_a_stranger_who_locks_against_the_order_is_survived(self, web, record_property):
        """Somebody's own script locks two balances, the later one first, all the time."""
        worlds = [make_world() for _ in range(4)]
        ids = [world.balance().pk for world in worlds]
        finished, before = threading.Event(), deadlocks_so_far()

        def stranger() -> int:
            tries = 0
            with psycopg.connect(database_url()) as connection:
                while not finished.is_set():
                    tries += 1
                    with suppress(psycopg.errors.DeadlockDetected), connection.transaction():
                        for balance_id in sorted(ids, reverse=True):
                            connection.execute(
                                "SELECT FROM metering_meterbalance WHERE id = %s FOR UPDATE", [balance_id]
                            )
                            time.sleep(0.4)
                    time.sleep(0.2)
            return tries

        with ThreadPoolExecutor(1) as threads:
            strange = threads.submit(stranger)
            with AckLog(web.url, web.key, [world.tenant.code for world in worlds]) as log:
                time.sleep(30)
            finished.set()
            tries = strange.result(timeout=60)
        log.check(database_url())
        log.repeat()
        record_property("recovery_seconds", log.longest_silence())
        deadlocks = deadlocks_so_far() - before
        postings = Posting.objects.filter(kind="record").count()
        record_property("runs", deadlocks)
        figures = f"{deadlocks} deadlocks in {postings} transactions and {tries} of the stranger's"
        record_property("throughput", f"{figures}; {log.summary()}")


def deadlocks_so_far() -> int:
    with psycopg.connect(database_url()) as connection:
        found = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert found is not None
    return int(found[0])
