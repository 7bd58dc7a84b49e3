"""Grants beyond a period's allowance: of a pool, with expiry, void, rollover and recurrence."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models

import billing_site.database
import subscriptions.models.fields
from billing_site.database import GuardTrigger

# A closing that let something expire says after which entry usage was late; one that did not is told by the first reversal whose un-burn
# expired, or treats usage alike before and after.
CLOSING_ENTRIES = """
UPDATE metering_meterbalance b SET closing_entry_id = coalesce(
    (SELECT min(e.id) FROM metering_ledgerentry e JOIN metering_posting p ON p.id = e.posting_id AND p.kind = 'close'
     WHERE e.balance_id = b.id AND e.kind = 'expire'),
    (SELECT min(e.id) - 1 FROM metering_ledgerentry e WHERE e.balance_id = b.id AND e.posting_id = (
        SELECT x.posting_id FROM metering_ledgerentry x WHERE x.balance_id = b.id AND x.kind = 'expire' ORDER BY x.id LIMIT 1)),
    (SELECT max(e.id) FROM metering_ledgerentry e WHERE e.balance_id = b.id), 0)
WHERE b.closed_at IS NOT NULL
"""

# The checks of foreign keys wait for the end of the transaction, and a table with waiting checks cannot be altered.
METERS = [
    "UPDATE metering_creditgrant g SET meter_id = b.meter_id, pool = b.pool FROM metering_meterbalance b WHERE b.id = g.balance_id",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET CONSTRAINTS ALL DEFERRED",
]

FIXED_BEFORE = GuardTrigger(
    "metering_creditgrant_fixed",
    "metering_creditgrant",
    message="A grant's quantity, pool and start never change; only what was burned and expired moves on.",
    events="UPDATE",
    when=(
        "NEW.quantity <> OLD.quantity OR NEW.balance_id <> OLD.balance_id OR NEW.tenant_id <> OLD.tenant_id"
        " OR NEW.effective_at <> OLD.effective_at OR NEW.kind <> OLD.kind"
    ),
)
FIXED = GuardTrigger(
    "metering_creditgrant_fixed",
    "metering_creditgrant",
    message="A grant's quantity, pool, start and place in the burn order never change; only what has become of it moves on.",
    events="UPDATE",
    when=(
        "NEW.quantity <> OLD.quantity OR NEW.balance_id IS DISTINCT FROM OLD.balance_id OR NEW.tenant_id <> OLD.tenant_id"
        " OR NEW.meter_id <> OLD.meter_id OR NEW.pool <> OLD.pool OR NEW.effective_at <> OLD.effective_at"
        " OR NEW.kind <> OLD.kind OR NEW.priority <> OLD.priority OR NEW.key <> OLD.key"
        " OR NEW.rolled_from_id IS DISTINCT FROM OLD.rolled_from_id"
        " OR (OLD.voided_at IS NOT NULL AND NEW.voided_at IS DISTINCT FROM OLD.voided_at)"
    ),
)


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0008_windows"),
        ("subscriptions", "0006_room_for_leases"),
    ]

    operations = [
        migrations.RunSQL(sql=FIXED_BEFORE.dropped, reverse_sql=FIXED_BEFORE.created),
        migrations.RemoveField(model_name="creditgrant", name="remaining"),
        migrations.CreateModel(
            name="GrantSchedule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("due_at", models.DateTimeField(blank=True, null=True)),
                ("leased_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("attempts", models.PositiveSmallIntegerField(default=0, editable=False)),
                ("parked_at", models.DateTimeField(blank=True, null=True)),
                ("parked_reason", models.TextField(blank=True, default="")),
                ("public_id", models.UUIDField(default=billing_site.database.uuid7, editable=False, unique=True)),
                ("pool", models.TextField(blank=True, default="")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("allowance", "Allowance"),
                            ("promotional", "Promotional"),
                            ("purchased", "Purchased"),
                            ("rollover", "Rollover"),
                        ],
                        max_length=12,
                    ),
                ),
                ("key", models.CharField(blank=True, default="", max_length=255)),
                ("fingerprint", models.BinaryField(max_length=16, null=True)),
                ("priority", models.PositiveSmallIntegerField(default=0)),
                ("quantity", subscriptions.models.fields.QuantityField(decimal_places=12, max_digits=30)),
                (
                    "interval",
                    models.CharField(
                        choices=[
                            ("day", "day"),
                            ("week", "week"),
                            ("month", "month"),
                            ("quarter", "quarter"),
                            ("semiannual", "semiannual"),
                            ("year", "year"),
                        ],
                        max_length=10,
                    ),
                ),
                ("interval_count", models.PositiveSmallIntegerField(default=1)),
                ("starts_at", models.DateTimeField()),
                ("zone", models.CharField(max_length=64)),
                ("until", models.DateTimeField(blank=True, null=True)),
                ("expires_after", models.PositiveSmallIntegerField(default=1, null=True)),
                ("made", models.PositiveIntegerField(default=0)),
                ("voided_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="creditgrant",
            name="credit_grant_conserves",
        ),
        migrations.RemoveConstraint(
            model_name="creditgrant",
            name="credit_grant_not_empty",
        ),
        migrations.RemoveConstraint(
            model_name="creditgrant",
            name="credit_grant_kind",
        ),
        migrations.RemoveConstraint(
            model_name="ledgerentry",
            name="ledger_entry_kind",
        ),
        migrations.RemoveConstraint(
            model_name="posting",
            name="posting_kind",
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="fingerprint",
            field=models.BinaryField(max_length=16, null=True),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="key",
            field=models.CharField(blank=True, default="", max_length=255),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="meter",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="grants", to="subscriptions.meter"
            ),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="pool",
            field=models.TextField(blank=True, default=""),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="ranked_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="rolled_from",
            field=models.OneToOneField(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="rolled_into",
                to="metering.creditgrant",
            ),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="rolled_over",
            field=subscriptions.models.fields.QuantityField(decimal_places=12, default=0, max_digits=30),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="sequence",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="settled",
            field=subscriptions.models.fields.QuantityField(decimal_places=12, default=0, max_digits=30),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="voided",
            field=subscriptions.models.fields.QuantityField(decimal_places=12, default=0, max_digits=30),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="voided_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="meterbalance",
            name="closing_entry_id",
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.RunSQL(sql=CLOSING_ENTRIES, reverse_sql=migrations.RunSQL.noop),
        migrations.AddField(
            model_name="meterbalance",
            name="cuts",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.DateTimeField(), blank=True, default=list, size=None
            ),
        ),
        migrations.AddField(
            model_name="meterbalance",
            name="is_wide",
            field=models.BooleanField(default=False),
        ),
        migrations.RunSQL(sql=METERS, reverse_sql=migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="creditgrant",
            name="meter",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="grants", to="subscriptions.meter"
            ),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="remaining",
            field=models.GeneratedField(
                db_persist=True,
                expression=django.db.models.expressions.CombinedExpression(
                    django.db.models.expressions.CombinedExpression(
                        django.db.models.expressions.CombinedExpression(
                            django.db.models.expressions.CombinedExpression(
                                models.F("quantity"), "-", models.F("burned")
                            ),
                            "-",
                            models.F("expired"),
                        ),
                        "-",
                        models.F("voided"),
                    ),
                    "-",
                    models.F("rolled_over"),
                ),
                output_field=subscriptions.models.fields.QuantityField(decimal_places=12, max_digits=30),
            ),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="balance",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="grants",
                to="metering.meterbalance",
            ),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="expires_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name="creditgrant",
            name="kind",
            field=models.CharField(
                choices=[
                    ("allowance", "Allowance"),
                    ("promotional", "Promotional"),
                    ("purchased", "Purchased"),
                    ("rollover", "Rollover"),
                ],
                max_length=12,
            ),
        ),
        migrations.AlterField(
            model_name="ledgerentry",
            name="balance",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="entries",
                to="metering.meterbalance",
            ),
        ),
        migrations.AlterField(
            model_name="ledgerentry",
            name="kind",
            field=models.CharField(
                choices=[
                    ("usage", "Usage"),
                    ("walk", "Walk"),
                    ("grant", "Grant"),
                    ("expire", "Expire"),
                    ("void", "Void"),
                    ("rollover", "Rollover"),
                ],
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="ledgerentry",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["usage", "walk", "grant", "expire", "void", "rollover"])),
                name="ledger_entry_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="ledgerentry",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("balance__isnull", False),
                    models.Q(("grant__isnull", False), ("kind__in", ["grant", "expire", "void"])),
                    _connector="OR",
                ),
                name="ledger_entry_of_balance",
            ),
        ),
        migrations.AddConstraint(
            model_name="posting",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("kind__in", ["record", "replay", "reverse", "open", "close", "walk", "grant", "void"])
                ),
                name="posting_kind",
            ),
        ),
        migrations.AddField(
            model_name="grantschedule",
            name="meter",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="subscriptions.meter"
            ),
        ),
        migrations.AddField(
            model_name="grantschedule",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="grant_schedules", to="subscriptions.tenant"
            ),
        ),
        migrations.AddField(
            model_name="creditgrant",
            name="schedule",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="grants",
                to="metering.grantschedule",
            ),
        ),
        migrations.AddIndex(
            model_name="creditgrant",
            index=models.Index(
                condition=models.Q(("balance__isnull", True)),
                fields=["tenant", "meter", "pool"],
                name="credit_grant_of_pool",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("burned__gte", 0),
                    ("expired__gte", 0),
                    ("quantity__gte", 0),
                    ("rolled_over__gte", 0),
                    ("voided__gte", 0),
                    (
                        "quantity__gte",
                        django.db.models.expressions.CombinedExpression(
                            django.db.models.expressions.CombinedExpression(
                                django.db.models.expressions.CombinedExpression(
                                    models.F("burned"), "+", models.F("expired")
                                ),
                                "+",
                                models.F("voided"),
                            ),
                            "+",
                            models.F("rolled_over"),
                        ),
                    ),
                ),
                name="credit_grant_conserves",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        (
                            "settled__gte",
                            django.db.models.expressions.CombinedExpression(
                                django.db.models.expressions.CombinedExpression(
                                    models.F("expired"), "+", models.F("voided")
                                ),
                                "+",
                                models.F("rolled_over"),
                            ),
                        ),
                        ("settled__lte", models.F("quantity")),
                    ),
                    models.Q(("balance__isnull", False), ("settled", 0)),
                    _connector="OR",
                ),
                name="credit_grant_settled",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("expires_at__isnull", True), ("expires_at__gt", models.F("effective_at")), _connector="OR"
                ),
                name="credit_grant_not_empty",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["allowance", "promotional", "purchased", "rollover"])),
                name="credit_grant_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("balance__isnull", False), ("kind", "allowance"), ("rolled_from__isnull", True)),
                    models.Q(("kind", "rollover"), ("rolled_from__isnull", False)),
                    models.Q(
                        ("balance__isnull", True),
                        ("kind__in", ["promotional", "purchased"]),
                        ("rolled_from__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="credit_grant_of_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.UniqueConstraint(
                condition=models.Q(("key", ""), _negated=True), fields=("tenant", "key"), name="credit_grant_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="creditgrant",
            constraint=models.UniqueConstraint(fields=("schedule", "sequence"), name="credit_grant_once_per_interval"),
        ),
        migrations.AddIndex(
            model_name="grantschedule",
            index=models.Index(
                condition=models.Q(("due_at__isnull", False), ("parked_at__isnull", True)),
                fields=["due_at"],
                name="grant_schedule_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="grantschedule",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["promotional", "purchased"])), name="grant_schedule_kind"
            ),
        ),
        migrations.AddConstraint(
            model_name="grantschedule",
            constraint=models.CheckConstraint(
                condition=models.Q(("interval__in", ["day", "week", "month", "quarter", "semiannual", "year"])),
                name="grant_schedule_interval",
            ),
        ),
        migrations.AddConstraint(
            model_name="grantschedule",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("interval_count__gte", 1),
                    ("quantity__gt", 0),
                    models.Q(("expires_after__isnull", True), ("expires_after__gte", 1), _connector="OR"),
                ),
                name="grant_schedule_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="grantschedule",
            constraint=models.UniqueConstraint(
                condition=models.Q(("key", ""), _negated=True), fields=("tenant", "key"), name="grant_schedule_key"
            ),
        ),
        FIXED,
    ]
