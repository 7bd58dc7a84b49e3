"""Group commit: concurrent requests of a process share a transaction, and each gets its own answer."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.db import connection, connections, transaction

from metering.models import EventKey, MeterBalance, Posting, SegmentTotal
from metering.services import committer
from metering.services.reading import read_balances
from metering.services.requests import Record
from tests.world import charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


def submit(event):
    report = committer.submit(Record([event], datetime.now(tz=UTC)))
    return report.outcomes[0].status


def test_concurrent_requests_at_the_ceiling_cover_exactly_the_allowance():
    world = make_world()
    events = [world.event(100) for _ in range(200)]
    with ThreadPoolExecutor(32) as threads:
        assert set(threads.map(submit, events)) == {"accepted"}
    assert world.position() == ("20000", "10000", "10000")
    assert Posting.objects.filter(kind="record").count() < 200


def test_fifty_racing_posts_of_one_key_count_once():
    world = make_world()
    event = world.event(100)
    with ThreadPoolExecutor(50) as threads:
        answers = sorted(threads.map(submit, [event] * 50))
    assert answers == ["accepted"] + ["duplicate"] * 49
    assert world.position() == ("100", "100", "0")


def test_a_blocked_tenant_does_not_hold_up_the_others():
    blocked, free = make_world(), make_world()
    balance = blocked.balance()
    locked, release = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            MeterBalance.objects.select_for_update(no_key=True).get(pk=balance.pk)
            locked.set()
            release.wait(20)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(5)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(submit, blocked.event(1)) for _ in range(3)]
        others = [threads.submit(submit, free.event(1)) for _ in range(3)]
        assert [one.result(timeout=10) for one in others] == ["accepted"] * 3
        release.set()
        assert [one.result(timeout=10) for one in waiting] == ["accepted"] * 3
    holder.join()


def test_after_an_ambiguous_commit_own_writes_are_reported_as_accepted(monkeypatch):
    world = make_world()
    real = committer.record_events
    calls = []

    def commits_and_then_loses_the_connection(requests, **kwargs):
        reports = real(requests, **kwargs)
        calls.append(kwargs["posting_id"])
        if len(calls) == 1:
            raise committer.OperationalError("server closed the connection unexpectedly")
        return reports

    monkeypatch.setattr(committer, "record_events", commits_and_then_loses_the_connection)
    assert submit(world.event(100)) == "accepted"
    assert len(set(calls)) == 1
    assert EventKey.objects.count() == 1
    assert world.position() == ("100", "100", "0")


def test_when_the_database_refuses_nothing_is_acknowledged(monkeypatch):
    world = make_world()

    def fails(requests, **kwargs):
        raise committer.OperationalError("the database is down")

    monkeypatch.setattr(committer, "record_events", fails)
    with pytest.raises(committer.StorageUnavailable):
        submit(world.event(100))
    assert connection is not None
    assert world.position() == ("0", "0", "0")


@pytest.fixture
def unpriceable():
    """A tenant whose totals deny the overage of its balance, so that pricing raises; its books are put right afterwards."""
    package = {"model": "package", "size": "10", "amount": "1"}
    make_meter()
    world = make_world(version=publish("packs", charges=[charge(price=package)]))
    world.use(10_400)
    totals = SegmentTotal.objects.filter(balance=world.balance())
    totals.update(quantity=1)
    yield world
    totals.update(quantity=world.balance().used)


def test_usage_of_a_tenant_whose_books_are_broken_is_recorded_beside_the_others(unpriceable):
    healthy = make_world()

    def post(number):
        world = unpriceable if number % 4 == 0 else healthy
        report = committer.submit(Record([world.event(1)], datetime.now(tz=UTC)))
        return report.outcomes[0].status, len(report.balances)

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(post, range(96)))
    assert set(answers[::4]) == {("accepted", 0)}
    assert {answer for number, answer in enumerate(answers) if number % 4} == {("accepted", 1)}
    assert (healthy.position(), unpriceable.position()) == (("72", "72", "0"), ("10424", "10000", "424"))


def test_a_request_that_cannot_be_written_fails_alone(monkeypatch):
    poison, healthy = make_world(), make_world()
    real = committer.record_events

    def refuses_poison(requests, **kwargs):
        if any(event.subject == poison.tenant.code for request in requests for event in request.events):
            raise ValueError("poison")
        return real(requests, **kwargs)

    monkeypatch.setattr(committer, "record_events", refuses_poison)

    def post(number):
        try:
            return submit((poison if number % 4 == 0 else healthy).event(1))
        except ValueError:
            return "failed"

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(post, range(96)))
    assert set(answers[::4]) == {"failed"}
    assert {answer for number, answer in enumerate(answers) if number % 4} == {"accepted"}
    assert healthy.position() == ("72", "72", "0")


def test_balances_that_cannot_be_read_fail_alone(unpriceable):
    healthy = make_world()

    def read(number):
        code = (unpriceable if number % 4 == 0 else healthy).tenant.code
        try:
            return len(read_balances(code, wall=datetime.now(tz=UTC)).views)
        except ValueError:
            return "failed"

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(read, range(96)))
    assert set(answers[::4]) == {"failed"}
    assert {answer for number, answer in enumerate(answers) if number % 4} == {1}
