"""What was run in a test clock's time is kept."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models.functions import Now

from billing_site.database import AppendOnly


class Migration(migrations.Migration):
    dependencies = [
        ("invoices", "0006_changes"),
        ("subscriptions", "0007_spend_cap"),
    ]

    operations = [
        migrations.CreateModel(
            name="ClockEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField()),
                ("what", models.CharField(max_length=50)),
                ("object", models.TextField()),
                ("row_type", models.CharField(max_length=100)),
                ("row_id", models.CharField(max_length=36)),
                ("recorded_at", models.DateTimeField(db_default=Now())),
                (
                    "clock",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="entries",
                        to="subscriptions.testclock",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="subscriptions.tenant",
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "clock entries",
                "indexes": [models.Index(fields=["clock", "id"], name="clock_entry_by_clock")],
            },
        ),
        AppendOnly("invoices_clockentry"),
    ]
