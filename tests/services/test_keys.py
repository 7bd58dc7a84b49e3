"""API keys: what is issued is shown once and stored as a digest, and what is revoked opens nothing."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections

from billing_site.http.problems import Invalid
from subscriptions.models import ApiKey, AuditEntry
from subscriptions.selectors import keys as known_keys
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.keys import find_key, forget_keys, remembered_key
from subscriptions.services.keys import issue_key, revoke_key
from subscriptions.services.uniqueness import AlreadyExists

pytestmark = pytest.mark.django_db

SECRET = "set-up-by-terraform-7c1f09e2"


@pytest.fixture(autouse=True)
def nothing_remembered():
    forget_keys()
    yield
    forget_keys()


def issue(**terms):
    return issue_key(**({"name": "gateway", "scopes": ["ingest"], "actor": "staff:ann"} | terms))


def test_a_key_has_a_public_prefix_and_256_random_bits():
    key, token = issue()
    assert re.fullmatch(r"tb_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", token)
    assert token.startswith(key.prefix)
    assert len(key.prefix) == 11


def test_the_key_itself_is_stored_nowhere():
    key, token = issue()
    key.refresh_from_db()
    assert bytes(key.digest) == hashlib.sha256(token.encode()).digest()
    assert token not in str(list(ApiKey.objects.values())) + str(list(AuditEntry.objects.values()))


def test_issuing_and_revoking_leave_entries():
    key, _ = issue(scopes=["read", "manage", "read"])
    revoke_key(key=key, actor="staff:ben", reason="left the company")
    issued, revoked = AuditEntry.objects.filter(object_type="subscriptions.apikey").order_by("pk")
    assert (issued.actor, issued.action, issued.object_id) == ("staff:ann", "issue", str(key.public_id))
    assert issued.after["scopes"] == ["read", "manage"]
    assert (revoked.actor, revoked.action, revoked.reason) == ("staff:ben", "revoke", "left the company")


def test_a_key_is_found_with_its_scopes():
    key, token = issue(scopes=["ingest", "gate"])
    found = find_key(token)
    assert (found.id, found.prefix, found.scopes, found.actor) == (
        key.pk,
        key.prefix,
        {"ingest", "gate"},
        f"key:{key.prefix}",
    )


@pytest.mark.parametrize(
    "change", [lambda token: token[:-1] + "_-"[token[-1] == "_"], lambda token: token[:11], str.upper]
)
def test_a_key_that_is_not_quite_the_key_is_not_found(change):
    _, token = issue()
    assert find_key(change(token)) is None


def test_a_text_that_is_no_key_at_all_is_not_found():
    for text in ("", "tb_", "x" * 200, "ключ"):
        assert find_key(text) is None


def test_an_expired_key_is_not_found_even_while_it_is_remembered(monkeypatch):
    now = wall_now()
    _, token = issue(expires_at=now + timedelta(hours=1))
    assert find_key(token) is not None
    monkeypatch.setattr(known_keys, "wall_now", lambda: now + timedelta(hours=1))
    assert find_key(token) is None


def test_a_key_is_remembered_for_less_than_a_second(monkeypatch, django_assert_num_queries):
    moment = 1000.0
    monkeypatch.setattr(known_keys.time, "monotonic", lambda: moment)
    key, token = issue()
    assert find_key(token) is not None
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=wall_now())  # another process
    moment += 0.49
    with django_assert_num_queries(0):
        assert find_key(token) is not None
    moment += 0.02
    assert find_key(token) is None


def test_of_the_threads_that_know_a_key_one_asks_again_while_the_others_go_on(monkeypatch, django_assert_num_queries):
    moment = 1000.0
    monkeypatch.setattr(known_keys.time, "monotonic", lambda: moment)
    _, token = issue()
    assert find_key(token) is not None
    moment += 0.6
    with ThreadPoolExecutor(1) as another:  # its turn it is, and it never comes back
        assert another.submit(remembered_key, token).result() is None
    with django_assert_num_queries(0):
        assert find_key(token) is not None
    moment += 0.31
    assert remembered_key(token) is None
    with django_assert_num_queries(1):
        assert find_key(token) is not None
    moment += 0.3
    with django_assert_num_queries(0):
        assert find_key(token) is not None


def test_a_key_is_forgotten_where_it_is_revoked(django_capture_on_commit_callbacks):
    key, token = issue()
    assert find_key(token) is not None
    with django_capture_on_commit_callbacks(execute=True):
        revoke_key(key=key, actor="staff:ann")
    assert find_key(token) is None


def test_revoking_again_changes_nothing():
    key, _ = issue()
    first = revoke_key(key=key, actor="staff:ann").revoked_at
    assert revoke_key(key=key, actor="staff:ben").revoked_at == first
    assert AuditEntry.objects.filter(action="revoke").count() == 1


def test_what_is_remembered_does_not_grow_without_end(monkeypatch):
    monkeypatch.setattr(known_keys, "CACHED_KEYS_MAX", 2)
    for _ in range(5):
        assert find_key(issue()[1]) is not None
    assert len(known_keys._cache) <= 2


def test_a_fixed_key_is_taken_as_it_is():
    key, token = issue(secret=SECRET)
    assert (token, key.prefix) == (SECRET, "set-up-by-t")
    assert find_key(SECRET).id == key.pk


@pytest.mark.parametrize(
    "secret", ["", "short", "x" * 19, "x" * 201, "with a blank in the middle", "naïve-key-of-20-letters", SECRET + "\n"]
)
def test_a_fixed_key_that_no_header_could_carry_is_refused(secret):
    with pytest.raises(Invalid) as refusal:
        issue(secret=secret)
    assert [error.path for error in refusal.value.errors] == ["secret"]


def test_a_prefix_is_taken_once():
    issue(secret=SECRET)
    with pytest.raises(AlreadyExists):
        issue(secret=SECRET + "-other")


@pytest.mark.parametrize("scopes", [[], ["admin"], ["read", "Manage"]])
def test_a_key_without_a_known_scope_is_refused(scopes):
    with pytest.raises(Invalid) as refusal:
        issue(scopes=scopes)
    assert {error.path for error in refusal.value.errors} == {"scopes"}
    assert not ApiKey.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_that_revoke_at_once_one_leaves_the_entry():
    key, _ = issue()

    def revoke(name):
        try:
            return revoke_key(key=key, actor=name).revoked_at
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        assert len(set(threads.map(revoke, ["staff:ann", "staff:ben"]))) == 1
    assert AuditEntry.objects.filter(action="revoke").count() == 1
