"""Pages neither skip nor repeat rows, whatever happens between two of them."""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from django.db import connection, models
from django.test.utils import CaptureQueriesContext, isolate_apps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from billing_site.database import uuid7
from billing_site.http.pagination import page
from billing_site.http.queries import BadQuery

MOMENT = datetime(2026, 6, 1, 12, 0, 0, 123_456, tzinfo=UTC)
ORDERING = ("-recorded_at", "-id")


@pytest.fixture
def entry(db):
    with isolate_apps("billing_site"):

        class Entry(models.Model):
            public_id = models.UUIDField(default=uuid7)
            recorded_at = models.DateTimeField()
            amount = models.DecimalField(max_digits=30, decimal_places=12, default=0)
            code = models.CharField(max_length=100, default="")
            on = models.DateField(default=MOMENT.date)

            class Meta:
                app_label = "billing_site"
                db_table = "test_entry"

        with connection.schema_editor() as editor:
            editor.create_model(Entry)
        yield Entry


def ask(queryset, url="/api/v1/entries", ordering=ORDERING, serialize=lambda row: row.pk):
    return page(Request(APIRequestFactory().get(url)), queryset, ordering=ordering, serialize=serialize).data


def walk(queryset, url="/api/v1/entries?limit=7", ordering=ORDERING, between=lambda: None):
    seen = []
    while url:
        answer = ask(queryset, url, ordering)
        assert set(answer) == {"results", "next"}
        seen += answer["results"]
        url = answer["next"]
        between()
    return seen


def fill(entry, count, *, apart=timedelta(0)):
    return entry.objects.bulk_create(
        entry(recorded_at=MOMENT + index * apart, code=str(index)) for index in range(count)
    )


def test_a_thousand_rows_of_one_timestamp_are_each_shown_once(entry):
    rows = fill(entry, 1000)
    assert walk(entry.objects.all(), "/api/v1/entries?limit=100") == [row.pk for row in reversed(rows)]


def test_rows_inserted_meanwhile_skip_and_repeat_nothing(entry):
    rows = fill(entry, 40)

    def insert():
        for shift in (-1, 0, 1):
            entry.objects.create(recorded_at=MOMENT + timedelta(seconds=shift))

    seen = walk(entry.objects.all(), between=insert)
    assert len(seen) == len(set(seen))
    assert [pk for pk in seen if pk <= rows[-1].pk] == [row.pk for row in reversed(rows)]


def test_rows_deleted_meanwhile_skip_nothing_else(entry):
    rows = fill(entry, 30)
    gone = iter(rows)
    seen = walk(entry.objects.all(), between=lambda: next(gone).delete())
    assert set(seen) >= {row.pk for row in rows[6:]}
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    "ordering",
    [("id",), ("-id",), ("recorded_at", "-id"), ("-recorded_at", "id"), ("code", "id"), ("-amount", "id")]
    + [("on", "-public_id"), ("-pk",), ("amount", "-recorded_at", "id")],
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["0.1", "0.2", "1e9"]), st.sampled_from("aBč")), max_size=15),
    st.integers(1, 5),
)
def test_every_ordering_shows_all_rows_in_order(entry, ordering, rows, limit):
    entry.objects.all().delete()
    for seconds, amount, code in rows:
        entry.objects.create(
            recorded_at=MOMENT + timedelta(seconds=seconds),
            amount=Decimal(amount),
            code=code,
            on=MOMENT.date() + timedelta(days=seconds),
        )
    expected = list(entry.objects.order_by(*ordering).values_list("pk", flat=True))
    assert walk(entry.objects.all(), f"/api/v1/entries?limit={limit}", ordering) == expected


def test_the_last_page_has_no_next_and_an_empty_list_is_one_page(entry):
    assert ask(entry.objects.all()) == {"results": [], "next": None}
    fill(entry, 50)
    answer = ask(entry.objects.all())
    assert (len(answer["results"]), answer["next"]) == (50, None)
    fill(entry, 1)
    answer = ask(entry.objects.all())
    assert len(answer["results"]) == 50
    assert answer["next"].startswith("http://testserver/api/v1/entries?cursor=")


def test_the_next_page_keeps_the_other_parameters(entry):
    fill(entry, 3)
    following = ask(entry.objects.all(), "/api/v1/entries?tenant=org%3A1&limit=1")["next"]
    assert "tenant=org%3A1&limit=1&cursor=" in following


def test_a_page_is_one_query(entry):
    fill(entry, 20)
    following = ask(entry.objects.all(), "/api/v1/entries?limit=5")["next"]
    with CaptureQueriesContext(connection) as queries:
        ask(entry.objects.all(), following)
    assert len(queries) == 1


@pytest.mark.parametrize("limit", ["0", "-1", "abc", "1e9", "101", "", "1.0", "+5", " 5", "٣", "9" * 5000, "5&limit=6"])
def test_other_limits_are_refused(entry, limit):
    with pytest.raises(BadQuery) as caught:
        ask(entry.objects.all(), f"/api/v1/entries?limit={limit}")
    assert (caught.value.status, caught.value.code) == (400, "validation")
    assert caught.value.errors[0].path == "limit"


def forged(*values):
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


NAMES = "-recorded_at,-id"


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%00",
        "é",
        "!!!!",
        "a" * 5000,
        forged(),
        forged(NAMES),
        forged(NAMES, MOMENT.isoformat()),
        forged(NAMES, MOMENT.isoformat(), "1", "2"),
        forged("-id,-recorded_at", "1", MOMENT.isoformat()),
        forged("password", "1"),
        forged(NAMES, "2026-06-01T12:00:00", "1"),
        forged(NAMES, "2026-06-01", "1"),
        forged(NAMES, "0001-01-01T00:00:00+14:00", "1"),
        forged(NAMES, "infinity", "1"),
        forged(NAMES, MOMENT.isoformat(), "1" * 30),
        forged(NAMES, MOMENT.isoformat(), "9" * 1500),
        forged(NAMES, MOMENT.isoformat(), "x"),
        forged(NAMES, MOMENT.isoformat(), ""),
        forged(NAMES, MOMENT.isoformat(), 1),
        forged(NAMES, MOMENT.isoformat(), None),
        forged(NAMES, {"a": 1}, "1"),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b"[" * 1000).decode(),
    ],
)
def test_a_cursor_that_this_list_did_not_give_out_is_refused(entry, cursor):
    with pytest.raises(BadQuery) as caught:
        ask(entry.objects.all(), f"/api/v1/entries?cursor={cursor}")
    assert (caught.value.status, caught.value.errors[0].path) == (400, "cursor")


@pytest.mark.parametrize(
    ("ordering", "value"),
    [
        (("amount",), "NaN"),
        (("amount",), "1E+999999"),
        (("code",), "a\x00b"),
        (("public_id",), "1"),
        (("on",), "2026-13-01"),
    ],
)
def test_forged_values_of_other_columns_are_refused_too(entry, ordering, value):
    with pytest.raises(BadQuery):
        ask(entry.objects.all(), f"/api/v1/entries?cursor={forged(*ordering, value)}", ordering)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=8) | st.sampled_from([NAMES, "1", MOMENT.isoformat()]), max_size=4))
def test_no_cursor_makes_the_database_fail(entry, values):
    cursor = base64.urlsafe_b64encode(msgspec.json.encode(values)).decode()
    with suppress(BadQuery):
        ask(entry.objects.all(), f"/api/v1/entries?cursor={cursor}")


def test_a_cursor_never_leaves_the_list_it_filters(entry):
    """A cursor is a place, not a permission: with another list it shows only what that list may show."""
    rows = fill(entry, 10)
    following = ask(entry.objects.all(), "/api/v1/entries?limit=2")["next"]
    assert ask(entry.objects.filter(pk__lt=rows[3].pk), following)["results"] == [rows[2].pk, rows[1].pk]
