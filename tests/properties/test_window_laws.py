"""Rolling windows against a count of the usage itself: never late to deny, at most a sixtieth too strict."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from metering.core.windows import BUCKETS, Window, WindowUse, bucket_of

NOON = datetime(2026, 6, 20, 12, tzinfo=UTC)
SECONDS = st.sampled_from([60, 3600, 18_000, 86_400, 129_600, 660])


@given(
    seconds=SECONDS,
    usage=st.lists(st.tuples(st.integers(-200_000, 600), st.integers(1, 100)), max_size=30),
    now_offset=st.integers(0, 100_000),
)
def test_the_sum_lies_between_the_window_and_one_bucket_more(seconds, usage, now_offset):
    now = NOON + timedelta(milliseconds=now_offset)
    buckets = {}
    for offset, quantity in usage:
        bucket = bucket_of(NOON + timedelta(seconds=offset), seconds)
        buckets[bucket] = buckets.get(bucket, Decimal(0)) + quantity
    taken = Window("", seconds, Decimal(0)).limit(WindowUse(buckets), asked=Decimal(0), now=now).taken
    length, width = timedelta(seconds=seconds), timedelta(seconds=seconds / BUCKETS)
    ages = [(now - (NOON + timedelta(seconds=offset)), quantity) for offset, quantity in usage]
    assert sum(quantity for age, quantity in ages if age < length) <= taken
    assert taken <= sum(quantity for age, quantity in ages if age < length + width)


@given(
    seconds=SECONDS,
    usage=st.lists(st.tuples(st.integers(-80_000, 0), st.integers(1, 100)), min_size=1, max_size=20),
    asked=st.integers(1, 100),
    quantity=st.integers(100, 500),
)
def test_the_call_fits_at_the_time_that_is_named_and_not_before(seconds, usage, asked, quantity):
    buckets = {}
    for offset, used in usage:
        bucket = bucket_of(NOON + timedelta(seconds=offset), seconds)
        buckets[bucket] = buckets.get(bucket, Decimal(0)) + used
    window, use = Window("", seconds, Decimal(quantity)), WindowUse(buckets)
    denied = window.limit(use, asked=Decimal(asked), now=NOON)
    if denied.is_exceeded:
        assert not window.limit(use, asked=Decimal(asked), now=denied.frees_at).is_exceeded
        just_before = denied.frees_at - timedelta(microseconds=1)
        assert window.limit(use, asked=Decimal(asked), now=just_before).is_exceeded
