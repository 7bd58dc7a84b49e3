"""Instants as they come out of PostgreSQL: exact and in UTC, whatever the session's own zone is."""

from datetime import UTC, datetime

import pytest
from django.db import DataError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from billing_site.prepared import run


class Roundtrip(TestCase):
    @given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))
    def test_every_instant_comes_back_as_it_was(self, moment):
        instant = moment.replace(tzinfo=UTC)
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s::timestamptz", [instant])
            through_django = cursor.fetchone()[0]
        through_prepared = run("SELECT %s::timestamptz", [instant]).fetchone()[0]
        assert (through_django, through_prepared) == (instant, instant)
        assert through_django.tzinfo is through_prepared.tzinfo is UTC


@pytest.mark.django_db
def test_arrays_hold_the_same_instants():
    instants = [datetime(2026, 11, 23, 15, 41, 16, 627118, tzinfo=UTC), datetime(1969, 7, 20, 20, 17, tzinfo=UTC)]
    assert run("SELECT %s::timestamptz[]", [instants]).fetchone()[0] == instants


@pytest.mark.django_db
def test_a_session_in_another_zone_means_the_same_instant():
    instant = datetime(2026, 7, 1, 12, tzinfo=UTC)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'Asia/Kolkata'")
        cursor.execute("SELECT %s::timestamptz", [instant])
        assert cursor.fetchone()[0] == instant


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["infinity", "-infinity", "0044-03-15 BC"])
def test_an_instant_that_python_cannot_hold_is_an_error(text):
    with pytest.raises(DataError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT %s::timestamptz", [text])
        cursor.fetchone()
