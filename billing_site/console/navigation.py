"""The admin's navigation: its pages by what people do, each shown to whom it opens for."""

from typing import Any, NamedTuple

from django.http import HttpRequest
from django.urls import reverse


class Place(NamedTuple):
    """One link: what it says, the address's name, who may follow it, and the symbol beside it."""

    title: str
    address: str
    permission: str
    icon: str


def _list(title: str, app: str, model: str, icon: str) -> Place:
    return Place(title, f"{app}_{model}_changelist", f"{app}.view_{model}", icon)


GROUPS: dict[str, tuple[Place, ...]] = {
    "Pricing": (
        Place("Pricing studio", "studio", "subscriptions.view_tierversion", "design_services"),
        Place("Backtests", "studio_backtests", "subscriptions.view_tierversion", "science"),
        Place("Catalogue as text", "studio_catalog", "subscriptions.view_tierversion", "description"),
        _list("Tiers", "subscriptions", "tier", "layers"),
        _list("Versions", "subscriptions", "tierversion", "history_edu"),
        _list("Publications", "subscriptions", "publication", "event_upcoming"),
        _list("Meters", "subscriptions", "meter", "speed"),
    ),
    "Customers": (
        _list("Tenants", "subscriptions", "tenant", "domain"),
        _list("Subscriptions", "subscriptions", "subscription", "autorenew"),
        _list("Billing periods", "subscriptions", "billingperiod", "calendar_month"),
        _list("Changes to come", "subscriptions", "scheduledchange", "schedule"),
        _list("Changes made", "subscriptions", "tierchange", "swap_horiz"),
    ),
    "Usage": (
        _list("Balances", "metering", "meterbalance", "donut_large"),
        _list("Events", "metering", "usageevent", "bolt"),
        _list("Ledger", "metering", "ledgerentry", "receipt"),
        _list("Holds", "metering", "authorization", "front_hand"),
        _list("Thresholds", "metering", "thresholdwatch", "notifications"),
        _list("Thresholds reached", "metering", "thresholdcrossing", "notifications_active"),
    ),
    "Money": (
        _list("Invoices", "invoices", "invoice", "receipt_long"),
        _list("Overage booked", "metering", "overagecharge", "trending_up"),
        _list("Tenants' credit", "invoices", "tenantcreditentry", "savings"),
        _list("Grants", "metering", "creditgrant", "redeem"),
        _list("Recurring grants", "metering", "grantschedule", "event_repeat"),
    ),
    "System": (
        _list("Audit entries", "subscriptions", "auditentry", "policy"),
        _list("Audits of the books", "invoices", "auditrun", "fact_check"),
        _list("Messages sent", "subscriptions", "outboxmessage", "outbox"),
        _list("Test clocks", "subscriptions", "testclock", "fast_forward"),
        _list("API keys", "subscriptions", "apikey", "key"),
        _list("Staff accounts", "auth", "user", "person"),
        _list("Staff groups", "auth", "group", "group"),
    ),
}


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups as the theme draws them, without what the user may not open; the place that the page belongs to is marked."""
    groups = {
        title: [
            (place, reverse(f"admin:{place.address}")) for place in places if request.user.has_perm(place.permission)
        ]
        for title, places in GROUPS.items()
    }
    # The studio's address begins those of its pages.
    here = max(
        (link for places in groups.values() for _, link in places if request.path.startswith(link)), key=len, default=""
    )
    return [
        {
            "title": title,
            "items": [
                {"title": place.title, "icon": place.icon, "link": link, "active": link == here}
                for place, link in places
            ],
        }
        for title, places in groups.items()
        if places
    ]
