"""Allowances are rescaled by changes of tier, of which the ledger tells."""

from importlib import import_module

from django.db import migrations, models

from billing_site.database import GuardTrigger

FIXED_BEFORE = import_module("metering.migrations.0009_grants").FIXED
FIXED = GuardTrigger(
    "metering_creditgrant_fixed",
    "metering_creditgrant",
    message="A grant's quantity, pool, start and place in the burn order never change, but for a rescaled allowance; only what has become of it moves on.",
    events="UPDATE",
    when=(
        "(NEW.quantity <> OLD.quantity AND OLD.kind <> 'allowance') OR NEW.balance_id IS DISTINCT FROM OLD.balance_id"
        " OR NEW.tenant_id <> OLD.tenant_id OR NEW.meter_id <> OLD.meter_id OR NEW.pool <> OLD.pool"
        " OR NEW.effective_at <> OLD.effective_at OR NEW.kind <> OLD.kind OR NEW.priority <> OLD.priority OR NEW.key <> OLD.key"
        " OR NEW.rolled_from_id IS DISTINCT FROM OLD.rolled_from_id"
        " OR (OLD.voided_at IS NOT NULL AND NEW.voided_at IS DISTINCT FROM OLD.voided_at)"
    ),
)


class Migration(migrations.Migration):
    dependencies = [
        ('metering', '0009_grants'),
        ('subscriptions', '0008_lives'),
    ]

    operations = [
        migrations.RunSQL(sql=FIXED_BEFORE.dropped, reverse_sql=FIXED_BEFORE.created),
        migrations.RemoveConstraint(
            model_name='ledgerentry',
            name='ledger_entry_kind',
        ),
        migrations.RemoveConstraint(
            model_name='posting',
            name='posting_kind',
        ),
        migrations.AlterField(
            model_name='ledgerentry',
            name='kind',
            field=models.CharField(choices=[('usage', 'Usage'), ('walk', 'Walk'), ('grant', 'Grant'), ('rescale', 'Rescale'), ('expire', 'Expire'), ('void', 'Void'), ('rollover', 'Rollover')], max_length=10),
        ),
        migrations.AddConstraint(
            model_name='ledgerentry',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['usage', 'walk', 'grant', 'rescale', 'expire', 'void', 'rollover'])), name='ledger_entry_kind'),
        ),
        migrations.AddConstraint(
            model_name='posting',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['record', 'replay', 'reverse', 'open', 'close', 'walk', 'grant', 'void', 'change'])), name='posting_kind'),
        ),
        FIXED,
    ]
