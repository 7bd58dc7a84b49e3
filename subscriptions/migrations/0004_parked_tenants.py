"""A tenant whose books do not balance waits for staff."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("subscriptions", "0003_finite_numbers")]

    operations = [
        migrations.AlterModelOptions(
            name="tenant",
            options={"permissions": [("release_tenant", "Can release a parked tenant")]},
        ),
        migrations.AddField(
            model_name="tenant",
            name="parked_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name="tenant",
            name="parked_reason",
            field=models.TextField(blank=True, db_default="", editable=False),
        ),
        migrations.AddIndex(
            model_name="tenant",
            index=models.Index(
                condition=models.Q(("parked_at__isnull", False)), fields=["parked_at"], name="tenant_parked"
            ),
        ),
    ]
