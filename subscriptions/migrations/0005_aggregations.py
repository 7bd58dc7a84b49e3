"""Meters may be of every aggregation."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("subscriptions", "0004_parked_tenants"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="meter",
            name="meter_aggregation",
        ),
        migrations.AlterField(
            model_name="meter",
            name="aggregation",
            field=models.CharField(
                choices=[
                    ("sum", "sum"),
                    ("count", "count"),
                    ("max", "max"),
                    ("latest", "latest"),
                    ("unique_count", "unique_count"),
                ],
                max_length=20,
            ),
        ),
        migrations.AddConstraint(
            model_name="meter",
            constraint=models.CheckConstraint(
                condition=models.Q(("aggregation__in", ["sum", "count", "max", "latest", "unique_count"])),
                name="meter_aggregation",
            ),
        ),
    ]
