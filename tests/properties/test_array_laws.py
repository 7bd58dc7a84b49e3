"""Every text, number, instant and byte string comes back from PostgreSQL as it was put into an array literal."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_site.prepared import run
from metering.services.arrays import bytes_array, plain_array, text_array, time_array, uuid_array

pytestmark = pytest.mark.django_db

# What PostgreSQL's text can hold: no NUL, no surrogate.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
AWKWARD = st.sampled_from(
    ["", "NULL", "null", '"', "\\", '\\"', "{}", "a,b", " ", "\x1f", "a\x1fb", "\n", '{"a":"\\\\"}', "ä"]
)
HERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)


def through(array: str, kind: str) -> list:
    # One statement text per type: each is prepared once.
    [(values,)] = run(f"SELECT %s::{kind}[]", [array])
    return values


@HERE
@given(st.lists(TEXTS | AWKWARD, max_size=20))
def test_texts(values):
    assert through(text_array(values), "text") == values


@HERE
@given(st.lists(st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=12), max_size=20))
def test_numbers(values):
    assert through(plain_array(values), "numeric") == values


@HERE
@given(st.lists(st.binary(max_size=40), max_size=20) | st.lists(st.binary(min_size=16, max_size=16), max_size=20))
def test_byte_strings(values):
    assert [bytes(value) for value in through(bytes_array(values), "bytea")] == values


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@HERE
@given(st.lists(st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES), max_size=20))
def test_instants(values):
    assert through(time_array(values), "timestamptz") == values


@HERE
@given(st.lists(st.none() | st.uuids(), max_size=20))
def test_uuids(values: list[UUID | None]):
    assert through(uuid_array(values), "uuid") == values


def test_booleans_and_big_numbers():
    assert through(plain_array([True, False, None]), "bool") == [True, False, None]
    assert through(plain_array([Decimal("1E+20")]), "numeric") == [Decimal(10) ** 20]
