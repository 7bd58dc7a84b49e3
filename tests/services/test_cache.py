"""Redis as an accelerator: quick when it is there, and never in the way when it is not."""

import doctest
import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from django_redis import get_redis_connection

from billing_site import cache
from billing_site.http.authentication import BadKeyLimiter
from billing_site.http.problems import RateLimited


@pytest.fixture(autouse=True)
def fresh():
    get_redis_connection("default").flushdb()
    cache.reset()
    yield
    cache.reset()


@contextmanager
def redis_at(settings, port):
    """Point the cache at another port."""
    settings.CACHES = {
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"redis://127.0.0.1:{port}/0"}
    }
    cache.reset()
    try:
        yield
    finally:
        cache.reset()


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def silent_port():
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_values_come_back_as_bytes_in_order_with_none_for_the_absent():
    assert cache.set_many({"a": b"\x00\xff", "b": b"2"}, seconds=60)
    assert cache.get_many(["b", "missing", "a"]) == [b"2", None, b"\x00\xff"]
    assert cache.delete(["a", "missing"])
    assert cache.get_many(["a"]) == [None]
    assert cache.get_many([]) == []
    assert cache.set_many({}, seconds=60)
    assert cache.delete([])
    assert cache.ping()


def test_every_value_expires():
    cache.set_many({"a": b"1", "b": b"2"}, seconds=60)
    client = get_redis_connection("default")
    assert [0 < client.ttl(name) <= 60 for name in ("a", "b")] == [True, True]


def test_a_flush_only_forgets():
    cache.set_many({"a": b"1"}, seconds=60)
    client = get_redis_connection("default")
    client.flushall()
    client.script_flush()
    assert cache.get_many(["a"]) == [None]
    assert cache.set_many({"a": b"1"}, seconds=60)
    assert cache.state() == "closed"


def test_counting_up_keeps_the_first_expiry():
    assert cache.increment("n", seconds=60)[0] == 1
    count, seconds_left = cache.increment("n", seconds=6000)
    assert count == 2
    assert 0 < seconds_left <= 60


def test_keys_of_a_tenant_share_a_hash_tag_and_never_collide():
    assert doctest.testmod(cache).failed == 0
    keys = {cache.key("t", *parts) for parts in [("a", "b"), ("a:b",), ("a%3Ab",), ("a", ""), ("a",)]}
    assert len(keys) == 5
    assert all("{t}" in key for key in keys)


def test_a_closed_port_is_no_answer_and_no_error(settings, closed_port):
    with redis_at(settings, closed_port):
        assert cache.get_many(["a"]) is None
        assert cache.set_many({"a": b"1"}, seconds=1) is False
        assert cache.delete(["a"]) is False
        assert cache.increment("a", seconds=1) is None
        assert cache.ping() is False
        assert cache.state() == "open"


def test_a_silent_server_costs_50_ms_three_times_and_then_nothing(settings, silent_port):
    with redis_at(settings, silent_port):
        started = time.monotonic()
        for _ in range(3):
            assert cache.get_many(["a"]) is None
        assert 0.13 < time.monotonic() - started < 0.8
        started = time.monotonic()
        for _ in range(1000):
            assert cache.get_many(["a"]) is None
        assert time.monotonic() - started < 0.1


def test_after_a_second_one_caller_tries_and_success_closes_the_breaker(settings, monkeypatch):
    moment = [100.0]
    monkeypatch.setattr(cache.time, "monotonic", lambda: moment[0])
    breaker = cache.Breaker()
    for _ in range(3):
        assert breaker.permits()
        breaker.failed(OSError())
    assert (breaker.state(), breaker.permits()) == ("open", False)
    moment[0] += 1
    assert breaker.state() == "half_open"
    assert [breaker.permits() for _ in range(3)] == [True, False, False]
    breaker.failed(OSError())
    assert breaker.permits() is False
    moment[0] += 1
    assert breaker.permits()
    breaker.succeeded()
    assert (breaker.state(), breaker.permits(), breaker.permits()) == ("closed", True, True)


def test_two_failures_and_a_success_leave_it_closed():
    breaker = cache.Breaker()
    for _ in range(5):
        breaker.failed(OSError())
        breaker.failed(OSError())
        breaker.succeeded()
    assert breaker.state() == "closed"


def test_it_recovers_by_itself(settings, closed_port, monkeypatch):
    monkeypatch.setattr(cache, "OPEN_SECONDS", 0.05)
    good = settings.CACHES
    with redis_at(settings, closed_port):
        for _ in range(3):
            cache.get_many(["a"])
        assert cache.state() == "open"
        # The server comes back: the same breaker, another client.
        settings.CACHES = good
        cache._client.cache_clear()
        time.sleep(0.06)
        assert cache.get_many(["a"]) == [None]
        assert cache.state() == "closed"


def test_a_server_that_refuses_writes_is_still_read():
    client = get_redis_connection("default")
    before = client.config_get("maxmemory")["maxmemory"]
    cache.set_many({"a": b"1"}, seconds=60)
    client.config_set("maxmemory", "1")
    try:
        for _ in range(5):
            assert cache.set_many({"b": b"1" * 100}, seconds=60) is False
        assert cache.get_many(["a"]) == [b"1"]
        assert cache.state() == "closed"
    finally:
        client.config_set("maxmemory", before)


def test_a_cache_that_is_not_redis_counts_as_absent(settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.reset()
    assert cache.get_many(["a"]) is None


def test_many_threads_share_it():
    cache.set_many({str(index): str(index).encode() for index in range(50)}, seconds=60)
    wrong = []

    def ask(index):
        for _ in range(20):
            if cache.get_many([str(index)]) != [str(index).encode()]:
                wrong.append(index)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own():
    cache.set_many({"a": b"1"}, seconds=60)
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.get_many(["a"]) == [b"1"] else 1)
    assert cache.get_many(["a"]) == [b"1"]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_bad_keys_are_counted_for_all_processes_together():
    first, second = BadKeyLimiter(failures_max=3), BadKeyLimiter(failures_max=3)
    for limiter in (first, second, first):
        limiter.failed("192.0.2.9")
    with pytest.raises(RateLimited):
        second.failed("192.0.2.9")
    second.failed("192.0.2.10")
