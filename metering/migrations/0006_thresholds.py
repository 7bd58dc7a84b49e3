"""Thresholds that were reached, a tenant's own, and when to look again; what was reached stays what it was."""

import billing_site.database
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from billing_site.database import GuardTrigger


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0005_fewer_indexes"),
        ("subscriptions", "0006_room_for_leases"),
    ]

    operations = [
        migrations.CreateModel(
            name="ThresholdCrossing",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("public_id", models.UUIDField(default=billing_site.database.uuid7, editable=False, unique=True)),
                ("pool", models.TextField(blank=True, default="")),
                ("threshold", models.CharField(max_length=60)),
                ("once", models.CharField(choices=[("period", "Period"), ("life", "Life")], max_length=6)),
                (
                    "cause",
                    models.CharField(choices=[("usage", "Usage"), ("grant", "Grant"), ("time", "Time")], max_length=5),
                ),
                ("line", billing_site.database.UnboundedDecimalField()),
                ("value", billing_site.database.UnboundedDecimalField()),
                ("crossed_at", models.DateTimeField()),
                ("recorded_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("rearmed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "meter",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="subscriptions.meter",
                    ),
                ),
                (
                    "period",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="subscriptions.billingperiod"
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="crossings", to="subscriptions.tenant"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("once", "period"), ("rearmed_at__isnull", True)),
                        fields=("tenant", "meter", "pool", "period", "threshold"),
                        name="threshold_crossing_in_period",
                        nulls_distinct=False,
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("once", "life")),
                        fields=("tenant", "meter", "pool", "threshold"),
                        name="threshold_crossing_for_life",
                        nulls_distinct=False,
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("once__in", ["period", "life"])), name="threshold_crossing_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("cause__in", ["usage", "grant", "time"])), name="threshold_crossing_cause"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ThresholdWatch",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("due_at", models.DateTimeField(blank=True, null=True)),
                ("leased_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("attempts", models.PositiveSmallIntegerField(default=0, editable=False)),
                ("parked_at", models.DateTimeField(blank=True, null=True)),
                ("parked_reason", models.TextField(blank=True, default="")),
                ("thresholds", models.JSONField(blank=True, default=list)),
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="subscriptions.tenant"
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "threshold watches",
                "indexes": [
                    models.Index(
                        condition=models.Q(("due_at__isnull", False), ("parked_at__isnull", True)),
                        fields=["due_at"],
                        name="threshold_watch_due",
                    )
                ],
            },
        ),
        GuardTrigger(
            "metering_thresholdcrossing_fixed",
            "metering_thresholdcrossing",
            message="A crossing is a fact: only that it was armed anew is noted later.",
            events="UPDATE",
            when="to_jsonb(NEW) - 'rearmed_at' <> to_jsonb(OLD) - 'rearmed_at' OR OLD.rearmed_at IS NOT NULL",
        ),
        GuardTrigger(
            "metering_thresholdcrossing_kept",
            "metering_thresholdcrossing",
            message="A crossing is never deleted: it is what keeps a threshold from being told of again.",
            events="DELETE",
            truncate=True,
        ),
    ]
