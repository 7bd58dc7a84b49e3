"""What was used within rolling windows."""
import django.db.models.deletion
import subscriptions.models.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0007_authorizations"),
        ("subscriptions", "0007_spend_cap"),
    ]

    operations = [
        migrations.CreateModel(
            name="WindowBucket",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("pool", models.TextField(blank=True, default="")),
                ("window_seconds", models.PositiveIntegerField()),
                ("bucket_at", models.DateTimeField()),
                ("quantity", subscriptions.models.fields.QuantityField(decimal_places=12, max_digits=30)),
                (
                    "meter",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="subscriptions.meter",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="subscriptions.tenant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "meter", "pool", "window_seconds", "bucket_at"), name="window_bucket_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("quantity__gte", 0), ("window_seconds__gte", 60)),
                        name="window_bucket_positive",
                    ),
                ],
            },
        ),
    ]
