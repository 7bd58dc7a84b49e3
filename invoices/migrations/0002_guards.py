"""A finalised invoice's content never changes, its lines add up, and numbers are never taken back, whoever writes."""

from django.db import migrations

from billing_site.database import AppendOnly, GuardTrigger, Trigger

INVOICE = """
BEGIN
    IF OLD.status = 'draft' THEN
        IF NEW.status = 'void' THEN
            RAISE EXCEPTION USING ERRCODE = '23001', MESSAGE = 'A draft is deleted or finalised, not voided.';
        END IF;
        RETURN NEW;
    END IF;
    IF NOT (NEW.status = OLD.status OR (OLD.status = 'open' AND NEW.status IN ('paid', 'void'))) THEN
        RAISE EXCEPTION USING ERRCODE = '23001',
            MESSAGE = format('An invoice does not go from %s to %s.', OLD.status, NEW.status);
    END IF;
    IF to_jsonb(NEW) - '{status,voided_at}'::text[] IS DISTINCT FROM to_jsonb(OLD) - '{status,voided_at}'::text[] THEN
        RAISE EXCEPTION USING ERRCODE = '23001',
            MESSAGE = 'A finalised invoice never changes; correct it on a later one.';
    END IF;
    RETURN NEW;
END
"""

# FOR SHARE on the invoice closes the race "add a line while another transaction finalises".
LINE = """
DECLARE
    current text;
BEGIN
    SELECT status INTO current FROM invoices_invoice WHERE id = {row}.invoice_id FOR SHARE;
    IF current <> 'draft' THEN
        RAISE EXCEPTION USING ERRCODE = '23001', MESSAGE = 'The lines of a finalised invoice never change.';
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END
"""

ADDS_UP = """
DECLARE
    lines numeric;
BEGIN
    SELECT coalesce(sum(amount), 0) INTO lines FROM invoices_invoiceline WHERE invoice_id = NEW.id;
    IF lines <> NEW.subtotal OR NEW.total <> greatest(NEW.subtotal + NEW.tax, 0) THEN
        RAISE EXCEPTION USING ERRCODE = '23514',
            MESSAGE = format('Invoice %s does not add up: lines %s, subtotal %s, total %s.',
                             NEW.id, lines, NEW.subtotal, NEW.total);
    END IF;
    RETURN NULL;
END
"""

SOURCE = """
DECLARE
    current text;
BEGIN
    SELECT i.status INTO current FROM invoices_invoice i JOIN invoices_invoiceline l ON l.invoice_id = i.id
    WHERE l.id = OLD.line_id;
    IF TG_OP = 'DELETE' THEN
        IF current <> 'draft' THEN
            RAISE EXCEPTION USING ERRCODE = '23001', MESSAGE = 'The sources of a finalised invoice are never deleted.';
        END IF;
        RETURN OLD;
    END IF;
    IF OLD.released_at IS NOT NULL OR NEW.line_id <> OLD.line_id OR NEW.fee_item_id IS DISTINCT FROM OLD.fee_item_id
       OR NEW.overage_charge_id IS DISTINCT FROM OLD.overage_charge_id THEN
        RAISE EXCEPTION USING ERRCODE = '23001', MESSAGE = 'A line source is released once, and changes in no other way.';
    END IF;
    RETURN NEW;
END
"""


class Migration(migrations.Migration):
    dependencies = [("invoices", "0001_initial")]

    operations = [
        Trigger("invoice_final", "invoices_invoice", body=INVOICE, events="UPDATE"),
        GuardTrigger(
            "invoice_kept",
            "invoices_invoice",
            message="A finalised invoice is never deleted.",
            events="DELETE",
            when="OLD.status <> 'draft'",
            truncate=True,
        ),
        GuardTrigger(
            "invoice_born_draft",
            "invoices_invoice",
            message="An invoice begins as a draft.",
            events="INSERT",
            when="NEW.status <> 'draft'",
        ),
        *[
            Trigger(
                f"invoiceline_of_draft_{events.lower()}",
                "invoices_invoiceline",
                body=LINE.replace("{row}", row),
                events=events,
            )
            for events, row in (("INSERT", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD"))
        ],
        Trigger(
            "invoice_lines_add_up",
            "invoices_invoice",
            body=ADDS_UP,
            events="UPDATE",
            when="NEW.status <> 'draft'",
            deferred=True,
        ),
        Trigger("invoicelinesource_guard", "invoices_invoicelinesource", body=SOURCE, events="UPDATE OR DELETE"),
        AppendOnly("invoices_tenantcreditentry"),
        GuardTrigger(
            "numbersequence_gapless",
            "invoices_numbersequence",
            message="Numbers rise by one and are never given out twice.",
            events="UPDATE",
            when="NEW.last_number <> OLD.last_number + 1",
        ),
    ]
