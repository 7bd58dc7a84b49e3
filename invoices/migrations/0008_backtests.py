"""Backtests: runs, and what they found for each tenant."""

import billing_site.database
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import subscriptions.models.fields
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('invoices', '0007_clock_entries'),
        ('subscriptions', '0008_lives'),
    ]

    operations = [
        migrations.CreateModel(
            name='BacktestRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('due_at', models.DateTimeField(blank=True, null=True)),
                ('leased_until', models.DateTimeField(blank=True, editable=False, null=True)),
                ('attempts', models.PositiveSmallIntegerField(default=0, editable=False)),
                ('parked_at', models.DateTimeField(blank=True, null=True)),
                ('parked_reason', models.TextField(blank=True, default='')),
                ('public_id', models.UUIDField(default=billing_site.database.uuid7, editable=False, unique=True)),
                ('revision', models.PositiveIntegerField()),
                ('periods', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('from_at', models.DateTimeField(blank=True, null=True)),
                ('to_at', models.DateTimeField(blank=True, null=True)),
                ('status', models.CharField(choices=[('running', 'Running'), ('done', 'Done'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='running', max_length=10)),
                ('actor', models.CharField(max_length=200)),
                ('tenants', models.PositiveIntegerField()),
                ('tenants_done', models.PositiveIntegerField(default=0)),
                ('done_to_id', models.BigIntegerField(default=0)),
                ('summary', models.JSONField(default=dict)),
                ('failure', models.TextField(blank=True, default='')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('test_clock', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='subscriptions.testclock')),
                ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='backtests', to='subscriptions.tierversion')),
            ],
        ),
        migrations.CreateModel(
            name='BacktestResult',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('before', subscriptions.models.fields.MoneyField(decimal_places=6, max_digits=24)),
                ('after', subscriptions.models.fields.MoneyField(decimal_places=6, max_digits=24)),
                ('difference', subscriptions.models.fields.MoneyField(decimal_places=6, max_digits=24)),
                ('periods', models.PositiveSmallIntegerField()),
                ('lines', models.JSONField(default=list)),
                ('skipped', models.JSONField(default=list)),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='subscriptions.tenant')),
                ('run', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='results', to='invoices.backtestrun')),
            ],
        ),
        migrations.AddIndex(
            model_name='backtestrun',
            index=models.Index(condition=models.Q(('due_at__isnull', False), ('parked_at__isnull', True)), fields=['due_at'], name='backtest_run_due_index'),
        ),
        migrations.AddConstraint(
            model_name='backtestrun',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['running', 'done', 'failed', 'cancelled'])), name='backtest_run_status'),
        ),
        migrations.AddConstraint(
            model_name='backtestrun',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('due_at__isnull', False), ('status', 'running')), models.Q(models.Q(('status', 'running'), _negated=True), ('due_at__isnull', True)), _connector='OR'), name='backtest_run_due_while_running'),
        ),
        migrations.AddIndex(
            model_name='backtestresult',
            index=models.Index(fields=['run', 'difference'], name='backtest_result_by_difference'),
        ),
        migrations.AddConstraint(
            model_name='backtestresult',
            constraint=models.UniqueConstraint(fields=('run', 'tenant'), name='backtest_result_once'),
        ),
        migrations.AddConstraint(
            model_name='backtestresult',
            constraint=models.CheckConstraint(condition=models.Q(('difference', django.db.models.expressions.CombinedExpression(models.F('after'), '-', models.F('before')))), name='backtest_result_difference'),
        ),
    ]
