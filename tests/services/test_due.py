"""Due work: in order, each item once, failures parked with their reason, clocks moved item by item, and advances resumed."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from invoices.models import ClockEntry, Invoice
from invoices.services import advancing, due
from invoices.services import journal as journals
from invoices.services.advancing import advance
from invoices.services.due import TRIES_MAX, release_parked, run_due, sweep
from invoices.services.journal import JournalEntry
from invoices.services.subscribing import start_subscription
from metering.models import MeterBalance, OverageCharge
from subscriptions.models import BillingPeriod, Subscription, TestClock
from subscriptions.selectors.clock import wall_now
from subscriptions.services import clocks, tenants
from subscriptions.services.clocks import ClockAdvancing, ClockMovesForward, ClockNotFound
from tests.races import together
from tests.world import ACTOR, JUNE, at, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def tokens(transactional_db):
    """Make the meter that every version here charges."""
    return make_meter()


def invoices(tenant):
    return [(invoice.reason, invoice.total) for invoice in Invoice.objects.filter(tenant=tenant).order_by("pk")]


def first_period(world):
    return world.subscription.periods.get(sequence=1)


def kept(clock):
    """Return the clock's entries as an advance answers with them."""
    return [JournalEntry(one.at, one.what, one.object) for one in ClockEntry.objects.filter(clock=clock).order_by("pk")]


def real_tenant(*, starts_at):
    """Subscribe a tenant that lives in wall time."""
    tenant = tenants.create_tenant(code="real", name="Real", actor=ACTOR)
    start_subscription(
        tenant=tenant,
        version=publish("real"),
        starts_at=starts_at,
        anchor_at=starts_at,
        now=wall_now(),
        actor=ACTOR,
    )
    return tenant


def fail(monkeypatch, what, *, for_row=None):
    """Make one kind of due work fail: for all rows, or for one."""

    def broken(kind):
        def run(pks, now):
            if for_row is None or for_row in pks:
                raise RuntimeError("no ink")
            kind.run(pks, now)

        return replace(kind, run=run) if kind.what == what else kind

    monkeypatch.setattr(due, "KINDS", tuple(broken(kind) for kind in due.KINDS))


class TestOnAClock:
    def test_everything_is_run_in_the_order_of_its_time_and_the_journal_says_so(self):
        world = make_world(now=at("2026-06-20 00:00"))
        world.use(12_345, time=at("2026-06-05 00:00"))
        journal = advance(clock_id=world.clock.pk, to=at("2026-08-01 01:00"), actor=ACTOR)
        subscription = f"subscription {world.subscription.public_id}"
        periods = list(world.subscription.periods.order_by("sequence"))
        assert journal == [
            JournalEntry(at("2026-06-20 00:00"), "book_overage", f"balance {world.tenant.code}/tokens"),
            JournalEntry(at("2026-07-01 00:00"), "open_period", subscription),
            JournalEntry(at("2026-07-01 01:00"), "close_period", f"period {periods[0].public_id}"),
            JournalEntry(at("2026-08-01 00:00"), "open_period", subscription),
            JournalEntry(at("2026-08-01 01:00"), "close_period", f"period {periods[1].public_id}"),
        ]
        assert world.now == at("2026-08-01 01:00")

    def test_a_boundary_opens_before_the_period_closes_when_there_is_no_grace(self):
        world = make_world(version=publish("prompt", grace_hours=0))
        journal = advance(clock_id=world.clock.pk, to=at("2026-07-01 00:00"), actor=ACTOR)
        assert [entry.what for entry in journal] == ["open_period", "close_period"]
        assert invoices(world.tenant) == [("opening", 99), ("period", 99)]

    def test_each_item_sees_the_clock_at_its_own_time(self):
        world = make_world()
        advance(clock_id=world.clock.pk, to=at("2026-12-15 00:00"), actor=ACTOR)
        finalized = Invoice.objects.filter(tenant=world.tenant).order_by("pk").values_list("finalized_at", flat=True)
        assert list(finalized)[:3] == [JUNE, at("2026-07-01 01:00"), at("2026-08-01 01:00")]

    def test_advancing_in_steps_is_advancing_at_once(self):
        at_once, in_steps = make_world(), make_world()
        advance(clock_id=at_once.clock.pk, to=at("2026-09-02 00:00"), actor=ACTOR)
        for days in range(1, 94):
            advance(clock_id=in_steps.clock.pk, to=JUNE + timedelta(days=days), actor=ACTOR)
        assert invoices(in_steps.tenant) == invoices(at_once.tenant)

    def test_a_clock_never_goes_back_and_has_to_exist(self):
        world = make_world()
        with pytest.raises(ClockMovesForward):
            advance(clock_id=world.clock.pk, to=JUNE - timedelta(seconds=1), actor=ACTOR)
        with pytest.raises(ClockNotFound):
            advance(clock_id=0, to=JUNE, actor=ACTOR)
        assert advance(clock_id=world.clock.pk, to=JUNE, actor=ACTOR) == []

    def test_an_advance_that_died_is_resumed_and_runs_nothing_twice(self, monkeypatch):
        world = make_world()
        closing = next(kind for kind in due.KINDS if kind.what == "close_period")

        class Killed(BaseException):
            """The process ended here."""

        def dies(pks, now):
            closing.run(pks, now)
            raise Killed

        with monkeypatch.context() as patch:
            kinds = [replace(kind, run=dies) if kind is closing else kind for kind in due.KINDS]
            patch.setattr(due, "KINDS", tuple(kinds))
            with pytest.raises(Killed):
                advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
        assert world.clock.status != world.now
        assert (world.clock.status, world.clock.now) == ("advancing", at("2026-07-01 01:00"))
        assert world.record(world.event(5)).outcomes[0].code == "clock_advancing"

        with pytest.raises(ClockAdvancing):
            advance(clock_id=world.clock.pk, to=at("2026-09-02 00:00"), actor=ACTOR)
        advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
        assert invoices(world.tenant) == [("opening", 99), ("period", 99), ("period", 99)]
        assert world.now == at("2026-08-02 00:00")
        assert world.clock.status == TestClock.Status.READY

    def test_the_journal_is_kept_with_whose_it_was_and_which_row(self):
        world = make_world(now=at("2026-06-20 00:00"))
        world.use(12_345, time=at("2026-06-05 00:00"))
        journal = advance(clock_id=world.clock.pk, to=at("2026-07-01 01:00"), actor=ACTOR)
        assert kept(world.clock) == journal != []
        balance = world.balance(period__sequence=1)
        entries = ClockEntry.objects.order_by("pk").values_list("tenant_id", "row_type", "row_id")
        assert list(entries) == [
            (world.tenant.pk, "metering.meterbalance", str(balance.pk)),
            (world.tenant.pk, "subscriptions.subscription", str(world.subscription.pk)),
            (world.tenant.pk, "subscriptions.billingperiod", str(balance.period_id)),
        ]
        with pytest.raises(IntegrityError, match="never changed or deleted"), transaction.atomic():
            ClockEntry.objects.update(what="nothing")

    @pytest.mark.parametrize("after_the_work", [False, True])
    def test_an_advance_that_died_has_kept_what_it_did_and_its_resumption_keeps_the_rest(
        self, monkeypatch, after_the_work
    ):
        world = make_world()
        entered = []

        class Killed(BaseException):
            """The process ended here."""

        def dies(**terms):
            if terms["what"] == "close_period" and not after_the_work:
                raise Killed
            entered.append(terms["what"])
            return journals.enter(**terms)

        def settles_and_dies(*terms):
            [entry] = run_and_settle(*terms)
            if entry.what == "close_period" and after_the_work:
                raise Killed
            return [entry]

        run_and_settle = due._run_and_settle
        with monkeypatch.context() as patch:
            patch.setattr(due, "enter", dies)
            patch.setattr(due, "_run_and_settle", settles_and_dies)
            with pytest.raises(Killed):
                advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
        before = kept(world.clock)
        assert [entry.what for entry in before] == entered == ["open_period", "close_period"][: 1 + after_the_work]
        resumed = advance(clock_id=world.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
        assert kept(world.clock) == before + resumed
        assert [entry.what for entry in kept(world.clock)] == ["open_period", "close_period"] * 2
        assert len(set(kept(world.clock))) == 4

    def test_what_falls_due_next_is_known_in_the_order_in_which_it_is_run(self):
        world = make_world(version=publish("prompt", grace_hours=0), now=at("2026-06-20 00:00"))
        world.use(12_345, time=at("2026-06-05 00:00"))
        make_world()
        found = due.upcoming(clock=world.clock, limit=50)
        assert [(item.at, item.what) for item in found] == [
            (world.balance().due_at, "book_overage"),
            (at("2026-07-01 00:00"), "open_period"),
            (at("2026-07-01 00:00"), "close_period"),
        ]
        assert found[2].row_type == "subscriptions.billingperiod"
        assert found[2].row_id == str(first_period(world).pk)
        assert due.upcoming(clock=world.clock, limit=1) == found[:1]

    def test_of_two_advances_at_once_one_is_told_to_wait(self):
        world = make_world()
        to = at("2026-12-02 00:00")
        results = together(*[lambda: advance(clock_id=world.clock.pk, to=to, actor=ACTOR)] * 2)
        refused = [result for result in results if isinstance(result, Exception)]
        assert all(isinstance(result, ClockAdvancing) for result in refused)
        # The other may have come when all was done: then it ran nothing.
        assert sorted(len(result) for result in results if isinstance(result, list))[-1] == 16
        assert len(invoices(world.tenant)) == 7

    def test_while_one_advances_another_is_refused_and_nothing_is_left_locked(self, monkeypatch):
        world = make_world()
        tried = []

        def meanwhile(**terms):
            tried.append(together(lambda: advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)))
            return run_due(**terms)

        with monkeypatch.context() as patch:
            patch.setattr(advancing, "run_due", meanwhile)
            advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
        [[refusal]] = tried
        assert isinstance(refusal, ClockAdvancing)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            assert cursor.fetchone() == (0,)

    def test_one_clock_moves_no_other(self):
        moved, other = make_world(), make_world()
        advance(clock_id=moved.clock.pk, to=at("2026-09-02 00:00"), actor=ACTOR)
        assert (other.now, invoices(other.tenant)) == (JUNE, [("opening", 99)])


class TestTheSweep:
    def test_wall_time_tenants_are_run_and_clocks_stay_where_they_are(self):
        world = make_world()
        tenant = real_tenant(starts_at=wall_now() - timedelta(days=40))
        journal = sweep(now=wall_now(), seconds_max=30)
        assert [entry.what for entry in journal] == ["close_period"]
        assert invoices(tenant) == [("opening", 99), ("period", 99)]
        assert (world.now, invoices(world.tenant)) == (JUNE, [("opening", 99)])
        assert sweep(now=wall_now(), seconds_max=30) == []
        assert not ClockEntry.objects.exists()

    def test_usage_that_came_while_a_clock_stood_still_is_booked_by_its_time(self):
        world = make_world(now=at("2026-06-20 00:00"))
        world.use(12_345, time=at("2026-06-05 00:00"))
        assert [entry.what for entry in sweep(now=wall_now(), seconds_max=30)] == ["book_overage"]
        assert OverageCharge.objects.get().booked_at == at("2026-06-20 00:00")
        booked = JournalEntry(at("2026-06-20 00:00"), "book_overage", f"balance {world.tenant.code}/tokens")
        assert kept(world.clock) == [booked]

    def test_a_clock_that_is_advancing_is_left_to_its_advance(self):
        world = make_world(now=at("2026-06-20 00:00"))
        world.use(12_345, time=at("2026-06-05 00:00"))
        clocks.begin_advance(clock_id=world.clock.pk, to=at("2026-06-21 00:00"))
        assert sweep(now=wall_now(), seconds_max=30) == []

    def test_five_sweeps_at_once_do_each_thing_once(self):
        tenant = real_tenant(starts_at=wall_now() - timedelta(days=100))
        journals = together(*[lambda: sweep(now=wall_now(), seconds_max=30)] * 5)
        assert sum(len(journal) for journal in journals) == 5  # three closings, two looks for late usage
        assert invoices(tenant) == [("opening", 99)] + [("period", 99)] * 3

    def test_it_stops_when_its_time_is_up(self):
        real_tenant(starts_at=wall_now() - timedelta(days=40))
        assert sweep(now=wall_now(), seconds_max=0) == []


class TestFailures:
    def test_a_poison_row_is_parked_with_its_reason_and_the_others_go_on(self, monkeypatch):
        poisoned = make_world()
        healthy = make_world()
        TestClock.objects.filter(pk=healthy.clock.pk)
        fail(monkeypatch, "close_period", for_row=first_period(poisoned).pk)
        journal = advance(clock_id=poisoned.clock.pk, to=at("2026-08-02 00:00"), actor=ACTOR)
        period = first_period(poisoned)
        assert (period.attempts, period.parked_reason) == (TRIES_MAX, "RuntimeError: no ink")
        assert period.parked_at is not None
        assert JournalEntry(at("2026-07-01 01:00"), "parked", f"period {period.public_id}") in journal
        assert kept(poisoned.clock) == journal
        assert poisoned.subscription.periods.get(sequence=2).closed_at == at("2026-08-01 01:00")

        advance(clock_id=healthy.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
        assert invoices(healthy.tenant) == [("opening", 99), ("period", 99)]

    def test_what_was_parked_is_done_once_it_is_released(self, monkeypatch):
        world = make_world()
        with monkeypatch.context() as patch:
            fail(patch, "close_period")
            advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
        assert invoices(world.tenant) == [("opening", 99)]
        release_parked(first_period(world))
        advance(clock_id=world.clock.pk, to=at("2026-07-03 00:00"), actor=ACTOR)
        assert invoices(world.tenant) == [("opening", 99), ("period", 99)]
        assert (first_period(world).attempts, first_period(world).leased_until) == (0, None)

    def test_in_wall_time_a_failed_row_waits_before_its_next_try(self, monkeypatch):
        tenant = real_tenant(starts_at=wall_now() - timedelta(days=40))
        fail(monkeypatch, "close_period")
        assert sweep(now=wall_now(), seconds_max=30) == []
        period = BillingPeriod.objects.get(tenant=tenant, sequence=1)
        assert (period.attempts, period.parked_at) == (1, None)
        assert timedelta(seconds=20) < period.leased_until - wall_now() <= timedelta(seconds=30)

    def test_the_row_of_a_worker_that_died_is_taken_when_its_lease_has_run_out(self):
        tenant = real_tenant(starts_at=wall_now() - timedelta(days=40))
        periods = BillingPeriod.objects.filter(tenant=tenant, sequence=1)
        periods.update(leased_until=wall_now() + timedelta(minutes=5), attempts=1)
        assert sweep(now=wall_now(), seconds_max=30) == []
        periods.update(leased_until=wall_now() - timedelta(seconds=1))
        assert [entry.what for entry in sweep(now=wall_now(), seconds_max=30)] == ["close_period"]
        assert (periods.get().attempts, periods.get().leased_until) == (0, None)

    def test_work_that_leaves_its_row_due_counts_as_a_failure_and_ends(self, monkeypatch):
        world = make_world(now=at("2026-06-20 00:00"))
        world.use(12_345, time=at("2026-06-05 00:00"))
        kinds = [
            replace(kind, run=lambda pks, now: None) if kind.what == "book_overage" else kind for kind in due.KINDS
        ]
        monkeypatch.setattr(due, "KINDS", tuple(kinds))
        advance(clock_id=world.clock.pk, to=at("2026-06-20 00:00"), actor=ACTOR)
        assert MeterBalance.objects.get(tenant=world.tenant).parked_reason.startswith("StillDue: ")

    def test_a_parked_subscription_does_not_stop_its_closings(self, monkeypatch):
        world = make_world()
        with monkeypatch.context() as patch:
            fail(patch, "open_period")
            advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
        assert Subscription.objects.get(pk=world.subscription.pk).parked_at is not None
        assert invoices(world.tenant) == [("opening", 99), ("period", 99)]  # closing opens what has begun
