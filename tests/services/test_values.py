"""Meters that do not add up (max, latest, unique_count): every way in gives the value that the period's events have."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from django.db.models import F
from hypothesis import given, settings
from hypothesis import strategies as st

from invoices.models import Invoice
from invoices.selectors.books import breaches
from invoices.selectors.verifying import verify
from invoices.services.advancing import advance
from invoices.services.subscribing import start_subscription
from metering.core.measuring import Aggregation, Reading, fold
from metering.models import CreditGrant, LatestReading, LedgerEntry, SeenValue, SegmentTotal, UsageEvent
from metering.services import committer
from metering.services.ingest import record_events
from metering.services.replaying import replay_events
from metering.services.requests import NewEvent, Record
from metering.services.reversing import reverse_event
from subscriptions.selectors.clock import wall_now
from subscriptions.services import clocks, tenants
from tests.races import together
from tests.world import ACTOR, JUNE, World, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

NOW = at("2026-06-20 12:00")
VALUES = ["max", "latest", "unique_count"]
ALLOWED = 5
PER_UNIT = {"model": "per_unit", "unit_amount": "0.5"}


def world_of(aggregation, *, now=NOW, **terms):
    """Make a tenant with 5 units included, and half a dollar for each unit beyond."""
    make_meter(aggregation=aggregation, dimensions=["model"])
    charges = [charge(**({"included": str(ALLOWED), "price": PER_UNIT} | terms))]
    return make_world(version=publish("values", charges=charges), now=now)


def use(world, value, *, day=5, source="test", id=None, **data):
    """Record one event; return our id of it."""
    event = replace(world.event(value, time=JUNE + timedelta(days=day - 1), id=id, **data), source=source)
    [outcome] = world.record(event).outcomes
    assert outcome.status == "accepted"
    return outcome.event_id


def reverse(event_id):
    reverse_event(event_id=event_id, reason="test", actor=ACTOR)


def june(world):
    return world.position(period__sequence=1)


def close_june(world):
    advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)


def proofs(world):
    """Return what `verify` finds wrong with each of the tenant's invoices."""
    return [verify(invoice) for invoice in Invoice.objects.filter(tenant=world.tenant).order_by("pk")]


def test_a_max_is_the_largest_and_falls_only_when_its_event_is_reversed():
    world = world_of("max")
    _, largest, _ = use(world, 3), use(world, 9), use(world, "7.5")
    assert world.position() == ("9", "5", "4")
    same = use(world, 9, day=2)
    reverse(largest)
    assert world.position() == ("9", "5", "4")
    reverse(same)
    assert world.position() == ("7.5", "5", "2.5")


def test_a_latest_is_the_last_by_its_time_whenever_it_arrives():
    world = world_of("latest")
    last = use(world, 8, day=9)
    use(world, 20, day=7)
    assert world.position() == ("8", "5", "3")
    reverse(last)
    assert world.position() == ("20", "5", "15")
    use(world, 2, day=8)
    assert world.position() == ("2", "2", "0")
    assert CreditGrant.objects.get().remaining == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"source": "a", "id": "2"}, {"source": "b", "id": "1"}),
        ({"source": "a", "id": "1"}, {"source": "a", "id": "2"}),
        ({"source": "B", "id": "9"}, {"source": "a", "id": "1"}),
        ({"source": "Z", "id": "1"}, {"source": "é", "id": "1"}),
        ({"source": "a", "id": "10"}, {"source": "a", "id": "9"}),
    ],
)
def test_of_events_at_one_time_the_latest_is_that_with_the_greater_source_and_id(first, second):
    world = world_of("latest")
    lowest = use(world, 5, source="A", id="0")
    standing = use(world, 7, **second)
    use(world, 6, **first)
    use(world, 4, source="A", id="1")
    assert world.position() == ("7", "5", "2")
    reverse(standing)
    assert world.position() == ("6", "5", "1")
    reverse(lowest)
    assert world.position() == ("6", "5", "1")


def test_a_unique_count_takes_a_number_for_its_string_and_no_more():
    world = world_of("unique_count")
    values = [7, "7", "7.0", Decimal("7.00"), "07", "seven", "Seven", True, "true", 0, "-0"]
    for number, value in enumerate(values):
        event = replace(world.event(time=JUNE), id=f"u{number}", data={"total_tokens": value})
        assert world.record(event).outcomes[0].status == "accepted"
    # 7, "07", "seven", "Seven", true, "true", 0
    assert world.position() == ("7", "5", "2")
    assert sorted(SeenValue.objects.values_list("events", flat=True)) == [1, 1, 1, 1, 1, 2, 4]


def test_a_unique_count_loses_a_value_with_its_last_event_and_can_see_it_again():
    world = world_of("unique_count")
    first, second, _ = use(world, 1), use(world, 1), use(world, 2)
    reverse(first)
    assert world.position() == ("2", "2", "0")
    reverse(second)
    assert world.position() == ("1", "1", "0")
    use(world, 1)
    assert world.position() == ("2", "2", "0")


@pytest.mark.parametrize(("aggregation", "used"), [("max", "13"), ("latest", "6"), ("unique_count", "4")])
def test_each_dimension_set_has_a_value_and_the_pool_uses_their_sum(aggregation, used):
    world = world_of(aggregation)
    for day, (value, model) in enumerate([(9, "opus"), (4, "haiku"), (3, "opus"), (3, "haiku"), (3, "opus")], start=2):
        use(world, value, day=day, model=model)
    assert world.position()[0] == used


def test_a_charge_of_its_own_pool_has_a_value_of_its_own():
    make_meter(aggregation="max", dimensions=["model"])
    own = charge(dimensions={"model": "opus"}, included="2", price=PER_UNIT)
    world = make_world(version=publish(charges=[charge(included="5", price=PER_UNIT), own]), now=NOW)
    use(world, 9, model="opus")
    use(world, 7, model="haiku")
    assert world.position(pool="") == ("7", "5", "2")
    assert world.position(pool='{"model":"opus"}') == ("9", "2", "7")


@pytest.mark.parametrize("aggregation", VALUES)
def test_a_period_begins_at_nothing(aggregation):
    world = world_of(aggregation, now=at("2026-07-03 00:00"))
    use(world, 9, day=10)
    use(world, 3, day=32)
    assert june(world)[0] == ("1" if aggregation == "unique_count" else "9")
    assert world.position(period__sequence=2)[0] == ("1" if aggregation == "unique_count" else "3")


@pytest.mark.parametrize("aggregation", VALUES)
def test_when_all_its_events_are_reversed_nothing_is_left(aggregation):
    world = world_of(aggregation)
    for event_id in [use(world, 9, day=3), use(world, 7, day=4), use(world, 8, day=2)]:
        reverse(event_id)
    assert world.position() == ("0", "0", "0")
    assert not LatestReading.objects.exists()
    total = SegmentTotal.objects.get()
    assert (total.quantity, total.events) == (0, 0)
    use(world, 6, day=1)
    assert world.position()[0] == ("1" if aggregation == "unique_count" else "6")


def unsubscribed(aggregation):
    """Make a tenant that has no subscription yet; return it, and what starts one on 1 June."""
    make_meter(aggregation=aggregation)
    version = publish("values", charges=[charge(included=str(ALLOWED), price=PER_UNIT)])
    clock = clocks.create_clock(code="late", now=NOW, actor=ACTOR)
    world = World(tenants.create_tenant(code="org", name="Org", actor=ACTOR, test_clock="late"), clock, None)
    starts = {"starts_at": JUNE, "anchor_at": JUNE, "now": NOW}
    return world, lambda: start_subscription(tenant=world.tenant, version=version, actor=ACTOR, **starts)


@pytest.mark.parametrize(
    ("aggregation", "replayed", "added", "reversed_"),
    [("max", "9", "9", "7"), ("latest", "4", "3", "4"), ("unique_count", "3", "4", "3")],
)
def test_a_replay_counts_like_an_arrival_and_can_be_reversed(aggregation, replayed, added, reversed_):
    world, subscribe = unsubscribed(aggregation)
    days = {"a": (9, 3), "b": (4, 8), "c": (7, 5)}
    events = [world.event(value, time=JUNE + timedelta(days=day), id=name) for name, (value, day) in days.items()]
    assert {outcome.code for outcome in world.record(*events).outcomes} == {"no_period"}
    subscribe()
    assert replay_events(now=wall_now()).counted == 3
    assert world.position()[0] == replayed
    later = use(world, 3, day=15)
    assert world.position()[0] == added
    reverse(later if aggregation == "latest" else UsageEvent.objects.get(event_id="a").pk)
    assert world.position()[0] == reversed_


def test_a_ledger_says_by_how_much_the_value_moved_and_how_many_events_did_it():
    world = world_of("latest")
    for day, value in ((2, 8), (4, 3), (3, 99), (5, 6)):
        use(world, value, day=day)
    entries = LedgerEntry.objects.filter(kind="usage").order_by("pk").values_list("grant__kind", "quantity", "events")
    assert [(grant, int(quantity), events) for grant, quantity, events in entries] == [
        *(("allowance", 5, 1), (None, 3, 0)),
        *((None, -3, 1), ("allowance", -2, 0)),
        (None, 0, 1),
        *(("allowance", 2, 1), (None, 1, 0)),
    ]


def test_one_event_may_feed_a_sum_and_values():
    for code in VALUES:
        make_meter(code, aggregation=code)
    make_meter()
    charges = [charge(included="5", meter=code) for code in ("tokens", *VALUES)]
    world = make_world(version=publish("both", charges=charges), now=NOW)
    for day, value in ((2, 4), (3, 9), (4, 4)):
        use(world, value, day=day)
    used = {code: world.position(meter__code=code)[0] for code in ("tokens", *VALUES)}
    assert used == {"tokens": "17", "max": "9", "latest": "4", "unique_count": "2"}


@pytest.mark.parametrize("aggregation", VALUES)
def test_the_audit_finds_a_value_that_its_events_do_not_have(aggregation):
    world = world_of(aggregation)
    use(world, 9, day=3)
    use(world, 7, day=4)
    with transaction.atomic():
        SegmentTotal.objects.update(quantity=F("quantity") + 1)
        assert "values_are_of_their_events" in {breach.invariant for breach in breaches()}
        transaction.set_rollback(True)
    with transaction.atomic():
        SegmentTotal.objects.update(events=1)
        SeenValue.objects.filter(events=1).update(events=0)
        found = {breach.invariant for breach in breaches()}
        assert "values_are_of_their_events" in found
        assert ("seen_values_are_counted" in found) == (aggregation == "unique_count")
        transaction.set_rollback(True)


# Closing, and what comes late


@pytest.mark.parametrize(
    ("aggregation", "in_time", "late", "after_reversal"),
    [
        ("max", ("8", "5", "3"), ("12", "5", "7"), ("8", "5", "3")),
        ("latest", ("8", "5", "3"), ("12", "5", "7"), ("8", "5", "3")),
        ("unique_count", ("2", "2", "0"), ("3", "2", "1"), ("2", "2", "0")),
    ],
)
def test_late_usage_of_a_closed_period_is_overage_and_its_reversal_takes_it_back(
    aggregation, in_time, late, after_reversal
):
    world = world_of(aggregation)
    use(world, 6, day=3)
    use(world, 8, day=9)
    close_june(world)
    assert june(world) == in_time
    event_id = use(world, 12, day=25)
    assert june(world) == late
    advance(clock_id=world.clock.pk, to=at("2026-07-03 00:00"), actor=ACTOR)
    reverse(event_id)
    assert june(world) == after_reversal
    advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
    assert proofs(world) == [[], [], []]


def test_a_late_event_that_lowers_a_latest_makes_nothing_available_again():
    world = world_of("latest")
    use(world, 8, day=9)
    close_june(world)
    use(world, 2, day=25)
    assert june(world) == ("2", "2", "0")
    [grant] = CreditGrant.objects.filter(balance__period__sequence=1)
    assert (grant.burned, grant.expired, grant.remaining) == (2, 3, 0)
    use(world, 4, day=26)
    assert june(world) == ("4", "2", "2")
    advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
    assert proofs(world) == [[], [], []]
    lines = Invoice.objects.filter(tenant=world.tenant).order_by("pk").values_list("reason", "lines__amount")
    assert [(reason, amount) for reason, amount in lines if amount and abs(amount) < 99] == [
        ("period", Decimal("1.50")),
        ("period", Decimal("-0.50")),
    ]


def test_late_sets_that_rise_and_fall_in_one_request_are_proved_in_the_order_in_which_they_were_posted():
    world = world_of("latest")
    use(world, 8, day=9, model="opus")
    close_june(world)
    falls = replace(world.event(0, time=at("2026-06-25 00:00"), model="opus"))
    rises = replace(world.event(4, time=at("2026-06-25 00:00"), model="zebra"))
    world.record(rises, falls)
    assert june(world) == ("4", "0", "4")
    advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
    assert proofs(world) == [[], [], []]


def test_values_of_several_sets_may_fall_late_in_one_request():
    world = world_of("latest")
    for model in ("opus", "haiku", "zebra"):
        use(world, 8, day=9, model=model)
    close_june(world)
    assert june(world) == ("24", "5", "19")
    falls = [(0, "opus"), (1, "haiku"), (2, "zebra")]
    world.record(*(world.event(value, time=at("2026-06-25 00:00"), model=model) for value, model in falls))
    assert june(world) == ("3", "3", "0")
    [grant] = CreditGrant.objects.filter(balance__period__sequence=1)
    assert (grant.burned, grant.expired, grant.remaining) == (3, 2, 0)
    advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
    assert proofs(world) == [[], [], []]


# Laws

sent_events = st.lists(
    st.tuples(
        st.integers(0, 9),  # value
        st.integers(1, 4),  # day
        st.sampled_from(["a", "B", "é"]),  # source
        st.sampled_from(["1", "2", "10"]),  # id
        st.sampled_from(["opus", "haiku"]),
    ),
    min_size=2,
    max_size=9,
    unique_by=lambda one: one[2:4],
)


class Story:
    """Sends events in groups and reverses some of them, and knows which are left."""

    def __init__(self, world, random):
        self.world, self.random = world, random
        self.left = {}
        self._stored = {}

    def tell(self, events):
        """Send the events in an order and grouping of chance, some twice, each group one transaction of several requests."""
        repeats = self.random.sample(events, len(events) // 2)
        waiting = self.random.sample(events + repeats, len(events + repeats))
        while waiting:
            size = self.random.randint(1, 5)
            self._send(waiting[:size])
            waiting = waiting[size:]
            if self.left and self.random.random() < 0.4:
                identity = self.random.choice(sorted(self.left))
                del self.left[identity]
                reverse(self._stored[identity])

    def used(self, aggregation):
        """Return what the core counts from the events that are left."""
        by_model = {}
        for value, day, source, name, model in self.left.values():
            seen = str(value) if aggregation == "unique_count" else None
            quantity = Decimal(1 if aggregation == "unique_count" else value)
            reading = Reading(JUNE + timedelta(days=day), source, name, quantity, seen)
            by_model.setdefault(model, []).append(reading)
        return sum(fold(Aggregation(aggregation), readings) for readings in by_model.values())

    def _send(self, events):
        code, now = self.world.tenant.code, wall_now()
        requests = []
        for value, day, source, name, model in events:
            data = {"total_tokens": value, "model": model}
            event = NewEvent(code, source, name, "llm.completion", JUNE + timedelta(days=day), data)
            requests.append(Record([event], now))
        for event, report in zip(events, record_events(requests), strict=True):
            [outcome] = report.outcomes
            if outcome.status == "accepted":
                self.left[event[2:4]] = event
                self._stored[event[2:4]] = outcome.event_id


@pytest.mark.parametrize("aggregation", VALUES)
def test_any_order_and_grouping_with_repeats_and_reversals_gives_the_fold_of_what_is_left(aggregation):
    make_meter(aggregation=aggregation, dimensions=["model"])
    version = publish("law", charges=[charge(included=str(ALLOWED), price=PER_UNIT)])

    @settings(max_examples=12, deadline=None)
    @given(sent_events, st.integers(0, 9), st.randoms(use_true_random=False))
    def law(events, in_time, random):
        world = make_world(version=version, now=NOW)
        story = Story(world, random)
        story.tell(events[:in_time])
        balance = world.balance()
        used = story.used(aggregation)
        assert (balance.used, balance.covered, balance.events) == (used, min(used, ALLOWED), len(story.left))
        close_june(world)
        story.tell(events[in_time:])
        balance = world.balance(period__sequence=1)
        assert (balance.used, balance.events) == (story.used(aggregation), len(story.left))
        [grant] = balance.grants.all()
        assert (grant.remaining, grant.burned) == (0, balance.covered)
        advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
        assert proofs(world) == [[], [], []]

    law()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("aggregation", "used"), [("max", "40"), ("latest", "7"), ("unique_count", "41")])
def test_concurrent_events_give_the_value_of_all_of_them(aggregation, used):
    world = world_of(aggregation)
    events = [world.event(value, time=JUNE + timedelta(hours=40 - value)) for value in range(41)]
    last = world.event(7, time=JUNE + timedelta(days=3))
    with ThreadPoolExecutor(16) as threads:
        reports = list(
            threads.map(lambda event: committer.submit(Record([event], datetime.now(tz=UTC))), [*events, last, *events])
        )
    statuses = Counter(outcome.status for report in reports for outcome in report.outcomes)
    assert statuses == {"accepted": 42, "duplicate": 41}
    assert world.position()[0] == used
    assert world.balance().events == 42


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("aggregation", "used"), [("max", "30"), ("latest", "30"), ("unique_count", "11")])
def test_reversals_race_with_arrivals(aggregation, used):
    world = world_of(aggregation)
    taken_back = [use(world, value, day=2 + value % 9) for value in range(90, 98)]
    kept = [world.event(value, time=JUNE + timedelta(hours=value)) for value in range(20, 31)]
    calls = [lambda event_id=event_id: reverse(event_id) for event_id in taken_back]
    calls += [lambda event=event: record_events([Record([event], datetime.now(tz=UTC))]) for event in kept]
    results = together(*calls)
    assert [result for result in results if isinstance(result, Exception)] == []
    assert world.position()[0] == used
