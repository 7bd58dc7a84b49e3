"""Holds of quantity before the work is done, and what balances hold."""

import billing_site.database
import django.db.models.deletion
import django.db.models.functions.datetime
import subscriptions.models.fields
from django.db import migrations, models

from billing_site.database import GuardTrigger


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0006_thresholds"),
        ("subscriptions", "0006_room_for_leases"),
    ]

    operations = [
        migrations.CreateModel(
            name="Authorization",
            fields=[
                ("due_at", models.DateTimeField(blank=True, null=True)),
                ("leased_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("attempts", models.PositiveSmallIntegerField(default=0, editable=False)),
                ("parked_at", models.DateTimeField(blank=True, null=True)),
                ("parked_reason", models.TextField(blank=True, default="")),
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=255)),
                ("fingerprint", models.BinaryField(max_length=16)),
                ("dimension_key", models.TextField(blank=True, default="")),
                ("quantity", subscriptions.models.fields.QuantityField(decimal_places=12, max_digits=30)),
                (
                    "overage_quantity",
                    subscriptions.models.fields.QuantityField(decimal_places=12, default=0, max_digits=30),
                ),
                ("amount_precise", billing_site.database.UnboundedDecimalField(default=0)),
                ("decision", models.CharField(max_length=13)),
                ("authorized_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("held", "Held"),
                            ("settled", "Settled"),
                            ("released", "Released"),
                            ("expired", "Expired"),
                        ],
                        max_length=8,
                    ),
                ),
                ("freed_by", models.CharField(blank=True, default="", max_length=8)),
                (
                    "settled_quantity",
                    subscriptions.models.fields.QuantityField(blank=True, decimal_places=12, max_digits=30, null=True),
                ),
                ("settled_event", models.UUIDField(blank=True, null=True)),
                ("settled_fingerprint", models.BinaryField(max_length=16, null=True)),
                ("written_by", models.UUIDField()),
                ("recorded_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
        ),
        migrations.CreateModel(
            name="TenantSpend",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="spend",
                        serialize=False,
                        to="subscriptions.tenant",
                    ),
                ),
            ],
        ),
        migrations.RemoveConstraint(
            model_name="meterbalance",
            name="meter_balance_not_negative",
        ),
        migrations.AddField(
            model_name="meterbalance",
            name="held_amount",
            field=billing_site.database.UnboundedDecimalField(default=0),
        ),
        migrations.AddConstraint(
            model_name="meterbalance",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("covered__gte", 0),
                    ("covered__lte", models.F("used")),
                    ("events__gte", 0),
                    ("held__gte", 0),
                    ("held_amount__gte", 0),
                    ("used__gte", 0),
                ),
                name="meter_balance_not_negative",
            ),
        ),
        migrations.AddField(
            model_name="authorization",
            name="balance",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="authorizations",
                to="metering.meterbalance",
            ),
        ),
        migrations.AddField(
            model_name="authorization",
            name="tenant",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="authorizations",
                to="subscriptions.tenant",
            ),
        ),
        migrations.AddIndex(
            model_name="authorization",
            index=models.Index(
                condition=models.Q(("due_at__isnull", False)), fields=["due_at"], name="authorization_due"
            ),
        ),
        migrations.AddIndex(
            model_name="authorization",
            index=models.Index(
                condition=models.Q(("due_at__isnull", False)), fields=["balance", "due_at"], name="authorization_held"
            ),
        ),
        migrations.AddConstraint(
            model_name="authorization",
            constraint=models.UniqueConstraint(fields=("tenant", "key"), name="authorization_key"),
        ),
        migrations.AddConstraint(
            model_name="authorization",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["held", "settled", "released", "expired"])),
                name="authorization_status",
            ),
        ),
        migrations.AddConstraint(
            model_name="authorization",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("amount_precise__gte", 0),
                    ("expires_at__gt", models.F("authorized_at")),
                    ("overage_quantity__gte", 0),
                    ("quantity__gt", 0),
                ),
                name="authorization_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="authorization",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("due_at__isnull", False), ("freed_by", ""), ("status", "held")),
                    models.Q(
                        models.Q(("status", "held"), _negated=True),
                        models.Q(("freed_by", ""), _negated=True),
                        ("due_at__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="authorization_due_while_held",
            ),
        ),
        migrations.AddConstraint(
            model_name="authorization",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("settled_fingerprint__isnull", False), ("status", "settled")),
                    models.Q(
                        models.Q(("status", "settled"), _negated=True),
                        ("settled_fingerprint__isnull", True),
                        ("settled_quantity__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="authorization_settled_with",
            ),
        ),
        GuardTrigger(
            "metering_authorization_settled",
            "metering_authorization",
            message="A settled authorization never changes, and no authorization becomes another's or is held again.",
            events="UPDATE",
            when=(
                "OLD.status = 'settled' OR (OLD.status <> 'held' AND NEW.status = 'held')"
                " OR NEW.tenant_id <> OLD.tenant_id OR NEW.balance_id <> OLD.balance_id OR NEW.key <> OLD.key"
                " OR NEW.fingerprint <> OLD.fingerprint OR NEW.authorized_at <> OLD.authorized_at"
            ),
        ),
        GuardTrigger(
            "metering_authorization_kept",
            "metering_authorization",
            message="An authorization is never deleted: its key would be free again.",
            events="DELETE",
            truncate=True,
        ),
    ]
