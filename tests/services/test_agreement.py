"""The agreement's rows: subscriptions, the periods that tile them, and the fees and credits that fall due."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from threading import Barrier

import pytest
from django.db import IntegrityError, connections, transaction

from subscriptions.models import BillingPeriod, FeeItem, Subscription, TierChange
from subscriptions.selectors.agreement import VersionSpan, period_at, running_subscription, version_spans
from subscriptions.services import agreement, catalog, succession
from subscriptions.services.tenants import create_tenant, update_tenant
from tests.world import JUNE, at, publish

pytestmark = pytest.mark.django_db

MICROSECOND = timedelta(microseconds=1)
MUCH_LATER = at("2046-06-01 00:00")
SECOND_GRAIN = {"change": {"grain": "second"}}


def version_with(**terms):
    return publish(charges=[], **terms)


def subscribe(version=None, *, starts_at=JUNE, anchor_at=None, timezone="UTC", **terms):
    """Subscribe a new tenant to a version, $99 a month unless the terms say otherwise."""
    tenant = create_tenant(code="acme", name="Acme", timezone=timezone, actor="system")
    return agreement.start(
        tenant=tenant,
        version=version or version_with(**terms),
        starts_at=starts_at,
        anchor_at=anchor_at or starts_at,
        now=starts_at,
    )


def open_periods(subscription, count=1):
    return [
        period for _ in range(count) for period in succession.next_periods(subscriptions=[subscription], now=MUCH_LATER)
    ]


def end(subscription, ends_at, *, credit="unused", now=None):
    return agreement.end(subscription=subscription, ends_at=ends_at, credit=credit, now=now or ends_at)


def spans(subscription):
    return [
        (f"{period.starts_at:%Y-%m-%d %H:%M}", f"{period.ends_at:%Y-%m-%d %H:%M}", period.kind)
        for period in subscription.periods.order_by("sequence")
    ]


def fees(subscription):
    return [(item.kind, item.amount) for item in subscription.fee_items.order_by("pk")]


# Starting


def test_a_subscription_waits_for_its_first_period():
    subscription = subscribe(starts_at=at("2026-06-10 12:00"), timezone="America/New_York")
    assert (subscription.due_at, subscription.ends_at) == (at("2026-06-10 12:00"), None)
    assert (str(subscription.anchor_date), str(subscription.anchor_time)) == ("2026-06-10", "08:00:00")
    assert subscription.anchor_zone == "America/New_York"
    assert not BillingPeriod.objects.exists()


def test_nobody_subscribes_to_a_draft():
    tier = catalog.create_tier(code="growth", name="Growth", actor="system")
    with pytest.raises(agreement.VersionNotPublished):
        subscribe(catalog.create_version(tier=tier, actor="system"))


def test_a_version_in_another_currency_is_refused():
    with pytest.raises(agreement.CurrencyMismatch):
        subscribe(currency="JPY", fee="9900")


def test_a_tenant_has_one_subscription_at_any_instant():
    first = subscribe()
    again = {"tenant": first.tenant, "version": first.version, "anchor_at": JUNE, "now": JUNE}
    for starts_at in (JUNE - timedelta(days=30), JUNE, JUNE + timedelta(days=3000)):
        with pytest.raises(agreement.AlreadySubscribed):
            agreement.start(starts_at=starts_at, **again)
    end(first, at("2026-06-15 00:00"))
    with pytest.raises(agreement.AlreadySubscribed):
        agreement.start(starts_at=at("2026-06-15 00:00") - MICROSECOND, **again)
    second = agreement.start(starts_at=at("2026-06-15 00:00"), **again)
    assert running_subscription(first.tenant, at=at("2026-06-15 00:00") - MICROSECOND) == first
    assert running_subscription(first.tenant, at=at("2026-06-15 00:00")) == second
    assert running_subscription(first.tenant, at=JUNE - MICROSECOND) is None


def test_a_start_may_be_back_dated_by_three_years():
    subscription = subscribe()
    again = {"tenant": subscription.tenant, "version": subscription.version, "anchor_at": JUNE, "now": JUNE}
    with pytest.raises(agreement.StartsTooEarly):
        agreement.start(starts_at=JUNE - timedelta(days=1098, seconds=1), **again)
    end(subscription, JUNE)
    with pytest.raises(agreement.AlreadySubscribed):  # not too early
        agreement.start(starts_at=JUNE - timedelta(days=1098), **again)


@pytest.mark.django_db(transaction=True)
def test_of_two_that_subscribe_a_tenant_at_once_one_is_told():
    tenant = create_tenant(code="acme", name="Acme", actor="system")
    version = version_with()
    barrier = Barrier(2)

    def start(_):
        barrier.wait(10)
        try:
            return agreement.start(tenant=tenant, version=version, starts_at=JUNE, anchor_at=JUNE, now=JUNE)
        except agreement.AlreadySubscribed as refusal:
            return refusal
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as threads:
        results = sorted(type(result).__name__ for result in threads.map(start, range(2)))
    assert results == ["AlreadySubscribed", "Subscription"]


# Periods


def test_months_are_counted_from_the_anchor_and_clamped_to_their_end():
    subscription = subscribe(starts_at=at("2026-01-31 10:00"))
    open_periods(subscription, 3)
    assert spans(subscription) == [
        ("2026-01-31 10:00", "2026-02-28 10:00", "regular"),
        ("2026-02-28 10:00", "2026-03-31 10:00", "regular"),
        ("2026-03-31 10:00", "2026-04-30 10:00", "regular"),
    ]
    assert fees(subscription) == [("fee", 99)] * 3


def test_a_period_closes_after_its_grace_and_the_next_one_opens_at_its_end():
    subscription = subscribe(grace_hours=6, fee="0")
    [period] = open_periods(subscription)
    assert (period.sequence, period.due_at) == (1, at("2026-07-01 06:00"))
    assert (period.full_starts_at, period.full_ends_at) == (JUNE, at("2026-07-01 00:00"))
    subscription.refresh_from_db()
    assert subscription.due_at == at("2026-07-01 00:00")


def test_the_first_calendar_period_is_a_stub_with_its_share_of_the_fee():
    subscription = subscribe(starts_at=at("2026-06-10 12:00"), alignment="calendar")
    stub, whole = open_periods(subscription, 2)
    assert spans(subscription) == [
        ("2026-06-10 12:00", "2026-07-01 00:00", "stub"),
        ("2026-07-01 00:00", "2026-08-01 00:00", "regular"),
    ]
    assert (stub.full_starts_at, stub.full_ends_at) == (JUNE, at("2026-07-01 00:00"))
    first, second = FeeItem.objects.order_by("pk")
    assert (first.amount, first.share_numerator, first.share_divisor, first.share_grain) == (
        Decimal("69.30"),  # 99.00 × 21/30
        21,
        30,
        "day",
    )
    assert (second.amount, second.share_numerator, second.share_divisor, second.share_grain) == (99, 1, 1, "")
    assert second.period == whole


def test_a_billing_day_of_another_date_makes_the_first_period_a_stub():
    subscription = subscribe(starts_at=at("2026-06-10 00:00"), anchor_at=at("2026-06-15 00:00"))
    open_periods(subscription, 2)
    assert spans(subscription) == [
        ("2026-06-10 00:00", "2026-06-15 00:00", "stub"),
        ("2026-06-15 00:00", "2026-07-15 00:00", "regular"),
    ]
    assert fees(subscription) == [("fee", Decimal("15.97")), ("fee", 99)]  # 99.00 × 5/31, from 15 May


def test_days_are_local_days_of_the_tenant():
    # 1 March, 04:30 UTC, is 28 February in New York: one day of February is left, and the fee is 99.00 × 1/28.
    subscription = subscribe(starts_at=at("2026-03-01 04:30"), alignment="calendar", timezone="America/New_York")
    open_periods(subscription)
    assert spans(subscription) == [("2026-03-01 04:30", "2026-03-01 05:00", "stub")]
    assert fees(subscription) == [("fee", Decimal("3.54"))]


def test_a_yearly_fee_on_monthly_periods_falls_due_every_twelfth():
    subscription = subscribe(fee="1200", fee_every=12)
    open_periods(subscription, 13)
    first, second = FeeItem.objects.order_by("pk")
    assert (first.period.sequence, first.span_starts_at, first.span_ends_at) == (1, JUNE, at("2027-06-01 00:00"))
    assert (second.period.sequence, second.span_ends_at) == (13, at("2028-06-01 00:00"))
    assert fees(subscription) == [("fee", 1200)] * 2


def test_the_span_of_a_fee_may_begin_with_a_stub():
    subscription = subscribe(starts_at=at("2026-06-10 00:00"), alignment="calendar", fee="365", fee_every=12)
    open_periods(subscription)
    item = FeeItem.objects.get()
    assert (item.span_starts_at, item.span_ends_at) == (at("2026-06-10 00:00"), at("2027-06-01 00:00"))
    assert (item.amount, item.share_numerator, item.share_divisor) == (356, 356, 365)


@pytest.mark.parametrize(("timing", "billable"), [("advance", "2026-06-01 00:00"), ("arrears", "2026-07-01 00:00")])
def test_a_fee_is_billable_with_the_start_of_its_span_or_its_end(timing, billable):
    open_periods(subscribe(fee_timing=timing))
    assert FeeItem.objects.get().billable_at == at(billable)


def test_a_free_tier_owes_nothing():
    subscription = subscribe(fee="0")
    open_periods(subscription, 2)
    assert fees(subscription) == []


def test_a_share_of_yen_is_whole_yen():
    tenant = create_tenant(code="tokyo", name="Tokyo", currency="JPY", timezone="Asia/Tokyo", actor="system")
    version = version_with(currency="JPY", fee="499", alignment="calendar")
    starts_at = at("2026-06-14 15:00")  # 15 June, midnight in Tokyo
    subscription = agreement.start(
        tenant=tenant, version=version, starts_at=starts_at, anchor_at=starts_at, now=starts_at
    )
    open_periods(subscription)
    assert fees(subscription) == [("fee", 266)]  # 499 × 16/30


def test_a_new_zone_keeps_the_running_end_and_reads_the_anchor_anew():
    subscription = subscribe(starts_at=at("2026-06-01 04:00"), timezone="America/New_York")
    open_periods(subscription)
    move(subscription, "Europe/Berlin")
    open_periods(subscription, 2)
    assert spans(subscription)[1:] == [
        ("2026-07-01 04:00", "2026-07-31 22:00", "regular"),
        ("2026-07-31 22:00", "2026-08-31 22:00", "regular"),
    ]
    assert fees(subscription) == [("fee", 99)] * 3


def test_a_new_zone_makes_no_sliver_of_a_period():
    subscription = subscribe(starts_at=at("2026-05-31 22:00"), timezone="Europe/Berlin")
    open_periods(subscription)
    move(subscription, "Pacific/Honolulu")
    open_periods(subscription, 2)
    # The next local midnight of a first is twelve hours after the end: that would be no month.
    assert spans(subscription) == [
        ("2026-05-31 22:00", "2026-06-30 22:00", "regular"),
        ("2026-06-30 22:00", "2026-08-01 10:00", "regular"),
        ("2026-08-01 10:00", "2026-09-01 10:00", "regular"),
    ]


def move(subscription, zone):
    update_tenant(tenant_id=subscription.tenant_id, changes={"timezone": zone}, actor="system")
    subscription.refresh_from_db()


def test_periods_of_a_subscription_never_overlap():
    [period] = open_periods(subscribe())
    period.pk, period.public_id, period.sequence = None, "0196a5c0-0000-7000-8000-000000000000", 2
    with pytest.raises(IntegrityError, match="billing_period_no_overlap"), transaction.atomic():
        period.save(force_insert=True)


# Ending


@pytest.mark.parametrize(
    ("terms", "ends_at", "amount", "share"),
    [
        # 14 June counts as used: 16 of 30 days are left.
        ({}, "2026-06-14 10:00", "-52.80", (16, 30, "day")),
        ({}, "2026-06-30 23:59", None, None),
        (SECOND_GRAIN, "2026-06-14 10:00", "-54.73", (1_432_800, 2_592_000, "second")),
        (SECOND_GRAIN, "2026-06-30 23:59", None, None),  # 99 × 60 s rounds to 0.00
        ({"fee": "0"}, "2026-06-14 10:00", None, None),
    ],
)
def test_the_unused_part_of_the_fee_is_given_back(terms, ends_at, amount, share):
    subscription = subscribe(**terms)
    open_periods(subscription)
    credit = end(subscription, at(ends_at))
    if amount is None:
        assert credit is None
        return
    assert (str(credit.amount), credit.kind, credit.billable_at) == (amount, "credit", at(ends_at))
    assert (credit.share_numerator, credit.share_divisor, credit.share_grain) == share
    assert (credit.span_starts_at, credit.span_ends_at) == (at(ends_at), at("2026-07-01 00:00"))
    assert (credit.credits.amount, credit.period.sequence) == (99, 1)


def test_ending_cuts_the_running_period_and_lets_it_close_sooner():
    subscription = subscribe()
    open_periods(subscription)
    end(subscription, at("2026-06-14 10:00"), credit="none")
    subscription.refresh_from_db()
    assert (subscription.ends_at, subscription.end_credit, subscription.due_at) == (
        at("2026-06-14 10:00"),
        "none",
        None,
    )
    period = BillingPeriod.objects.get()
    assert spans(subscription) == [("2026-06-01 00:00", "2026-06-14 10:00", "stub")]
    assert (period.due_at, period.full_ends_at) == (at("2026-06-14 11:00"), at("2026-07-01 00:00"))
    assert fees(subscription) == [("fee", 99)]
    assert open_periods(subscription) == []


def test_an_end_with_the_period_cuts_nothing_and_opens_nothing_more():
    subscription = subscribe()
    open_periods(subscription)
    assert end(subscription, at("2026-07-01 00:00"), now=at("2026-06-14 00:00")) is None
    assert spans(subscription) == [("2026-06-01 00:00", "2026-07-01 00:00", "regular")]
    assert open_periods(subscription) == []
    subscription.refresh_from_db()
    assert subscription.due_at is None


def test_an_end_at_the_instant_of_the_start_leaves_the_smallest_period():
    subscription = subscribe(**SECOND_GRAIN)
    open_periods(subscription)
    credit = end(subscription, JUNE)
    period = BillingPeriod.objects.get()
    assert (period.ends_at, subscription.ends_at) == (JUNE + MICROSECOND, JUNE + MICROSECOND)
    assert credit.amount == -99


@pytest.mark.parametrize(
    ("credit", "fee"),
    [("unused", "47.90"), ("none", "99.00")],  # 99.00 × 15/31: the 15th counts as used
)
def test_a_period_that_opens_with_its_end_known_owes_what_a_cancellation_would_leave(credit, fee):
    subscription = subscribe()
    open_periods(subscription)
    assert end(subscription, at("2026-07-15 00:00"), credit=credit, now=at("2026-06-14 00:00")) is None
    assert len(open_periods(subscription, 2)) == 1
    assert spans(subscription) == [
        ("2026-06-01 00:00", "2026-07-01 00:00", "regular"),
        ("2026-07-01 00:00", "2026-07-15 00:00", "stub"),
    ]
    assert fees(subscription)[1] == ("fee", Decimal(fee))


def test_an_end_that_is_brought_forward_gives_back_the_difference():
    subscription = subscribe()
    open_periods(subscription)
    end(subscription, at("2026-06-20 00:00"), now=JUNE)
    end(subscription, at("2026-06-10 00:00"), now=JUNE)
    # 10 of 30 days, then 20 of 30 less what was given back.
    assert fees(subscription) == [("fee", 99), ("credit", -33), ("credit", -33)]
    assert spans(subscription) == [("2026-06-01 00:00", "2026-06-10 00:00", "stub")]


def test_a_yearly_fee_is_given_back_in_the_period_that_ends():
    subscription = subscribe(fee="365", fee_every=12)
    open_periods(subscription, 2)
    credit = end(subscription, at("2026-07-11 12:00"))
    # 41 of 365 days are used: June, and 11 days of July.
    assert (credit.amount, credit.period.sequence) == (-324, 2)
    assert (credit.share_numerator, credit.share_divisor) == (324, 365)


def test_a_credit_of_a_stub_is_a_share_of_what_the_stub_cost():
    subscription = subscribe(starts_at=at("2026-06-10 12:00"), alignment="calendar")
    open_periods(subscription)
    assert end(subscription, at("2026-06-20 12:00")).amount == -33  # 69.30 × 10/21


def test_an_end_is_not_put_off_nor_set_in_the_past():
    subscription = subscribe()
    open_periods(subscription)
    with pytest.raises(agreement.EndsInThePast):
        end(subscription, at("2026-06-10 00:00"), now=at("2026-06-10 00:00") + MICROSECOND)
    end(subscription, at("2026-06-10 00:00"))
    for ends_at in ("2026-06-10 00:00", "2026-06-11 00:00"):
        with pytest.raises(agreement.SubscriptionEnded):
            end(subscription, at(ends_at))
    assert fees(subscription) == [("fee", 99), ("credit", -66)]


def test_what_has_not_started_is_not_ended():
    subscription = subscribe()
    with pytest.raises(agreement.SubscriptionNotStarted):
        end(subscription, JUNE - MICROSECOND)


def test_an_end_before_a_period_that_has_begun_is_refused():
    subscription = subscribe()
    open_periods(subscription, 2)
    with pytest.raises(agreement.EndsInThePast):
        end(subscription, at("2026-06-30 23:59"))


def test_fee_items_are_only_added():
    open_periods(subscribe())
    for write in (lambda: FeeItem.objects.update(amount=1), lambda: FeeItem.objects.all().delete()):
        with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
            write()


# Reading


def test_a_period_contains_its_start_and_not_its_end():
    subscription = subscribe()
    first, second = open_periods(subscription, 2)
    tenant = subscription.tenant
    boundary = at("2026-07-01 00:00")
    assert period_at(tenant, at=JUNE - MICROSECOND) is None
    assert [period_at(tenant, at=instant) for instant in (JUNE, boundary - MICROSECOND, boundary)] == [
        first,
        first,
        second,
    ]
    assert period_at(tenant, at=at("2026-08-01 00:00")) is None


def test_the_versions_of_a_period_tile_it():
    subscription = subscribe()
    [period] = open_periods(subscription)
    old = subscription.version
    new = version_with(code="pro")
    assert version_spans(period) == [VersionSpan(old.pk, JUNE, period.ends_at)]
    change(subscription, period, old, new, at("2026-06-15 00:00"))
    assert version_spans(period) == [
        VersionSpan(old.pk, JUNE, at("2026-06-15 00:00")),
        VersionSpan(new.pk, at("2026-06-15 00:00"), period.ends_at),
    ]


def test_a_version_that_was_left_at_once_has_no_span():
    subscription = subscribe()
    [period] = open_periods(subscription)
    new = version_with(code="pro")
    change(subscription, period, subscription.version, new, JUNE)
    assert version_spans(period) == [VersionSpan(new.pk, JUNE, period.ends_at)]


def change(subscription, period, old, new, effective_at):
    TierChange.objects.create(
        tenant=subscription.tenant,
        subscription=subscription,
        period=period,
        from_version=old,
        to_version=new,
        effective_at=effective_at,
        fee="none",
        grain="day",
        allowance="prorated",
        bill="next",
    )


def test_the_version_of_a_running_subscription_is_loaded_with_it(django_assert_num_queries):
    tenant = subscribe().tenant
    with django_assert_num_queries(1):
        running = running_subscription(tenant, at=JUNE)
        assert isinstance(running, Subscription)
        assert running.version.tier.code == "growth"
