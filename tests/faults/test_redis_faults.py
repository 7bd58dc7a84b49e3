"""Redis is killed, emptied, slow, full or absent while usage comes in: slower, never wrong."""

import socket
import time
from collections.abc import Callable, Iterator
from statistics import median

import pytest
import redis

from metering.models import MeterBalance
from tests.faults.acklog import AckLog
from tests.faults.installation import Installation, database_url, until
from tests.faults.own_servers import OwnServer
from tests.faults.proxy import proxy_before
from tests.world import make_world

pytestmark = pytest.mark.django_db(transaction=True)

# How much longer a post of an event may take while Redis is away.
P99_SECONDS_MORE = 0.06
ROUNDS, ROUND_SECONDS = 5, 4


@pytest.fixture
def valkey() -> Iterator[OwnServer]:
    with OwnServer("valkey") as server:
        yield server


def connect(server: OwnServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=5)


def load(web: Installation, **terms: int) -> AckLog:
    return AckLog(web.url, web.key, [make_world().tenant.code for _ in range(4)], **terms)


def assert_right(log: AckLog) -> None:
    """Nothing but acknowledgements was answered, and the books are right."""
    assert set(log.outcomes()) <= {200, 202}, log.outcomes()
    log.check(database_url())
    log.repeat()
    log.check(database_url())


@pytest.mark.parametrize(("times", "flushes"), [(1, 10), pytest.param(5, 20, marks=pytest.mark.long)])
def test_a_killed_and_a_flushed_redis_change_nothing(tmp_path, valkey, record_property, times, flushes):
    with Installation(tmp_path, redis=valkey.url) as web:
        web.start("web")
        with load(web) as log:
            for _ in range(times):
                time.sleep(0.5)
                valkey.kill()
                record_property("recovery_seconds", log.recovery(time.monotonic()))
                time.sleep(1)
                valkey.start()
                with connect(valkey) as client:
                    for _ in range(flushes):
                        time.sleep(0.1)
                        client.flushall()
        assert_right(log)
    record_property("throughput", f"{times * flushes} FLUSHALLs; {log.summary()}")


@pytest.mark.long
def test_an_absent_redis_changes_nothing(tmp_path, record_property):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Installation(tmp_path, redis=f"redis://127.0.0.1:{nobody.getsockname()[1]}/0") as web:
            web.start("web")
            with load(web) as log:
                time.sleep(6)
            assert_right(log)
    record_property("throughput", log.summary())


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.02, 0.5])
def test_a_slow_redis_changes_nothing(tmp_path, valkey, record_property, delay):
    """Answers that come late, and answers that come after nobody waits for them any more."""
    with proxy_before(valkey.url) as (proxy, address), Installation(tmp_path, redis=address) as web:

        def slow_down(seconds: float) -> None:
            proxy.delay = seconds

        compare(web, record_property, fault=lambda: slow_down(delay), mend=lambda: slow_down(0))


@pytest.mark.long
def test_a_redis_that_comes_and_goes_changes_nothing(tmp_path, valkey, record_property):
    with Installation(tmp_path, redis=valkey.url) as web:
        compare(web, record_property, fault=valkey.kill, mend=valkey.start)


@pytest.mark.long
@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
def test_a_redis_that_is_full_changes_nothing(tmp_path, valkey, record_property, policy):
    """One that refuses to write, and one that forgets what it has written."""
    with connect(valkey) as client, Installation(tmp_path, redis=valkey.url) as web:
        client.config_set("maxmemory-policy", policy)

        def fill() -> None:
            client.config_set("maxmemory", "1mb")
            if policy == "noeviction":
                with pytest.raises(redis.OutOfMemoryError):
                    client.set("more", "x")

        compare(web, record_property, fault=fill, mend=lambda: client.config_set("maxmemory", "0"))


@pytest.mark.long
def test_a_broker_that_is_down_delays_no_event(tmp_path, valkey, record_property):
    """Nearly every post is of one event, which is beyond the allowance and rings for its booking."""
    with Installation(tmp_path, CELERY_BROKER_URL=valkey.url) as web:
        more = compare(web, record_property, fault=valkey.kill, mend=valkey.start, batch_max=2)
    assert more < P99_SECONDS_MORE


def compare(
    web: Installation, record_property, *, fault: Callable[[], object], mend: Callable[[], object], **terms: int
) -> float:
    """Load in rounds with and without a fault; return by how many seconds the 99th percentile is higher under it: the median of the rounds."""
    web.start("web")
    more = []
    with load(web, **terms) as log:
        until(lambda: MeterBalance.objects.filter(used__gt=11_000).count() == 4, what="overage of every tenant")
        for _ in range(ROUNDS):
            mended_at = time.monotonic()
            time.sleep(ROUND_SECONDS)
            spoilt_at = time.monotonic()
            fault()
            time.sleep(ROUND_SECONDS)
            ends_at = time.monotonic()
            mend()
            normal = log.percentile(0.99, since=mended_at, before=spoilt_at)
            more.append(log.percentile(0.99, since=spoilt_at, before=ends_at) - normal)
    assert_right(log)
    record_property("runs", ROUNDS)
    record_property("throughput", f"p99 {median(more) * 1000:+.0f} ms (median of {ROUNDS} rounds); {log.summary()}")
    return median(more)
