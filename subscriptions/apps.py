"""The app as Django sees it."""

from django.apps import AppConfig


class SubscriptionsConfig(AppConfig):
    """Registers the app; wires nothing."""

    name = "subscriptions"
    default_auto_field = "django.db.models.BigAutoField"
