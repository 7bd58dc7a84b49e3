"""What is final stays final, whoever writes: published versions with all their parts, fees, audit entries, closed periods."""

from django.db import migrations

from billing_site.database import AppendOnly, GuardTrigger, Trigger

FINAL = "A published version never changes; make a new version."

# A part may be written only while its version is a draft. FOR SHARE on the version closes the race with a publication.
PART_OF_DRAFT = """
DECLARE
    published timestamptz;
BEGIN
    SELECT published_at INTO published FROM subscriptions_tierversion
    WHERE id = {version} FOR SHARE;
    IF published IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '23001', MESSAGE = '""" + FINAL + """';
    END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END
"""


def part_guards(table, version_of):
    """Guard a table whose rows are parts of a version; `version_of` is SQL with {row} for OLD or NEW."""
    name = table.removeprefix("subscriptions_")
    return [
        Trigger(
            f"{name}_of_draft_{events.lower()}",
            table,
            body=PART_OF_DRAFT.replace("{version}", version_of.replace("{row}", row)),
            events=events,
        )
        for events, row in (("INSERT", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD"))
    ]


class Migration(migrations.Migration):
    dependencies = [("subscriptions", "0001_initial")]

    operations = [
        GuardTrigger(
            "tierversion_published",
            "subscriptions_tierversion",
            message=FINAL,
            when="OLD.published_at IS NOT NULL",
            truncate=True,
        ),
        *part_guards("subscriptions_charge", "{row}.version_id"),
        *part_guards("subscriptions_feature", "{row}.version_id"),
        *part_guards(
            "subscriptions_priceband", "(SELECT version_id FROM subscriptions_charge WHERE id = {row}.charge_id)"
        ),
        AppendOnly("subscriptions_publication"),
        AppendOnly("subscriptions_feeitem"),
        AppendOnly("subscriptions_tierchange"),
        AppendOnly("subscriptions_auditentry"),
        GuardTrigger(
            "meter_counts_as_ever",
            "subscriptions_meter",
            message="What decides a meter's count never changes; make a new meter.",
            events="UPDATE",
            when=(
                "NEW.code <> OLD.code OR NEW.event_type <> OLD.event_type OR NEW.aggregation <> OLD.aggregation"
                " OR NEW.value_property IS DISTINCT FROM OLD.value_property OR NEW.filters <> OLD.filters"
                " OR NEW.dimensions <> OLD.dimensions"
            ),
        ),
        GuardTrigger(
            "billingperiod_closed",
            "subscriptions_billingperiod",
            message="A closed period stays closed, and where it is.",
            events="UPDATE",
            when=(
                "OLD.closed_at IS NOT NULL AND (NEW.closed_at IS DISTINCT FROM OLD.closed_at"
                " OR NEW.starts_at <> OLD.starts_at OR NEW.ends_at <> OLD.ends_at OR NEW.version_id <> OLD.version_id"
                " OR NEW.subscription_id <> OLD.subscription_id)"
            ),
        ),
        GuardTrigger(
            "billingperiod_kept",
            "subscriptions_billingperiod",
            message="A billing period is never deleted.",
            events="DELETE",
            truncate=True,
        ),
        GuardTrigger(
            "testclock_forward",
            "subscriptions_testclock",
            message="A test clock only moves forward.",
            events="UPDATE",
            when="NEW.now < OLD.now",
        ),
    ]
