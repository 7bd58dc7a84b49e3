"""The app as Django sees it."""

from django.apps import AppConfig


class InvoicesConfig(AppConfig):
    """Registers the app; wires nothing."""

    name = "invoices"
    default_auto_field = "django.db.models.BigAutoField"
