"""A ring reaches the broker after commit, and costs nothing when there is no broker."""

import json
import os
import socket
import statistics
import time

import pytest
from django.db import transaction
from django_redis import get_redis_connection

from billing_site import doorbell


@pytest.fixture(autouse=True)
def fresh_bell(monkeypatch):
    """A bell of its own for each test, whose connection is closed at the end."""
    doorbell._app.cache_clear()
    bell = doorbell._Bell()
    monkeypatch.setattr(doorbell, "_bell", bell)
    yield bell
    bell._queue.join()
    if bell._producer is not None:
        bell._hang_up()
    doorbell._app.cache_clear()


@pytest.fixture
def queue_name(settings):
    """A queue in the tests' Redis that nobody else reads."""
    settings.CELERY_TASK_ROUTES = {"test.*": {"queue": "test-doorbell"}}
    settings.CELERY_BROKER_URL = settings.REDIS_URL
    client = get_redis_connection("default")
    client.delete("test-doorbell")
    yield "test-doorbell"
    client.delete("test-doorbell")


def messages(name):
    return [json.loads(text) for text in reversed(get_redis_connection("default").lrange(name, 0, -1))]


def outage(settings, port):
    settings.CELERY_BROKER_URL = f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.django_db
def test_a_ring_is_sent_by_name_after_commit(queue_name, fresh_bell, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        doorbell.ring("test.book_overage", 7, "org_1")
        assert doorbell.counts() == {"sent": 0, "failed": 0, "dropped": 0}
    fresh_bell._queue.join()
    assert doorbell.counts() == {"sent": 1, "failed": 0, "dropped": 0}
    (message,) = messages(queue_name)
    assert message["headers"]["task"] == "test.book_overage"
    assert message["headers"]["argsrepr"] == "(7, 'org_1')"


@pytest.mark.django_db
def test_a_rollback_rings_nothing(queue_name, fresh_bell, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        try:
            with transaction.atomic():
                doorbell.ring("test.book_overage", 7)
                raise RuntimeError
        except RuntimeError:
            pass
    fresh_bell._queue.join()
    assert messages(queue_name) == []
    assert fresh_bell.sent == 0


def test_a_connection_that_was_cut_meanwhile_loses_no_ring(queue_name, fresh_bell):
    for index in range(20):
        fresh_bell.push("test.a", (index,))
    fresh_bell._queue.join()
    get_redis_connection("default").client_kill_filter(_type="normal", skipme=True)
    fresh_bell.push("test.a", (20,))
    fresh_bell._queue.join()
    assert (fresh_bell.sent, fresh_bell.failed) == (21, 0)
    assert [message["headers"]["argsrepr"] for message in messages(queue_name)] == [f"({i},)" for i in range(21)]


def test_a_failure_on_an_old_connection_is_tried_once_more_on_a_new_one(queue_name, fresh_bell, monkeypatch):
    fresh_bell.push("test.a", (0,))
    fresh_bell._queue.join()
    old, publish = fresh_bell._producer, fresh_bell._publish

    def publish_or_break(name, args):
        if fresh_bell._producer is old:
            raise OSError("broken pipe")
        publish(name, args)

    monkeypatch.setattr(fresh_bell, "_publish", publish_or_break)
    fresh_bell.push("test.a", (1,))
    fresh_bell._queue.join()
    assert (fresh_bell.sent, fresh_bell.failed) == (2, 0)
    assert fresh_bell._producer is not old


@pytest.mark.django_db
def test_with_the_broker_down_a_ring_returns_within_a_millisecond_and_is_counted(
    settings, closed_port, fresh_bell, caplog, django_capture_on_commit_callbacks
):
    outage(settings, closed_port)
    durations = []
    for index in range(51):
        started = time.perf_counter()
        with django_capture_on_commit_callbacks(execute=True):
            doorbell.ring("test.a", index)
        durations.append(time.perf_counter() - started)
    fresh_bell._queue.join()
    assert statistics.median(durations) < 0.001
    assert doorbell.counts() == {"sent": 0, "failed": 51, "dropped": 0}
    assert len([record for record in caplog.records if "could not ring" in record.message]) == 1


def test_a_broker_that_accepts_and_stays_silent_costs_the_thread_a_fifth_of_a_second(settings, fresh_bell):
    with socket.create_server(("127.0.0.1", 0)) as server:
        outage(settings, server.getsockname()[1])
        started = time.monotonic()
        fresh_bell.push("test.a", (0,))
        assert time.monotonic() - started < 0.1
        fresh_bell._queue.join()
        assert time.monotonic() - started < 2
    assert fresh_bell.failed == 1


def test_a_full_queue_drops_and_counts(monkeypatch, fresh_bell):
    monkeypatch.setattr(fresh_bell, "_start", lambda: None)
    for index in range(doorbell.QUEUE_MAX + 5):
        fresh_bell.push("test.a", (index,))
    assert fresh_bell.dropped == 5
    while not fresh_bell._queue.empty():
        fresh_bell._queue.get()
        fresh_bell._queue.task_done()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_rings_with_a_thread_of_its_own(queue_name, fresh_bell):
    fresh_bell.push("test.parent", ())
    fresh_bell._queue.join()
    child = os.fork()
    if child == 0:
        bell = doorbell._bell
        bell.push("test.child", ())
        bell._queue.join()
        os._exit(0 if bell is not fresh_bell and bell.sent == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [message["headers"]["task"] for message in messages(queue_name)] == ["test.parent", "test.child"]
