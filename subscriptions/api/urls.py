"""The addresses of this app's resources, below /api/v1/."""

from django.urls import URLPattern, URLResolver, path, re_path

from subscriptions.api.meters import MeterByCode, Meters
from subscriptions.api.publishing import Approve, Publish, UndoPublication
from subscriptions.api.tenants import Features, TenantById, Tenants
from subscriptions.api.tiers import TierByCode, Tiers, VersionByNumber, Versions

# Only what may be an id reaches a view; anything else is no address.
_CODE = "[A-Za-z0-9._:@-]{1,100}"
_METER = rf"^meters/(?P<meter>{_CODE})"
_TIER = rf"^tiers/(?P<tier>{_CODE})"
_VERSION = rf"{_TIER}/versions/(?P<number>[1-9][0-9]{{0,8}})"
_TENANT = rf"^tenants/(?P<tenant>{_CODE})"

urlpatterns: list[URLPattern | URLResolver] = [
    path("meters", Meters.as_view(), name="meters"),
    re_path(rf"{_METER}\Z", MeterByCode.as_view(), name="meter"),
    path("tiers", Tiers.as_view(), name="tiers"),
    re_path(rf"{_TIER}\Z", TierByCode.as_view(), name="tier"),
    re_path(rf"{_TIER}/versions\Z", Versions.as_view(), name="tier-versions"),
    re_path(rf"{_VERSION}\Z", VersionByNumber.as_view(), name="tier-version"),
    re_path(rf"{_VERSION}/publish\Z", Publish.as_view(), name="tier-version-publish"),
    re_path(rf"{_VERSION}/approve\Z", Approve.as_view(), name="tier-version-approve"),
    re_path(rf"{_VERSION}/undo\Z", UndoPublication.as_view(), name="tier-version-undo"),
    path("tenants", Tenants.as_view(), name="tenants"),
    re_path(rf"{_TENANT}\Z", TenantById.as_view(), name="tenant"),
    re_path(rf"{_TENANT}/features\Z", Features.as_view(), name="tenant-features"),
]
