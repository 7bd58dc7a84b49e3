"""The addresses of this app's resources, below /api/v1/."""

from django.urls import URLPattern, URLResolver, path, re_path

from metering.api.balances import Balances
from metering.api.events import EventReplay, EventReversal, Events
from metering.api.grant_schedules import GrantScheduleById, GrantSchedules, GrantScheduleVoid
from metering.api.grants import GrantById, Grants, GrantVoid
from metering.api.ledger import Ledger
from metering.api.thresholds import Thresholds
from metering.api.usage import Usage

# Only what may be a tenant's id reaches a view; anything else is no address.
_TENANT = r"^tenants/(?P<tenant>[A-Za-z0-9._:@-]{1,100})"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

urlpatterns: list[URLPattern | URLResolver] = [
    path("events", Events.as_view(), name="events"),
    path("events/replay", EventReplay.as_view(), name="event-replay"),
    path("events/<uuid:event>/reverse", EventReversal.as_view(), name="event-reverse"),
    re_path(rf"{_TENANT}/usage\Z", Usage.as_view(), name="tenant-usage"),
    re_path(rf"{_TENANT}/ledger\Z", Ledger.as_view(), name="tenant-ledger"),
    re_path(rf"{_TENANT}/balances\Z", Balances.as_view(), name="tenant-balances"),
    re_path(rf"{_TENANT}/thresholds\Z", Thresholds.as_view(), name="tenant-thresholds"),
    re_path(rf"{_TENANT}/grants\Z", Grants.as_view(), name="grants"),
    re_path(rf"{_TENANT}/grants/(?P<grant>{_UUID})\Z", GrantById.as_view(), name="grant"),
    re_path(rf"{_TENANT}/grants/(?P<grant>{_UUID})/void\Z", GrantVoid.as_view(), name="grant-void"),
    re_path(rf"{_TENANT}/grant-schedules\Z", GrantSchedules.as_view(), name="grant-schedules"),
    re_path(rf"{_TENANT}/grant-schedules/(?P<schedule>{_UUID})\Z", GrantScheduleById.as_view(), name="grant-schedule"),
    re_path(
        rf"{_TENANT}/grant-schedules/(?P<schedule>{_UUID})/void\Z",
        GrantScheduleVoid.as_view(),
        name="grant-schedule-void",
    ),
]
