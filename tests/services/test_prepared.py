"""Statements of the hot path are prepared once, and run by their plan from then on."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from billing_site.prepared import run

pytestmark = pytest.mark.django_db

QUESTION = "SELECT %s::int + 1 AS what_a_test_asks"


def prepared() -> list[tuple[int, int]]:
    """How often the question was planned anew, and by the kept plan."""
    rows = run(
        "SELECT custom_plans, generic_plans FROM pg_prepared_statements"
        " WHERE statement LIKE '%%what_a_test_asks' AND statement NOT LIKE '%%pg_prepared%%'"
    )
    return rows.fetchall()


def test_a_statement_is_planned_a_few_times_and_then_no_more():
    for number in range(12):
        assert run(QUESTION, [number]).fetchone() == (number + 1,)
    assert prepared() == [(5, 7)]


def test_times_are_in_utc_and_documents_are_texts():
    moment = datetime(2026, 6, 1, 12, 30, 15, 250, tzinfo=UTC)
    row = run("SELECT %s::timestamptz, '[1.10]'::jsonb", [moment.isoformat()]).fetchone()
    assert row == (moment, "[1.10]")
    assert row[0].utcoffset() == timedelta(0)


def test_it_belongs_to_the_transaction_around_it():
    run("CREATE TEMPORARY TABLE of_a_test (number int) ON COMMIT DROP")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO of_a_test VALUES (1)")
    assert run("SELECT number FROM of_a_test").fetchall() == [(1,)]
