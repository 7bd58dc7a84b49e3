"""What each audit of the books has found."""

from django.db import migrations, models
from django.db.models.functions import Now

from billing_site.database import AppendOnly


class Migration(migrations.Migration):
    dependencies = [("invoices", "0003_finite_numbers")]

    operations = [
        migrations.CreateModel(
            name="AuditRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("recorded_at", models.DateTimeField(db_default=Now())),
                ("milliseconds", models.PositiveIntegerField()),
                ("broken", models.JSONField(default=dict)),
                ("parked", models.PositiveIntegerField(default=0)),
            ],
        ),
        AppendOnly("invoices_auditrun"),
    ]
