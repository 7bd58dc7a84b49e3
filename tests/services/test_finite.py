"""NaN and the infinities in the numeric columns of the real tables, written past every service."""

from decimal import Decimal

import pytest
from django.db import DataError, IntegrityError, connection, models, transaction
from django.test.utils import isolate_apps

from billing_site.database import UnboundedDecimalField
from billing_site.finite import COLUMNS_WITHOUT_CHECK, FiniteNumbers
from tests.world import make_world

pytestmark = pytest.mark.django_db

WRITTEN = """
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = current_schema() AND data_type = 'numeric' AND is_generated = 'NEVER' ORDER BY 1, 2
"""


def rows(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def run(sql):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


def refusal(sql):
    """Return the name of the check that refuses the statement, or PostgreSQL's text where a column's precision does."""
    with pytest.raises((IntegrityError, DataError)) as caught:
        run(sql)
    cause = caught.value.__cause__
    return cause.diag.constraint_name or cause.diag.message_detail


def test_no_numeric_column_takes_what_is_not_a_number():
    columns = rows(WRITTEN)
    assert {table.split("_")[0] for table, _ in columns} == {"subscriptions", "metering", "invoices"}
    for table, column in columns:
        # A copy with the checks of the table's single columns and none of its other rules, so that one column can be written alone.
        run(f"CREATE TEMP TABLE copy (LIKE {table} INCLUDING CONSTRAINTS)")
        for (name,) in rows(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'copy'::regclass AND contype = 'c' AND cardinality(conkey) > 1"
        ):
            run(f'ALTER TABLE copy DROP CONSTRAINT "{name}"')
        for name, required in rows(
            "SELECT attname, attnotnull FROM pg_attribute WHERE attrelid = 'copy'::regclass AND attnum > 0"
        ):
            if required and name != column:
                run(f'ALTER TABLE copy ALTER "{name}" DROP NOT NULL')
        for number in ("NaN", "Infinity", "-Infinity"):
            answer = refusal(f"INSERT INTO copy ({column}) VALUES ('{number}')")
            assert answer == f"{table}_{column}_check" or "cannot hold an infinite value" in answer, (table, column)
        run("DROP TABLE copy")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_row_of_the_books_keeps_its_number(number):
    world = make_world()
    world.use(5)
    line = world.subscription.tenant.invoices.get().lines.get()
    for statement in (
        f"UPDATE metering_meterbalance SET used = '{number}'",
        f"UPDATE metering_segmenttotal SET clamped = '{number}'",
        "INSERT INTO metering_ledgerentry (kind, segment_at, dimension_key, quantity, events, tenant_id, balance_id, posting_id)"
        f" SELECT kind, segment_at, dimension_key, '{number}', events, tenant_id, balance_id, posting_id"
        " FROM metering_ledgerentry",
    ):
        assert refusal(statement)
    assert line.amount_precise == 99
    assert world.position() == ("5", "5", "0")


def test_columns_that_were_made_without_the_check_get_it():
    run(
        "CREATE TABLE metering_old (amount numeric, fee numeric(24, 6), total numeric GENERATED ALWAYS AS (amount + fee) STORED)"
    )
    run("CREATE TABLE meteringold (amount numeric)")  # of another app
    run("INSERT INTO metering_old VALUES (1, 2)")
    assert rows(f"{COLUMNS_WITHOUT_CHECK} ORDER BY 1, 2") == [
        ("metering_old", "amount"),
        ("metering_old", "fee"),
        ("meteringold", "amount"),
    ]
    for _ in range(2):
        with connection.schema_editor(atomic=False) as editor:
            FiniteNumbers().database_forwards("metering", editor, None, None)
    assert rows(COLUMNS_WITHOUT_CHECK) == [("meteringold", "amount")]
    assert refusal("UPDATE metering_old SET amount = 'Infinity'") == "metering_old_amount_check"
    assert refusal("UPDATE metering_old SET fee = 'NaN'") == "metering_old_fee_check"
    run("DROP TABLE metering_old, meteringold")


@isolate_apps("billing_site")
def test_a_column_that_is_added_later_has_the_check():
    class Sum(models.Model):
        class Meta:
            app_label = "billing_site"

    field = UnboundedDecimalField(default=Decimal(0))
    field.set_attributes_from_name("amount")
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Sum)
        editor.add_field(Sum, field)
    assert refusal("INSERT INTO billing_site_sum (amount) VALUES ('NaN')") == "billing_site_sum_amount_check"
    run("DROP TABLE billing_site_sum")
