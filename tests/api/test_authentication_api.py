"""Who gets in, and who does not, at every door of the API. AUTH-… are rows of the list of hostile inputs."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from rest_framework.test import APIClient

from billing_site.http.authentication import FAILURES_MAX
from subscriptions.models import ApiKey
from subscriptions.selectors import keys as known_keys
from subscriptions.services.keys import issue_key, revoke_key

pytestmark = pytest.mark.django_db

TENANTS = "/api/v1/tenants"


def issued(*scopes, expires_at=None):
    return issue_key(name="test", scopes=scopes or ("read",), actor="system", expires_at=expires_at)


def get(authorization=None, path=TENANTS, **meta):
    if authorization is not None:
        meta["HTTP_AUTHORIZATION"] = authorization
    return APIClient().get(path, **meta)


def refused(response):
    assert response["Content-Type"] == "application/problem+json"
    assert response["WWW-Authenticate"] == "Bearer"
    return response.status_code, response.json()["code"]


def test_a_key_with_the_scope_gets_in():
    _, token = issued("read")
    assert get(f"Bearer {token}").status_code == 200


def test_the_scheme_is_read_in_any_case():
    _, token = issued("read")
    assert get(f"bearer {token}").status_code == 200


def test_without_a_header_nothing_opens():
    assert refused(get()) == (401, "unauthenticated")


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "tb_abc", "Bearer a b"])
def test_a_header_that_is_no_bearer_key_is_refused(header):
    """AUTH-02"""
    assert refused(get(header)) == (401, "unauthenticated")


@pytest.mark.parametrize("parameter", ["api_key", "key", "token", "access_token"])
def test_a_key_in_the_address_is_never_accepted(parameter):
    """AUTH-04"""
    _, token = issued("read")
    assert refused(get(path=f"{TENANTS}?{parameter}={token}")) == (401, "unauthenticated")


def test_a_key_with_one_character_changed_is_refused():
    """AUTH-05: the prefix is that of a key, and the answer is the same as for an unknown prefix."""
    _, token = issued("read")
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    wrong_secret, unknown_prefix = get(f"Bearer {changed}"), get(f"Bearer tb_00000000_{token[12:]}")
    assert refused(wrong_secret) == (401, "unauthenticated")
    assert wrong_secret.content == unknown_prefix.content


def test_a_revoked_key_is_refused_at_once_where_it_was_revoked(django_capture_on_commit_callbacks):
    """AUTH-07"""
    key, token = issued("read")
    assert get(f"Bearer {token}").status_code == 200
    with django_capture_on_commit_callbacks(execute=True):
        revoke_key(key=key, actor="system")
    assert refused(get(f"Bearer {token}")) == (401, "unauthenticated")


def test_a_key_that_another_process_revoked_is_refused_within_a_second(monkeypatch):
    """AUTH-07: what this process remembers, it forgets by itself; no Redis takes part."""
    key, token = issued("read")
    assert get(f"Bearer {token}").status_code == 200
    ApiKey.objects.filter(pk=key.pk).update(revoked_at=datetime.now(tz=UTC))
    later = known_keys.time.monotonic() + 1
    monkeypatch.setattr(known_keys.time, "monotonic", lambda: later)
    assert refused(get(f"Bearer {token}")) == (401, "unauthenticated")


def test_an_expired_key_is_refused():
    """AUTH-08"""
    _, token = issued("read", expires_at=datetime.now(tz=UTC) - timedelta(seconds=1))
    assert refused(get(f"Bearer {token}")) == (401, "unauthenticated")


def test_a_key_without_the_scope_is_told_which_one_it_lacks():
    """AUTH-10"""
    _, token = issued("ingest")
    response = get(f"Bearer {token}")
    assert response.status_code == 403
    assert response.json()["code"] == "insufficient_scope"
    assert response.json()["detail"] == "This needs a key with the scope read."


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", TENANTS),
        ("patch", f"{TENANTS}/org"),
        ("post", "/api/v1/meters"),
        ("patch", "/api/v1/meters/tokens"),
        ("post", "/api/v1/tiers"),
        ("post", "/api/v1/tiers/growth/versions"),
        ("put", "/api/v1/tiers/growth/versions/1"),
        ("post", "/api/v1/tiers/growth/versions/1/publish"),
    ],
)
def test_writing_needs_the_scope_manage(method, path):
    _, token = issued("read", "ingest", "gate")
    client = APIClient(headers={"Authorization": f"Bearer {token}"})
    assert getattr(client, method)(path, {}).status_code == 403


def test_a_session_of_the_staff_pages_opens_nothing():
    """AUTH-13"""
    client = APIClient()
    client.force_login(get_user_model().objects.create_superuser("root"))
    assert refused(client.get(TENANTS)) == (401, "unauthenticated")


def test_a_key_does_not_open_the_staff_pages():
    """AUTH-14"""
    _, token = issued("read", "manage")
    response = get(f"Bearer {token}", path="/admin/")
    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("tail", ["\n", "\r\n", "\x00", "\x00\x00", "\u00e9"])
def test_a_key_with_something_behind_it_is_refused(tail):
    """AUTH-15"""
    _, token = issued("read")
    assert refused(get(f"Bearer {token}{tail}")) == (401, "unauthenticated")


def test_two_authorization_headers_are_a_bad_request():
    """AUTH-16: the server joins them by a comma."""
    _, token = issued("read")
    response = get(f"Bearer {token},Bearer {token}")
    assert (response.status_code, response.json()["code"]) == (400, "bad_request")


def test_who_guesses_keys_is_slowed_down_and_valid_keys_behind_the_same_address_go_on():
    """AUTH-18"""
    _, token = issued("read")
    client = {"REMOTE_ADDR": "203.0.113.7"}
    answers = [get("Bearer tb_wrong_key", **client).status_code for _ in range(FAILURES_MAX)]
    assert set(answers) == {401}
    slowed = get("Bearer tb_wrong_key", **client)
    assert (slowed.status_code, slowed.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(slowed["Retry-After"]) <= 60
    assert get(f"Bearer {token}", **client).status_code == 200
    assert get("Bearer tb_wrong_key", REMOTE_ADDR="203.0.113.8").status_code == 401


def test_a_busy_key_costs_one_query_a_second(django_assert_num_queries):
    _, token = issued("read")
    get(f"Bearer {token}")
    with django_assert_num_queries(1):  # the list itself
        get(f"Bearer {token}")
