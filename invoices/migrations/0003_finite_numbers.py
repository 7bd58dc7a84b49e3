"""Columns that were made before the check against NaN and infinities get it."""

from django.db import migrations

from billing_site.finite import FiniteNumbers


class Migration(migrations.Migration):
    dependencies = [("invoices", "0002_guards")]

    operations = [FiniteNumbers()]
