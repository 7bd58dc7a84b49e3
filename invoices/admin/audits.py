"""The staff page of audits of the books: when, and what they found. The tenants that they parked are released on their own page."""

from django.contrib import admin

from billing_site.staff import ReadOnlyAdmin, readable, shown
from invoices.models import AuditRun


@admin.register(AuditRun)
class AuditRunAdmin(ReadOnlyAdmin):
    """Each run of the hourly audit."""

    _broken = shown("broken rows", lambda run: readable(run.broken))
    list_display = ["recorded_at", "__str__", _broken, "parked", "milliseconds"]
    fields = ["recorded_at", _broken, "parked", "milliseconds"]
    readonly_fields = [_broken]
    ordering = ["-pk"]
    search_fields = ["broken"]
