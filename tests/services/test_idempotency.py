"""A request that moves money is carried out once, however often and however simultaneously it is sent."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections

from billing_site.http.problems import DomainError
from subscriptions.models import IdempotencyKey, Tenant
from subscriptions.selectors.clock import wall_now
from subscriptions.services.idempotency import IdempotencyKeyRequired, IdempotencyKeyReuse, once, prune
from subscriptions.services.tenants import create_tenant
from subscriptions.tasks import prune_idempotency_keys

pytestmark = pytest.mark.django_db


class Counted:
    """An action that makes a tenant, and counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        create_tenant(code=f"org_{self.calls}", name="Org", actor="system")
        return 201, {"id": f"org_{self.calls}", "amount": "99.00"}


def send(action, *, key="k1", method="POST", path="/api/v1/subscriptions", body=b'{"tenant":"acme"}'):
    return once(key=key, method=method, path=path, body=body, action=action)


def test_a_repeat_gets_the_first_answer_and_does_nothing():
    action = Counted()
    first = send(action)
    assert first == (201, {"id": "org_1", "amount": "99.00"})
    assert send(action) == first
    assert action.calls == 1


def test_another_key_is_another_request():
    action = Counted()
    assert send(action, key="k1") != send(action, key="k2")
    assert action.calls == 2


@pytest.mark.parametrize(
    "other",
    [
        {"body": b'{"tenant":"other"}'},
        {"body": b""},
        {"path": "/api/v1/invoices"},
        {"method": "PUT"},
        {"path": "/api/v1/subscriptions\n{", "body": b'"tenant":"acme"}'},
    ],
)
def test_a_key_that_comes_with_another_request_is_refused(other):
    action = Counted()
    send(action)
    with pytest.raises(IdempotencyKeyReuse):
        send(action, **other)
    assert action.calls == 1


@pytest.mark.parametrize("key", [None, "", "x" * 256, "a\nb", "a\x00b", "ключ"])
def test_without_a_proper_key_nothing_is_done(key):
    action = Counted()
    with pytest.raises(IdempotencyKeyRequired):
        send(action, key=key)
    assert action.calls == 0


def test_a_key_may_have_255_characters():
    assert send(Counted(), key="x" * 255)[0] == 201


def test_an_action_that_is_refused_leaves_nothing_and_its_key_is_free():
    def refused():
        create_tenant(code="half", name="Half", actor="system")
        raise DomainError("No.")

    with pytest.raises(DomainError):
        send(refused)
    assert not Tenant.objects.exists()
    assert not IdempotencyKey.objects.exists()
    assert send(Counted())[0] == 201


def test_an_answer_that_cannot_be_kept_undoes_its_action():
    def unkept():
        create_tenant(code="half", name="Half", actor="system")
        return 201, {"at": wall_now()}

    with pytest.raises(TypeError):
        send(unkept)
    assert not Tenant.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_repeat_that_comes_meanwhile_waits_and_gets_the_same_answer():
    started, release = threading.Event(), threading.Event()
    action = Counted()

    def slow():
        answer = action()
        started.set()
        release.wait(10)
        return answer

    def in_thread(work):
        try:
            return send(work)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(in_thread, slow)
        assert started.wait(10)
        repeats = [threads.submit(in_thread, action) for _ in range(2)]
        assert not any(repeat.done() for repeat in repeats)
        release.set()
        assert {first.result()[1]["id"], *(repeat.result()[1]["id"] for repeat in repeats)} == {"org_1"}
    assert action.calls == 1


@pytest.mark.django_db(transaction=True)
def test_a_repeat_takes_over_when_the_first_is_refused():
    started, release = threading.Event(), threading.Event()

    def refused():
        started.set()
        release.wait(10)
        raise DomainError("No.")

    def in_thread(work):
        try:
            return send(work)
        except DomainError as refusal:
            return str(refusal)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(in_thread, refused)
        assert started.wait(10)
        repeat = threads.submit(in_thread, Counted())
        release.set()
        assert first.result() == "No."
        assert repeat.result() == (201, {"id": "org_1", "amount": "99.00"})


def test_answers_are_forgotten_after_their_time():
    send(Counted(), key="old")
    IdempotencyKey.objects.update(recorded_at=wall_now() - timedelta(days=31))
    action = Counted()
    action.calls = 1
    send(action, key="new")
    assert prune(before=wall_now() - timedelta(days=32)) == 0
    prune_idempotency_keys()
    assert [row.key for row in IdempotencyKey.objects.all()] == ["new"]
