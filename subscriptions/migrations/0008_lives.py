"""The life of a subscription: changes of tier that are carried out or scheduled, pauses, trials, spans of fees, cohorts of publications."""

import django.db.models.deletion
from django.db import migrations, models

import billing_site.database
from billing_site.database import AppendOnly, GuardTrigger


# A fee pays for one period, or for so many as its version says: those that were opened within the span of a fee item.
SPANS = [
    """
    UPDATE subscriptions_billingperiod p
    SET begins_run = p.sequence = 1,
        fee_starts_at = coalesce(fee.full_starts_at, p.full_starts_at), fee_ends_at = coalesce(fee.span_ends_at, p.full_ends_at)
    FROM subscriptions_billingperiod q
    LEFT JOIN LATERAL (
        SELECT o.full_starts_at, greatest(f.span_ends_at, q.full_ends_at) AS span_ends_at
        FROM subscriptions_feeitem f JOIN subscriptions_billingperiod o ON o.id = f.period_id
        WHERE f.subscription_id = q.subscription_id AND f.kind = 'fee'
          AND f.span_starts_at <= q.starts_at AND f.span_ends_at > q.starts_at
        ORDER BY f.span_starts_at DESC LIMIT 1
    ) AS fee ON true
    WHERE q.id = p.id
    """,
    # The checks of foreign keys wait for the end of the transaction, and a table with waiting checks cannot be altered.
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET CONSTRAINTS ALL DEFERRED",
]
RUNS = [
    "UPDATE subscriptions_subscription SET run_starts_at = starts_at",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET CONSTRAINTS ALL DEFERRED",
]
CHANGES = AppendOnly("subscriptions_tierchange")
PUBLICATIONS_BEFORE = AppendOnly("subscriptions_publication")
PUBLICATIONS = GuardTrigger(
    "publication_kept",
    "subscriptions_publication",
    message="A publication says what was published; only its progress is written, and once that it was undone.",
    events="UPDATE",
    when=(
        "NEW.version_id <> OLD.version_id OR NEW.cohort <> OLD.cohort OR NEW.effective_at <> OLD.effective_at"
        " OR (OLD.undone_at IS NOT NULL AND NEW.undone_at IS DISTINCT FROM OLD.undone_at)"
    ),
)
NOT_DELETED = GuardTrigger(
    "publication_not_deleted",
    "subscriptions_publication",
    message="A publication is never deleted; undo it before it takes effect.",
    events="DELETE",
    truncate=True,
)
PLANNED = "UPDATE subscriptions_publication SET planned_at = created_at"


class Migration(migrations.Migration):
    dependencies = [("subscriptions", "0007_spend_cap")]

    operations = [
        migrations.RunSQL(sql=PUBLICATIONS_BEFORE.dropped, reverse_sql=PUBLICATIONS_BEFORE.created),
        # No release has written a change: the defaults of its new columns serve no row.
        migrations.RunSQL(sql=CHANGES.dropped, reverse_sql=CHANGES.created),
        migrations.CreateModel(
            name="ScheduledChange",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("due_at", models.DateTimeField(blank=True, null=True)),
                ("leased_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("attempts", models.PositiveSmallIntegerField(default=0, editable=False)),
                ("parked_at", models.DateTimeField(blank=True, null=True)),
                ("parked_reason", models.TextField(blank=True, default="")),
                (
                    "fee",
                    models.CharField(
                        choices=[("prorate", "prorate"), ("full", "full"), ("none", "none")], max_length=10
                    ),
                ),
                ("grain", models.CharField(choices=[("day", "day"), ("second", "second")], max_length=10)),
                (
                    "allowance",
                    models.CharField(
                        choices=[("prorated", "prorated"), ("full_new", "full_new"), ("reset", "reset")], max_length=10
                    ),
                ),
                ("bill", models.CharField(choices=[("next", "next"), ("now", "now")], max_length=10)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("public_id", models.UUIDField(default=billing_site.database.uuid7, editable=False, unique=True)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("scheduled", "Scheduled"),
                            ("done", "Done"),
                            ("undone", "Undone"),
                            ("dropped", "Dropped"),
                        ],
                        default="scheduled",
                        max_length=10,
                    ),
                ),
                ("at_boundary", models.BooleanField()),
                ("wanted_at", models.DateTimeField()),
                ("anchor_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="feeitem",
            name="fee_item_sign",
        ),
        migrations.RemoveConstraint(
            model_name="publication",
            name="publication_once",
        ),
        migrations.RemoveConstraint(
            model_name="publication",
            name="publication_cohort",
        ),
        migrations.RemoveConstraint(
            model_name="tierchange",
            name="tier_change_once_per_instant",
        ),
        migrations.AddField(
            model_name="billingperiod",
            name="begins_run",
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name="billingperiod",
            name="fee_ends_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="billingperiod",
            name="fee_starts_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.RunSQL(sql=SPANS, reverse_sql=migrations.RunSQL.noop),
        migrations.AlterField(model_name="billingperiod", name="fee_ends_at", field=models.DateTimeField()),
        migrations.AlterField(model_name="billingperiod", name="fee_starts_at", field=models.DateTimeField()),
        migrations.AddField(
            model_name="feeitem",
            name="change",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="fee_items",
                to="subscriptions.tierchange",
            ),
        ),
        migrations.AddField(
            model_name="publication",
            name="planned_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="publication",
            name="published_by",
            field=models.CharField(blank=True, default="", max_length=200),
        ),
        migrations.AddField(
            model_name="publication",
            name="undone_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="trial_ends_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="run_starts_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.RunSQL(sql=RUNS, reverse_sql=migrations.RunSQL.noop),
        migrations.AlterField(model_name="subscription", name="run_starts_at", field=models.DateTimeField()),
        migrations.AddField(
            model_name="subscription",
            name="paused_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="tierchange",
            name="allowance",
            field=models.CharField(
                choices=[("prorated", "prorated"), ("full_new", "full_new"), ("reset", "reset")],
                default="",
                max_length=10,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="tierchange",
            name="allowances",
            field=models.JSONField(default=list),
        ),
        migrations.AddField(
            model_name="tierchange",
            name="bill",
            field=models.CharField(choices=[("next", "next"), ("now", "now")], default="", max_length=10),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="tierchange",
            name="fee",
            field=models.CharField(
                choices=[("prorate", "prorate"), ("full", "full"), ("none", "none")], default="", max_length=10
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="tierchange",
            name="grain",
            field=models.CharField(choices=[("day", "day"), ("second", "second")], default="", max_length=10),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="tierchange",
            name="tenant",
            field=models.ForeignKey(
                default=1, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="subscriptions.tenant"
            ),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name="billingperiod",
            name="kind",
            field=models.CharField(
                choices=[("regular", "Regular"), ("stub", "Stub"), ("trial", "Trial")], default="regular", max_length=10
            ),
        ),
        migrations.AlterField(
            model_name="feeitem",
            name="kind",
            field=models.CharField(choices=[("fee", "Fee"), ("credit", "Credit"), ("charge", "Charge")], max_length=10),
        ),
        migrations.AlterField(
            model_name="publication",
            name="cohort",
            field=models.CharField(
                choices=[("new", "New"), ("renewal", "Renewal"), ("now", "Now")], default="new", max_length=10
            ),
        ),
        migrations.AddIndex(
            model_name="publication",
            index=models.Index(
                condition=models.Q(("planned_at__isnull", True), ("undone_at__isnull", True)),
                fields=["created_at"],
                name="publication_to_plan",
            ),
        ),
        migrations.AddIndex(
            model_name="tierchange",
            index=models.Index(fields=["period", "effective_at"], name="tier_change_by_period"),
        ),
        migrations.AddConstraint(
            model_name="feeitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("amount__gte", 0), ("credits__isnull", True), ("kind__in", ["fee", "charge"])),
                    models.Q(("amount__lte", 0), ("credits__isnull", False), ("kind", "credit")),
                    _connector="OR",
                ),
                name="fee_item_sign",
            ),
        ),
        migrations.AddConstraint(
            model_name="feeitem",
            constraint=models.UniqueConstraint(
                condition=models.Q(("change__isnull", False)),
                fields=("change", "kind", "credits"),
                name="fee_item_once_per_change",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="publication",
            constraint=models.UniqueConstraint(
                condition=models.Q(("undone_at__isnull", True)), fields=("version", "cohort"), name="publication_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="publication",
            constraint=models.CheckConstraint(
                condition=models.Q(("cohort__in", ["new", "renewal", "now"])), name="publication_cohort"
            ),
        ),
        migrations.AddField(
            model_name="scheduledchange",
            name="publication",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="scheduled_changes",
                to="subscriptions.publication",
            ),
        ),
        migrations.AddField(
            model_name="scheduledchange",
            name="subscription",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="scheduled_changes",
                to="subscriptions.subscription",
            ),
        ),
        migrations.AddField(
            model_name="scheduledchange",
            name="tenant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="scheduled_changes", to="subscriptions.tenant"
            ),
        ),
        migrations.AddField(
            model_name="scheduledchange",
            name="to_version",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="subscriptions.tierversion"
            ),
        ),
        migrations.AddIndex(
            model_name="scheduledchange",
            index=models.Index(
                condition=models.Q(("due_at__isnull", False), ("parked_at__isnull", True)),
                fields=["due_at"],
                name="scheduled_change_due_index",
            ),
        ),
        migrations.AddIndex(
            model_name="scheduledchange",
            index=models.Index(
                condition=models.Q(("status", "scheduled")),
                fields=["subscription", "wanted_at"],
                name="scheduled_change_waiting",
            ),
        ),
        migrations.AddConstraint(
            model_name="scheduledchange",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["scheduled", "done", "undone", "dropped"])),
                name="scheduled_change_status",
            ),
        ),
        migrations.AddConstraint(
            model_name="scheduledchange",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("due_at__isnull", True), models.Q(("at_boundary", False), ("status", "scheduled")), _connector="OR"
                ),
                name="scheduled_change_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="scheduledchange",
            constraint=models.UniqueConstraint(
                fields=("publication", "subscription"), name="scheduled_change_once_per_publication"
            ),
        ),
        migrations.RunSQL(
            sql=[PLANNED, "SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS ALL DEFERRED"],
            reverse_sql=migrations.RunSQL.noop,
        ),
        PUBLICATIONS,
        NOT_DELETED,
        AppendOnly("subscriptions_tierchange"),
    ]
