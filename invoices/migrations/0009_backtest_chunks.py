"""Backtests in chunks that several workers share, over chosen tenants."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

# A run that was going on has no chunks and would never end; the others ended some time after they were asked for.
ENDED = """
UPDATE invoices_backtestrun
SET status = CASE status WHEN 'running' THEN 'failed' ELSE status END,
    failure = CASE status WHEN 'running' THEN 'Tierbook was upgraded meanwhile; ask for another.' ELSE failure END,
    finished_at = created_at
"""


class Migration(migrations.Migration):

    dependencies = [
        ('invoices', '0008_backtests'),
        ('subscriptions', '0008_lives'),
    ]

    operations = [
        migrations.CreateModel(
            name='BacktestChunk',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('due_at', models.DateTimeField(blank=True, null=True)),
                ('leased_until', models.DateTimeField(blank=True, editable=False, null=True)),
                ('attempts', models.PositiveSmallIntegerField(default=0, editable=False)),
                ('parked_at', models.DateTimeField(blank=True, null=True)),
                ('parked_reason', models.TextField(blank=True, default='')),
                ('tenant_ids', django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name='backtestrun',
            name='backtest_run_due_while_running',
        ),
        migrations.RemoveIndex(
            model_name='backtestrun',
            name='backtest_run_due_index',
        ),
        migrations.RemoveField(
            model_name='backtestrun',
            name='attempts',
        ),
        migrations.RemoveField(
            model_name='backtestrun',
            name='done_to_id',
        ),
        migrations.RemoveField(
            model_name='backtestrun',
            name='due_at',
        ),
        migrations.RemoveField(
            model_name='backtestrun',
            name='leased_until',
        ),
        migrations.RemoveField(
            model_name='backtestrun',
            name='parked_at',
        ),
        migrations.RemoveField(
            model_name='backtestrun',
            name='parked_reason',
        ),
        migrations.AddField(
            model_name='backtestrun',
            name='cohort',
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name='backtestrun',
            name='finished_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.RunSQL(sql=ENDED, reverse_sql=migrations.RunSQL.noop),
        migrations.AddConstraint(
            model_name='backtestrun',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('finished_at__isnull', True), ('status', 'running')), models.Q(models.Q(('status', 'running'), _negated=True), ('finished_at__isnull', False)), _connector='OR'), name='backtest_run_finished_unless_running'),
        ),
        migrations.AddField(
            model_name='backtestchunk',
            name='run',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='chunks', to='invoices.backtestrun'),
        ),
        migrations.AddIndex(
            model_name='backtestchunk',
            index=models.Index(condition=models.Q(('due_at__isnull', False), ('parked_at__isnull', True)), fields=['due_at'], name='backtest_chunk_due_index'),
        ),
    ]
