"""Retries, claims, triggers, constraints and ids, on a real PostgreSQL."""

import doctest
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, OperationalError, connection, models, transaction
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter, OperationWriter
from django.test.utils import isolate_apps

from billing_site import database
from billing_site.database import (
    AppendOnly,
    GuardTrigger,
    Trigger,
    UnboundedDecimalField,
    among,
    claim,
    no_overlap,
    run_with_retries,
    sqlstate,
    uuid7,
    wall_now,
)


@contextmanager
def tables(*kinds):
    """Create the models' tables, committed, so that several connections see them, and drop them again."""
    with connection.schema_editor() as editor:
        for kind in kinds:
            editor.create_model(kind)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            for kind in reversed(kinds):
                editor.delete_model(kind)
        connection.close()


@pytest.fixture
def committed(django_db_setup, django_db_blocker):
    """The test database without a transaction around the test; the test removes what it makes."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def job(committed):
    with isolate_apps("billing_site"):

        class Job(models.Model):
            name = models.CharField(max_length=20)
            due_at = models.DateTimeField(null=True)
            leased_until = models.DateTimeField(null=True)
            attempts = models.IntegerField(default=0)
            parked_at = models.DateTimeField(null=True)

            class Meta:
                app_label = "billing_site"
                db_table = "test_job"

        with tables(Job):
            yield Job


@contextmanager
def applied(operation):
    """Run a migration's operation, and its reverse afterwards."""
    state = ProjectState()
    with connection.schema_editor() as editor:
        operation.database_forwards("billing_site", editor, state, state)
    yield
    with connection.schema_editor() as editor:
        operation.database_backwards("billing_site", editor, state, state)


def run(sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


def in_thread(function):
    def closing():
        try:
            return function()
        finally:
            connection.close()

    return closing


PAST = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2126, 1, 1, tzinfo=UTC)


# Retries


def failing(times, kind):
    calls = []

    def function():
        calls.append(1)
        if len(calls) <= times:
            raise kind
        return len(calls)

    return function


def test_a_deadlock_or_serialisation_failure_is_tried_again(committed):
    wrapped = OperationalError("deadlock detected")
    wrapped.__cause__ = psycopg.errors.DeadlockDetected()
    for error in (wrapped, psycopg.errors.SerializationFailure()):
        assert run_with_retries(failing(4, error)) == 5
        with pytest.raises(type(error)):
            run_with_retries(failing(5, error))
    with pytest.raises(psycopg.errors.SerializationFailure):
        run_with_retries(failing(1, psycopg.errors.SerializationFailure()), attempts=1)


@pytest.mark.parametrize("error", [ValueError(), IntegrityError(), psycopg.errors.LockNotAvailable()])
def test_other_errors_are_not_tried_again(committed, error):
    function = failing(1, error)
    with pytest.raises(type(error)):
        run_with_retries(function)
    assert function() == 2


@pytest.mark.django_db
def test_inside_of_a_transaction_nothing_is_tried_again():
    function = failing(1, psycopg.errors.DeadlockDetected())
    with transaction.atomic(), pytest.raises(psycopg.errors.DeadlockDetected):
        run_with_retries(function)
    assert function() == 2


def test_two_transactions_that_lock_in_opposite_order_both_succeed(job):
    first, second = job.objects.create(name="a"), job.objects.create(name="b")
    both_hold_one = threading.Barrier(2)

    def move(one, other):
        attempts = []

        def function():
            attempts.append(1)
            with transaction.atomic():
                job.objects.filter(pk=one.pk).update(attempts=models.F("attempts") + 1)
                if len(attempts) == 1:
                    both_hold_one.wait(5)
                job.objects.filter(pk=other.pk).update(attempts=models.F("attempts") + 1)

        run_with_retries(function)
        return len(attempts)

    with ThreadPoolExecutor(2) as pool:
        tries = [
            future.result(20)
            for future in (
                pool.submit(in_thread(lambda: move(first, second))),
                pool.submit(in_thread(lambda: move(second, first))),
            )
        ]
    assert sorted(tries) == [1, 2]
    assert set(job.objects.values_list("attempts", flat=True)) == {2}


def test_the_state_of_an_error_is_found_through_djangos_wrapping(job):
    with pytest.raises(IntegrityError) as caught:
        job.objects.create(name=None)
    assert sqlstate(caught.value) == "23502"
    assert sqlstate(ValueError()) is None
    assert sqlstate(OperationalError()) is None


# The clock


@pytest.mark.django_db
def test_the_wall_clock_goes_on_within_a_transaction_and_is_in_utc():
    first, second = wall_now(), wall_now()
    assert first < second
    assert first.tzinfo is UTC
    assert abs(datetime.now(UTC) - second) < timedelta(seconds=5)


# Claims


def test_a_condition_finds_the_rows_among_hundreds_of_ids(job):
    ids = [row.pk for row in job.objects.bulk_create(job(name=str(number)) for number in range(600))]
    found = job.objects.filter(among("pk", ids[1:-1])).order_by("pk").values_list("pk", flat=True)
    assert list(found) == ids[1:-1]
    assert set(job.objects.exclude(among("pk", ids[1:])).values_list("pk", flat=True)) == {ids[0]}
    assert not job.objects.filter(among("pk", [])).exists()


def test_a_claim_takes_due_rows_the_longest_due_first_and_counts_the_attempt(job):
    job.objects.create(name="later", due_at=LATER)
    job.objects.create(name="never", due_at=None)
    job.objects.create(name="parked", due_at=PAST, parked_at=PAST)
    job.objects.create(name="leased", due_at=PAST, leased_until=LATER)
    job.objects.create(name="second", due_at=PAST + timedelta(hours=1))
    job.objects.create(name="first", due_at=PAST, leased_until=PAST, attempts=3)
    rows = claim(job.objects.all(), lease_seconds=60, limit=10)
    assert [(row.name, row.attempts) for row in rows] == [("first", 4), ("second", 1)]
    for row in rows:
        stored = job.objects.get(pk=row.pk)
        assert (stored.attempts, stored.leased_until) == (row.attempts, row.leased_until)
        assert timedelta(seconds=50) < stored.leased_until - wall_now() <= timedelta(seconds=60)
    assert claim(job.objects.all(), lease_seconds=60, limit=10) == []


def test_a_claim_takes_no_more_than_its_limit_and_only_of_its_queryset(job):
    for name in "abcd":
        job.objects.create(name=name, due_at=PAST)
    assert [row.name for row in claim(job.objects.exclude(name="a"), lease_seconds=60, limit=2)] == ["b", "c"]


def test_due_times_can_be_read_by_another_clock_than_leases(job):
    job.objects.create(name="in 2126", due_at=LATER)
    assert claim(job.objects.all(), lease_seconds=60, limit=1, now=LATER - timedelta(microseconds=1)) == []
    (row,) = claim(job.objects.all(), lease_seconds=60, limit=1, now=LATER)
    assert row.leased_until < LATER


def test_a_lease_that_has_ended_is_claimed_again(job):
    job.objects.create(name="a", due_at=PAST)
    claim(job.objects.all(), lease_seconds=0.05, limit=1)
    time.sleep(0.06)
    (row,) = claim(job.objects.all(), lease_seconds=60, limit=1)
    assert row.attempts == 2


def test_eight_workers_share_the_rows_and_none_is_taken_twice(job):
    job.objects.bulk_create(job(name=str(index), due_at=PAST) for index in range(60))
    start = threading.Barrier(8)

    def work():
        start.wait(5)
        taken = []
        while rows := claim(job.objects.all(), lease_seconds=60, limit=4):
            taken += [row.pk for row in rows]
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [pk for future in [pool.submit(in_thread(work)) for _ in range(8)] for pk in future.result(20)]
    assert len(taken) == len(set(taken)) == 60
    assert set(job.objects.values_list("attempts", flat=True)) == {1}


def test_a_row_that_another_transaction_holds_is_skipped_and_not_waited_for(job):
    held, free = job.objects.create(name="held", due_at=PAST), job.objects.create(name="free", due_at=PAST)
    with transaction.atomic(), ThreadPoolExecutor(1) as pool:
        job.objects.select_for_update().get(pk=held.pk)
        rows = pool.submit(in_thread(lambda: claim(job.objects.all(), lease_seconds=60, limit=5))).result(5)
    assert [row.pk for row in rows] == [free.pk]


def test_a_claim_refuses_to_be_part_of_another_transaction(job):
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        claim(job.objects.all(), lease_seconds=60, limit=1)


# Triggers


def refused(sql):
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        run(sql)
    assert sqlstate(caught.value) == "23001"
    return str(caught.value)


@pytest.fixture
def ledger(committed):
    run("CREATE TABLE test_ledger (id bigint, at timestamptz NOT NULL, n numeric, status text)")
    yield
    run("DROP TABLE test_ledger")


@pytest.fixture
def partitioned(committed):
    run("CREATE TABLE test_ledger (id bigint, at timestamptz NOT NULL, n numeric, status text) PARTITION BY RANGE (at)")
    run("CREATE TABLE test_ledger_1 PARTITION OF test_ledger FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')")
    yield
    run("DROP TABLE test_ledger")


def insert(number, status="open"):
    run("INSERT INTO test_ledger VALUES (%s, '2026-01-15', %s, %s)", [number, number, status])


@pytest.mark.parametrize("table", ["ledger", "partitioned"])
def test_rows_of_an_append_only_table_stay(table, request):
    request.getfixturevalue(table)
    with applied(AppendOnly("test_ledger")):
        insert(1)
        for sql in [
            "UPDATE test_ledger SET n = 2",
            "UPDATE test_ledger SET n = n",
            "DELETE FROM test_ledger",
            "TRUNCATE test_ledger",
        ]:
            assert "never changed or deleted" in refused(sql)
        run("UPDATE test_ledger SET n = 2 WHERE id = 99")
        assert run("SELECT n FROM test_ledger") == [(Decimal(1),)]
    run("UPDATE test_ledger SET n = 2")
    run("TRUNCATE test_ledger")
    assert run("SELECT proname FROM pg_proc WHERE proname LIKE 'test_ledger%%'", []) == []


def test_a_partition_made_later_is_guarded_too(partitioned):
    with applied(AppendOnly("test_ledger")):
        run("CREATE TABLE test_ledger_2 PARTITION OF test_ledger FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')")
        run("INSERT INTO test_ledger VALUES (1, '2026-02-15', 1, 'open')")
        assert "never changed" in refused("UPDATE test_ledger_2 SET n = 2")


def test_a_guard_with_a_condition_spares_the_other_rows(ledger):
    guard = GuardTrigger("test_final", "test_ledger", message="It's final: 100%.", when="OLD.status = 'final'")
    with applied(guard):
        insert(1)
        insert(2, "final")
        run("UPDATE test_ledger SET n = 5 WHERE id = 1")
        assert "It's final: 100%." in refused("UPDATE test_ledger SET n = 5")
        assert "It's final: 100%." in refused("DELETE FROM test_ledger WHERE id = 2")
        run("TRUNCATE test_ledger")


def test_a_deferred_trigger_looks_at_the_end_of_the_transaction(ledger):
    body = """
        DECLARE total numeric;
        BEGIN
            SELECT sum(n) INTO total FROM test_ledger;
            IF total <> 0 THEN
                RAISE EXCEPTION USING ERRCODE = '23001', MESSAGE = format('the legs sum to %s', total);
            END IF;
            RETURN NULL;
        END"""
    with applied(Trigger("test_legs", "test_ledger", body=body, events="INSERT OR UPDATE OR DELETE", deferred=True)):
        with transaction.atomic():
            insert(7)
            insert(-7)
        with pytest.raises(IntegrityError, match="the legs sum to 3"), transaction.atomic():
            insert(3)
        assert run("SELECT count(*) FROM test_ledger") == [(2,)]


def test_a_trigger_can_change_what_is_written(ledger):
    body = "BEGIN NEW.n := NEW.n * 2; RETURN NEW; END"
    with applied(Trigger("test_double", "test_ledger", body=body, events="INSERT", when="NEW.status = 'open'")):
        insert(1)
        insert(10, "final")
        assert run("SELECT n FROM test_ledger ORDER BY n") == [(Decimal(2),), (Decimal(10),)]


@pytest.mark.parametrize("name", ["x" * 64, "Ledger", 'a"b', "a b", "", "1a", "a;b"])
def test_names_that_postgresql_would_change_are_refused(name):
    with pytest.raises(ValueError, match="is not a name"):
        Trigger(name, "test_ledger", body="BEGIN RETURN NEW; END")
    with pytest.raises(ValueError, match="is not a name"):
        AppendOnly(name)


def test_the_operations_can_be_written_into_a_migration():
    for operation, expected in [
        (AppendOnly("test_ledger"), "AppendOnly(\n    table='test_ledger',\n),"),
        (GuardTrigger("g", "t", message="No."), "GuardTrigger(\n    name='g',\n    table='t',\n    message='No.',\n),"),
    ]:
        text, imports = OperationWriter(operation, indentation=0).serialize()
        assert text == f"billing_site.database.{expected}"
        assert imports == {"import billing_site.database"}
        assert operation.reversible
        assert operation.describe()


# Constraints and fields


@pytest.fixture
def span(committed):
    with isolate_apps("billing_site"):

        class Span(models.Model):
            owner_id = models.BigIntegerField()
            starts_at = models.DateTimeField()
            ends_at = models.DateTimeField(null=True)
            state = models.CharField(max_length=10, default="on")

            class Meta:
                app_label = "billing_site"
                db_table = "test_span"
                constraints = [
                    no_overlap("test_span_tiles", "owner_id", "starts_at", "ends_at", models.Q(state="on")),
                ]

        with tables(Span):
            yield Span


def day(number):
    return datetime(2026, 6, number, tzinfo=UTC)


def test_spans_of_one_key_may_touch_and_not_overlap(span):
    span.objects.create(owner_id=1, starts_at=day(5), ends_at=day(10))
    span.objects.create(owner_id=1, starts_at=day(10), ends_at=None)
    span.objects.create(owner_id=1, starts_at=day(1), ends_at=day(5))
    span.objects.create(owner_id=2, starts_at=day(6), ends_at=day(7))
    span.objects.create(owner_id=1, starts_at=day(6), ends_at=day(7), state="off")
    for starts, ends in [(day(4), day(6)), (day(6), day(7)), (day(1), None), (day(28), day(29))]:
        with pytest.raises(IntegrityError, match="test_span_tiles"), transaction.atomic():
            span.objects.create(owner_id=1, starts_at=starts, ends_at=ends)
    with pytest.raises(DataError), transaction.atomic():
        span.objects.create(owner_id=3, starts_at=day(7), ends_at=day(6))


def test_forms_and_full_clean_know_the_constraint_too(span):
    span.objects.create(owner_id=1, starts_at=day(5), ends_at=day(10))
    span(owner_id=1, starts_at=day(10), ends_at=day(11)).full_clean()
    with pytest.raises(ValidationError, match="test_span_tiles"):
        span(owner_id=1, starts_at=day(9), ends_at=day(11)).full_clean()


def test_the_constraint_can_be_written_into_a_migration():
    text, imports = MigrationWriter.serialize(no_overlap("x", "a", "b", "c", models.Q(d=1)))
    assert "ExclusionConstraint" in text
    assert imports


def test_two_transactions_at_once_cannot_both_write_an_overlap(span):
    start = threading.Barrier(2)

    def write():
        start.wait(5)
        try:
            with transaction.atomic():
                span.objects.create(owner_id=1, starts_at=day(1), ends_at=day(9))
        except (IntegrityError, OperationalError):
            return 0
        return 1

    with ThreadPoolExecutor(2) as pool:
        assert sum(future.result(10) for future in [pool.submit(in_thread(write)) for _ in range(2)]) == 1


@pytest.fixture
def sum_of(committed):
    with isolate_apps("billing_site"):

        class Sum(models.Model):
            amount = UnboundedDecimalField(default=0)

            class Meta:
                app_label = "billing_site"
                db_table = "test_sum"

        assert Sum.check() == []
        with tables(Sum):
            yield Sum


@pytest.mark.parametrize(
    "text",
    ["0", "231.685050000000000000001", "-0.1", "1" * 60 + "." + "3" * 60, "1E+50", "1E-50"],
)
def test_an_unbounded_decimal_keeps_every_digit(sum_of, text):
    amount = Decimal(text)
    row = sum_of.objects.create(amount=amount)
    stored = sum_of.objects.get(pk=row.pk)
    assert type(stored.amount) is Decimal
    assert stored.amount == amount
    assert sum_of.objects.filter(amount=amount).exists()
    sum_of(amount=amount).full_clean()


@pytest.mark.parametrize("amount", [0.1, float("nan"), Decimal("NaN"), Decimal("Infinity"), "x"])
def test_an_unbounded_decimal_refuses_floats_and_what_is_not_finite(sum_of, amount):
    with pytest.raises(ValidationError):
        sum_of.objects.create(amount=amount)


def test_sums_of_unbounded_decimals_are_exact(sum_of):
    for _ in range(3):
        sum_of.objects.create(amount=Decimal("0.333333333333333333333333333333"))
    total = sum_of.objects.aggregate(total=models.Sum("amount"))["total"]
    assert (type(total), total) == (Decimal, Decimal("0.999999999999999999999999999999"))


def test_the_column_is_numeric_without_precision(sum_of):
    query = "SELECT data_type, numeric_precision FROM information_schema.columns WHERE column_name = 'amount' AND table_name = 'test_sum'"
    assert run(query) == [("numeric", None)]


# Identifiers


def test_ids_rise_and_carry_the_time():
    before = time.time_ns() // 1_000_000
    ids = [uuid7() for _ in range(20_000)]
    assert ids == sorted(set(ids))
    assert before <= ids[0].int >> 80 <= time.time_ns() // 1_000_000 + 1
    assert {(identifier.version, identifier.variant) for identifier in ids} == {(7, "specified in RFC 4122")}


def test_ids_of_many_threads_differ_and_rise_within_each():
    with ThreadPoolExecutor(8) as pool:
        lists = [future.result() for future in [pool.submit(lambda: [uuid7() for _ in range(2000)]) for _ in range(8)]]
    assert all(ids == sorted(ids) for ids in lists)
    assert len({identifier for ids in lists for identifier in ids}) == 16_000


def test_ids_rise_when_the_clock_is_set_back(monkeypatch):
    moments = iter([2_000_000_000, 1_000_000_000, 1_500_000_000, 2_001_000_000])
    monkeypatch.setattr(database.time, "time_ns", lambda: next(moments))
    sequence = database._Sequence()
    ids = [sequence.take(1)[0] for _ in range(4)]
    assert ids == sorted(set(ids))


def test_a_full_counter_borrows_the_next_millisecond(monkeypatch):
    monkeypatch.setattr(database.time, "time_ns", lambda: 2_000_000_000)
    sequence = database._Sequence()
    first = sequence.take(1)[0]
    sequence._counter = (1 << 74) - 1
    second, third = sequence.take(1)[0], sequence.take(1)[0]
    assert first < second < third
    assert second.int >> 80 == 2001
    assert isinstance(second, UUID)
    assert second.version == 7


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_repeat_its_parents_ids():
    uuid7()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(uuid7().bytes for _ in range(200)))
        os._exit(0)
    own = {uuid7().bytes for _ in range(200)}
    os.waitpid(child, 0)
    received = os.read(reader, 3200)
    os.close(reader)
    os.close(writer)
    assert len(own | {received[index : index + 16] for index in range(0, 3200, 16)}) == 400


def test_examples_in_docstrings_hold():
    assert doctest.testmod(database).failed == 0
