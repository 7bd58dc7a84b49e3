"""What the values of meters that do not add up rest on: the event that stands as the latest, the values seen."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0003_finite_numbers"),
    ]

    operations = [
        migrations.AddField(
            model_name="eventcount",
            name="seen",
            field=models.TextField(blank=True, default=""),
        ),
        migrations.CreateModel(
            name="LatestReading",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "balance", "dimension_key", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("dimension_key", models.TextField()),
                ("occurred_at", models.DateTimeField()),
                ("source", models.CharField(max_length=255)),
                ("event_id", models.CharField(max_length=255)),
                (
                    "balance",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="metering.meterbalance",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="SeenValue",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "balance", "digest", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("digest", models.BinaryField(max_length=16)),
                ("events", models.BigIntegerField()),
                (
                    "balance",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="metering.meterbalance",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("events__gte", 0)), name="seen_value_not_negative")
                ],
            },
        ),
    ]
