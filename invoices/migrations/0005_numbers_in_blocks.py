"""Several numbers may be taken at once, as long as each of them is on an invoice when the transaction ends."""

from django.db import migrations

from billing_site.database import GuardTrigger, Trigger

ALL_GIVEN_OUT = """
DECLARE
    given_out bigint;
BEGIN
    SELECT count(*) INTO given_out FROM invoices_invoice
    WHERE series = NEW.series AND number > OLD.last_number AND number <= NEW.last_number;
    IF given_out <> NEW.last_number - OLD.last_number THEN
        RAISE EXCEPTION USING ERRCODE = '23514', MESSAGE = format(
            'Series %s: of the numbers %s to %s, %s are on an invoice.',
            NEW.series, OLD.last_number + 1, NEW.last_number, given_out);
    END IF;
    RETURN NULL;
END
"""


def replaced(guard):
    """Return the operations that take a guard away; reversed, they make it again."""
    return migrations.RunSQL(sql=guard.dropped, reverse_sql=guard.created)


class Migration(migrations.Migration):
    dependencies = [("invoices", "0004_audit_runs")]

    operations = [
        replaced(
            GuardTrigger(
                "numbersequence_gapless",
                "invoices_numbersequence",
                message="Numbers rise by one and are never given out twice.",
                events="UPDATE",
                when="NEW.last_number <> OLD.last_number + 1",
            )
        ),
        GuardTrigger(
            "numbersequence_rises",
            "invoices_numbersequence",
            message="Numbers are never given out twice.",
            events="UPDATE",
            when="NEW.last_number < OLD.last_number OR NEW.series <> OLD.series",
        ),
        Trigger(
            "numbersequence_gapless",
            "invoices_numbersequence",
            body=ALL_GIVEN_OUT,
            events="UPDATE",
            when="NEW.last_number <> OLD.last_number",
            deferred=True,
        ),
    ]
