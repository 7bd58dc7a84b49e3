"""Rolling windows: when a bucket counts, and when there is room again."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from metering.core.windows import Window, WindowUse, bucket_of, counts_after, window_of

NOON = datetime(2026, 6, 20, 12, tzinfo=UTC)


def at(minutes):
    return NOON + timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT5H", 18_000), ("P1D", 86_400), ("P1DT12H", 129_600), ("PT1M", 60), ("PT90M", 5400)]
)
def test_a_window_has_a_length_of_days_hours_and_minutes(text, seconds):
    assert window_of(text, Decimal(1)) == Window(text, seconds, Decimal(1))


@pytest.mark.parametrize("text", ["", "P", "PT", "PT0M", "P0D", "P1M", "PT5S", "1H"])
def test_anything_else_is_no_length(text):
    with pytest.raises(ValueError, match="no length"):
        window_of(text, Decimal(1))


def limit(buckets, *, asked, limit=100, now=NOON, held=0):
    use = WindowUse({at(minute): Decimal(quantity) for minute, quantity in buckets.items()}, Decimal(held))
    return Window("PT1H", 3600, Decimal(limit)).limit(use, asked=Decimal(asked), now=now)


def test_a_bucket_counts_until_its_end_has_left():
    # The bucket of 10:59 ends at 11:00, which has left an hour's window at noon.
    assert (limit({-61: 40}, asked=1).taken, limit({-60: 40}, asked=1).taken) == (0, 40)
    assert limit({-61: 40}, asked=1, now=NOON - timedelta(microseconds=1)).taken == 40


def test_it_frees_up_when_enough_buckets_have_left_for_the_call():
    full = limit({-50: 60, -20: 30, -1: 10}, asked=70)
    assert full.is_exceeded
    assert full.frees_at == at(-20) + timedelta(minutes=61)
    assert limit({-50: 60, -20: 30, -1: 10}, asked=60).frees_at == at(-50) + timedelta(minutes=61)


def test_a_window_with_room_frees_up_when_its_oldest_usage_leaves():
    with_room = limit({-50: 0, -20: 30, -1: 10}, asked=10)
    assert (with_room.is_exceeded, with_room.left, with_room.frees_at) == (False, 60, at(41))
    assert limit({}, asked=10).frees_at is None


def test_a_call_beyond_the_window_itself_never_fits():
    assert limit({-20: 30}, asked=101).frees_at is None
    # Nor does one that holds leave no room for, until they end.
    assert limit({-20: 30}, asked=50, held=60).frees_at is None


def test_holds_count_as_usage_of_now():
    assert (limit({-20: 30}, asked=1, held=20).taken, limit({-20: 30}, asked=1, held=20).left) == (50, 50)


def test_buckets_are_counted_from_1970_in_utc():
    assert bucket_of(NOON + timedelta(minutes=7, seconds=30), 18_000) == at(5)
    assert counts_after(NOON, 3600) == at(-61)
