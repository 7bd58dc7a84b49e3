"""Cutting a period where grants and versions change, and nowhere else."""

import doctest
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from metering.core import segments
from metering.core.burndown import Grant, GrantKind
from metering.core.segments import VersionSpan, cut, segment_at
from subscriptions.core.periods import Period


def june(day, hour=0):
    return datetime(2026, 6, day, hour, tzinfo=UTC)


PERIOD = Period(june(1), datetime(2026, 7, 1, tzinfo=UTC))
ONE_VERSION = [VersionSpan("v1", june(1))]


def test_examples_in_the_docstrings_hold():
    assert doctest.testmod(segments).failed == 0


def grant(grant_id, starts_at, expires_at=None, voided_at=None, **fields):
    values = {"quantity": Decimal(1), "priority": 0, "kind": GrantKind.PURCHASED, "created_at": starts_at, **fields}
    return Grant(id=grant_id, effective_at=starts_at, expires_at=expires_at, voided_at=voided_at, **values)


def outline(segments):
    return [
        (segment.starts_at.day, segment.ends_at.day, segment.version_id, [grant.id for grant in segment.grants])
        for segment in segments
    ]


def test_a_period_without_changes_is_one_segment():
    allowance = grant("allowance", PERIOD.starts_at, PERIOD.ends_at)
    assert outline(cut(PERIOD, ONE_VERSION, [allowance])) == [(1, 1, "v1", ["allowance"])]


def test_a_segment_begins_wherever_a_grant_starts_expires_or_is_voided():
    grants = [
        grant("bought", june(5)),
        grant("expiring", june(10), june(20)),
        grant("voided", june(12), june(28), june(15)),
    ]
    assert outline(cut(PERIOD, ONE_VERSION, grants)) == [
        (1, 5, "v1", []),
        (5, 10, "v1", ["bought"]),
        (10, 12, "v1", ["expiring", "bought"]),
        (12, 15, "v1", ["expiring", "voided", "bought"]),
        (15, 20, "v1", ["expiring", "bought"]),
        (20, 1, "v1", ["bought"]),
    ]


def test_a_segment_begins_where_another_version_comes_into_force():
    versions = [VersionSpan("v2", june(15)), VersionSpan("v1", datetime(2026, 1, 1, tzinfo=UTC))]
    assert outline(cut(PERIOD, versions, [])) == [(1, 15, "v1", []), (15, 1, "v2", [])]


def test_the_same_version_again_is_no_change():
    versions = [VersionSpan("v1", june(1)), VersionSpan("v1", june(10)), VersionSpan("v2", june(20))]
    assert outline(cut(PERIOD, versions, [])) == [(1, 20, "v1", []), (20, 1, "v2", [])]


def test_what_happens_outside_the_period_or_never_cuts_nothing():
    grants = [
        grant("past", datetime(2026, 4, 1, tzinfo=UTC), PERIOD.starts_at),
        grant("future", PERIOD.ends_at),
        grant("empty", june(10), june(10)),
        grant("voided before it starts", june(10), june(20), june(9)),
        grant("voided after it expired", june(1), PERIOD.ends_at, datetime(2026, 7, 9, tzinfo=UTC)),
    ]
    versions = [*ONE_VERSION, VersionSpan("v2", PERIOD.ends_at)]
    assert outline(cut(PERIOD, versions, grants)) == [(1, 1, "v1", ["voided after it expired"])]


def test_the_end_of_a_segment_belongs_to_the_next():
    first, second = cut(PERIOD, ONE_VERSION, [grant("bought", june(5))])
    assert segment_at([first, second], june(4, 23)) == first
    assert segment_at([first, second], june(5)) == second


def test_an_instant_outside_every_segment_has_none():
    segments = cut(Period(june(1), june(5)), ONE_VERSION, []) + cut(Period(june(10), june(15)), ONE_VERSION, [])
    for instant in (datetime(2026, 5, 31, tzinfo=UTC), june(5), june(7), june(15)):
        with pytest.raises(LookupError):
            segment_at(segments, instant)


def test_an_empty_period_has_no_segment():
    assert cut(Period(june(1), june(1)), ONE_VERSION, []) == ()


def test_a_period_without_a_version_is_refused():
    with pytest.raises(ValueError, match="no version"):
        cut(PERIOD, [VersionSpan("v1", june(2))], [])
    with pytest.raises(ValueError, match="no version"):
        cut(PERIOD, [], [])


def test_two_versions_from_one_instant_are_refused():
    with pytest.raises(ValueError, match="same instant"):
        cut(PERIOD, [*ONE_VERSION, VersionSpan("v2", june(1))], [])
