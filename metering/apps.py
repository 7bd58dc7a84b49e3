"""The app as Django sees it."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    """Registers the app, and lets it hear of tenants whose thresholds change."""

    name = "metering"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect what remembers thresholds to the service that changes them."""
        from metering.services.thresholds import forget
        from subscriptions.services.tenants import thresholds_changed

        thresholds_changed.connect(
            lambda tenant_id, **_: forget(tenant_id=tenant_id), weak=False, dispatch_uid="thresholds"
        )
