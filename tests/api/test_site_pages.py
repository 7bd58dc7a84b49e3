"""The pages of the installation itself: health, home, the API's own description."""

import re

import pytest
from django.core.cache import caches
from django.db import OperationalError
from django.db.migrations.recorder import MigrationRecorder

from billing_site.celery import app as celery
from billing_site.console import health

pytestmark = pytest.mark.django_db

NOBODY_LISTENS = "redis://127.0.0.1:1/0"


@pytest.fixture
def redis_down(settings, monkeypatch):
    """Point cache and queue at a port on which nobody listens."""
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": NOBODY_LISTENS}}
    monkeypatch.setattr(celery, "connection_for_read", lambda url=None, **options: queue_at(NOBODY_LISTENS, **options))
    yield
    caches.close_all()


def queue_at(url, **options):
    return celery._connection(url, **options)


def test_a_living_process_says_so_and_asks_nobody(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        answer = client.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_ready_site_names_each_part(client):
    answer = client.get("/readyz")

    parts = {"database": "ok", "migrations": "ok", "reader": "ok", "cache": "ok", "queue": "ok"}
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "checks": parts})
    assert "no-store" in answer["Cache-Control"]


def test_a_missing_migration_keeps_requests_away(client):
    MigrationRecorder.Migration.objects.filter(app="admin", name="0001_initial").delete()

    answer = client.get("/readyz")

    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    assert answer.json()["checks"]["migrations"] == "1 missing"


def test_a_database_that_does_not_answer_keeps_requests_away(client, monkeypatch):
    def unavailable():
        raise OperationalError("connection refused")

    monkeypatch.setattr(health, "migrations_missing", unavailable)

    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"] | {"cache": "", "queue": ""} == {
        "database": "unavailable",
        "migrations": "unknown",
        "reader": "unknown",
        "cache": "",
        "queue": "",
    }


def test_without_redis_the_site_is_ready_and_says_what_is_missing(client, redis_down):
    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["checks"] == {
        "database": "ok",
        "migrations": "ok",
        "reader": "ok",
        "cache": "unavailable",
        "queue": "unavailable",
    }


def test_every_address_on_the_home_page_answers(client):
    page = client.get("/").content.decode()
    addresses = re.findall(r'href="(/(?!static)[^"]*)"', page)

    assert set(addresses) == {"/admin/", "/api/docs/", "/api/schema/", "/healthz", "/readyz", "/metrics"}
    assert {address: client.get(address).status_code for address in addresses} == {
        "/admin/": 302,  # to the login
        "/api/docs/": 200,
        "/api/schema/": 200,
        "/healthz": 200,
        "/readyz": 200,
        "/metrics": 200,
    }


@pytest.mark.parametrize("address", ["/", "/api/docs/", "/admin/login/"])
def test_pages_load_nothing_from_another_host_and_all_that_they_load_is_there(client, address):
    page = client.get(address).content.decode()
    loaded = re.findall(r'<(?:script|img)[^>]*src="([^"]*)"|<link[^>]*href="([^"]*)"', page)

    for source in (first or second for first, second in loaded):
        assert re.match("/[^/]|data:", source)
        if source.startswith("/"):
            assert client.head(source).status_code == 200, source
    assert loaded


def test_the_schema_speaks_of_the_api_alone(client):
    schema = client.get("/api/schema/").json()

    assert schema["info"]["title"] == "Tierbook"
    assert [path for path in schema["paths"] if not path.startswith("/api/v1/")] == []


def test_the_schema_comes_as_yaml_when_that_is_asked_for(client):
    answer = client.get("/api/schema/", headers={"Accept": "application/vnd.oai.openapi"})

    assert answer.content.startswith(b"openapi: 3")


def test_an_address_that_does_not_exist_is_a_problem_document_below_api_and_a_page_elsewhere(client):
    problem, page = client.get("/api/v1/nothing-here"), client.get("/nothing-here")

    assert (problem.status_code, problem["Content-Type"]) == (404, "application/problem+json")
    assert problem.json()["code"] == "not_found"
    assert (page.status_code, page["Content-Type"]) == (404, "text/html; charset=utf-8")
