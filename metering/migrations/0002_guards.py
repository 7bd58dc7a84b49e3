"""What is final stays final, whoever writes: the ledger and events are append-only, a meter counts as it always did."""

from django.db import migrations

from billing_site.database import AppendOnly, GuardTrigger, Trigger

CLOSED_BALANCE = """
BEGIN
    IF NEW.closed_at IS DISTINCT FROM OLD.closed_at OR NEW.period_id <> OLD.period_id OR NEW.meter_id <> OLD.meter_id
       OR NEW.pool <> OLD.pool OR NEW.tenant_id <> OLD.tenant_id THEN
        RAISE EXCEPTION USING ERRCODE = '23001', MESSAGE = 'A closed balance stays closed, and stays where it is.';
    END IF;
    RETURN NEW;
END
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0001_initial")]

    operations = [
        AppendOnly("metering_usageevent"),
        AppendOnly("metering_eventkey"),
        AppendOnly("metering_eventcount"),
        AppendOnly("metering_posting"),
        AppendOnly("metering_ledgerentry"),
        AppendOnly("metering_overagecharge"),
        Trigger(
            "metering_meterbalance_closed",
            "metering_meterbalance",
            body=CLOSED_BALANCE,
            events="UPDATE",
            when="OLD.closed_at IS NOT NULL",
        ),
        GuardTrigger(
            "metering_meterbalance_kept",
            "metering_meterbalance",
            message="A balance is never deleted: the ledger refers to it.",
            events="DELETE",
            truncate=True,
        ),
        GuardTrigger(
            "metering_creditgrant_fixed",
            "metering_creditgrant",
            message="A grant's quantity, pool and start never change; only what was burned and expired moves on.",
            events="UPDATE",
            when=(
                "NEW.quantity <> OLD.quantity OR NEW.balance_id <> OLD.balance_id OR NEW.tenant_id <> OLD.tenant_id"
                " OR NEW.effective_at <> OLD.effective_at OR NEW.kind <> OLD.kind"
            ),
        ),
        GuardTrigger(
            "metering_creditgrant_kept",
            "metering_creditgrant",
            message="A grant is never deleted: the ledger refers to it.",
            events="DELETE",
            truncate=True,
        ),
    ]
