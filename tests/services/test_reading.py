"""Reading under a role that cannot write: what it refuses, that it ends, and what is said of a role that is not right."""

import pytest
from django.conf import settings
from django.db import DatabaseError, InternalError, ProgrammingError, connection, transaction

from billing_site.database import read_only, reader_state, sqlstate
from invoices.models import Invoice
from subscriptions.models import Tenant, TestClock
from tests.world import make_world

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not settings.DATABASE_READER_ROLE, reason="the PostgreSQL that was given has no such role"),
]
INSUFFICIENT_PRIVILEGE, READ_ONLY_TRANSACTION = "42501", "25006"


def sql(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()


def test_everything_is_read_and_nothing_written():
    world = make_world()
    with read_only():
        assert Tenant.objects.get().pk == world.tenant.pk
        assert sql("SELECT current_user") == (settings.DATABASE_READER_ROLE,)
        with pytest.raises(InternalError) as refused, transaction.atomic():
            Tenant.objects.update(name="Other")
        assert sqlstate(refused.value) == READ_ONLY_TRANSACTION
    assert sql("SELECT current_user") == (settings.DATABASES["default"]["USER"],)
    Tenant.objects.update(name="Other")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE subscriptions_tenant SET name = 'Other'",
        "DELETE FROM invoices_backtestresult",
        "INSERT INTO metering_usageevent DEFAULT VALUES",
        "TRUNCATE metering_ledgerentry",
        "SELECT nextval('invoices_invoice_id_seq')",
        "CREATE TABLE mine ()",
        "SELECT FROM subscriptions_tenant FOR UPDATE",
    ],
)
def test_the_role_itself_may_not_write_whatever_its_transaction_may(statement):
    with pytest.raises(ProgrammingError) as refused, transaction.atomic():
        sql("SELECT set_config('role', %s, true)", settings.DATABASE_READER_ROLE)
        sql(statement)
    assert sqlstate(refused.value) == INSUFFICIENT_PRIVILEGE


def test_one_state_is_seen_throughout():
    make_world()
    with read_only():
        before = TestClock.objects.count()
        assert sql("SHOW transaction_isolation") == ("repeatable read",)
        assert TestClock.objects.count() == before


def test_it_is_not_entered_within_another_transaction():
    with transaction.atomic(), pytest.raises(RuntimeError), read_only():
        pytest.fail("it was entered")


def test_a_role_that_is_not_there_is_no_reason_to_read_with_more_rights(settings):
    settings.DATABASE_READER_ROLE = "nobody_has_this_role"
    with pytest.raises(DatabaseError), read_only():
        pytest.fail("it was entered")


def test_without_a_role_the_transaction_alone_is_held_to_reading(settings):
    make_world()
    settings.DATABASE_READER_ROLE = ""
    with read_only(), pytest.raises(InternalError) as refused, transaction.atomic():
        Tenant.objects.update(name="Other")
    assert sqlstate(refused.value) == READ_ONLY_TRANSACTION


@pytest.mark.parametrize(
    ("role", "state"),
    [(None, "ok"), ("", "not set"), ("nobody_has_this_role", "missing"), ("postgres", "not granted")],
)
def test_what_is_wrong_with_a_role_is_said(settings, role, state):
    if role is not None:
        settings.DATABASE_READER_ROLE = role
    assert reader_state(Invoice._meta.db_table) == state


def test_a_role_that_may_write_is_told_of(settings):
    settings.DATABASE_READER_ROLE = settings.DATABASES["default"]["USER"]
    assert reader_state(Invoice._meta.db_table) == "may write"
