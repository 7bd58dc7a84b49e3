"""The groups that an installation starts with: which kind of staff may see and do what."""

from django.contrib.auth.models import Permission
from django.db.models import Q, QuerySet

APPS = ("subscriptions", "metering", "invoices")

# Role → model → what it may do besides looking. `change` is also the permission to run the actions of a page (publish, void, advance).
ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "product": {
        "subscriptions.meter": ("add", "change"),
        "subscriptions.tier": ("add", "change"),
        "subscriptions.tierversion": ("add", "change"),
        "subscriptions.publication": ("change",),
        "subscriptions.priceguard": ("change",),
        "subscriptions.approval": ("add",),
        "subscriptions.testclock": ("add", "change"),
    },
    "finance": {
        "subscriptions.approval": ("add",),
        "subscriptions.tenant": ("add", "change", "release"),
        "subscriptions.subscription": ("add", "change"),
        "subscriptions.scheduledchange": ("change",),
        "subscriptions.billingperiod": ("change",),
        "metering.meterbalance": ("change",),
        "metering.thresholdwatch": ("add", "change"),
        "metering.creditgrant": ("add", "change"),
        "metering.grantschedule": ("change",),
        "invoices.invoice": ("change",),
    },
    "support": {
        "subscriptions.tenant": ("add", "change"),
        "metering.usageevent": ("change",),
        "metering.authorization": ("change",),
    },
    "read-only": {},
}


def permissions_of(role: str) -> QuerySet[Permission]:
    """Return a role's permissions: to look at every model of the three apps, and to do what ROLES names."""
    wanted = Q(codename__startswith="view_")
    for model, verbs in ROLES[role].items():
        app, name = model.split(".")
        wanted |= Q(content_type__app_label=app, codename__in=[f"{verb}_{name}" for verb in verbs])
    return Permission.objects.filter(wanted, content_type__app_label__in=APPS)
