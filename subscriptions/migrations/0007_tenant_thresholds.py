"""Amounts of overage over all meters of which a tenant's operator wants to be told."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("subscriptions", "0006_room_for_leases"),
    ]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="thresholds",
            field=models.JSONField(blank=True, db_default=models.Value([], models.JSONField()), default=list),
        ),
    ]
