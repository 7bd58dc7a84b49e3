"""Changes of tier that are billed at once have invoices of their own."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('invoices', '0005_numbers_in_blocks'),
        ('subscriptions', '0008_lives'),
    ]

    operations = [
        migrations.AddField(
            model_name='invoice',
            name='change',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='invoices', to='subscriptions.tierchange'),
        ),
        migrations.AlterField(
            model_name='invoice',
            name='reason',
            field=models.CharField(choices=[('opening', 'Opening'), ('period', 'Period'), ('final', 'Final'), ('change', 'Change'), ('late', 'Late'), ('manual', 'Manual')], max_length=10),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.UniqueConstraint(condition=models.Q(('status', 'void'), _negated=True), fields=('change',), name='invoice_once_per_change'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('change__isnull', False), ('reason', 'change')), models.Q(models.Q(('reason', 'change'), _negated=True), ('change__isnull', True)), _connector='OR'), name='invoice_of_change'),
        ),
    ]
