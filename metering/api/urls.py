"""The addresses of this app's resources, below /api/v1/."""

from django.urls import URLPattern, URLResolver, path, re_path

from metering.api.authorizations import AuthorizationById, Authorizations, Extension, Gate, Liberation, Settlement
from metering.api.balances import Balances
from metering.api.events import EventReplay, EventReversal, Events
from metering.api.findings import Findings
from metering.api.grant_schedules import GrantScheduleById, GrantSchedules, GrantScheduleVoid
from metering.api.grants import GrantById, Grants, GrantVoid
from metering.api.ledger import Ledger
from metering.api.thresholds import Thresholds
from metering.api.usage import Usage

# Only what may be an id of the operator's reaches a view; anything else is no address.
_CODE = r"[A-Za-z0-9._:@-]{1,100}"
_TENANT = rf"^tenants/(?P<tenant>{_CODE})"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

urlpatterns: list[URLPattern | URLResolver] = [
    path("events", Events.as_view(), name="events"),
    path("events/replay", EventReplay.as_view(), name="event-replay"),
    path("events/<uuid:event>/reverse", EventReversal.as_view(), name="event-reverse"),
    path("authorizations", Authorizations.as_view(), name="authorizations"),
    path("authorizations/<uuid:authorization>", AuthorizationById.as_view(), name="authorization"),
    path("authorizations/<uuid:authorization>/settle", Settlement.as_view(), name="authorization-settle"),
    path("authorizations/<uuid:authorization>/release", Liberation.as_view(), name="authorization-release"),
    path("authorizations/<uuid:authorization>/extend", Extension.as_view(), name="authorization-extend"),
    re_path(rf"^gate/(?P<tenant>{_CODE})/(?P<meter>{_CODE})\Z", Gate.as_view(), name="gate"),
    re_path(
        rf"^tiers/(?P<tier>{_CODE})/versions/(?P<number>[1-9][0-9]{{0,8}})/findings\Z",
        Findings.as_view(),
        name="tier-version-findings",
    ),
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
