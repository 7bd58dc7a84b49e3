"""The app as Django sees it."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    """Registers the app; wires nothing."""

    name = "metering"
    default_auto_field = "django.db.models.BigAutoField"
