"""The staff site itself: its name, the studio's pages, and what Django's own pages of it leave out."""

from typing import Any

from django.contrib.admin.apps import AdminConfig
from django.db import transaction
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, URLResolver
from unfold.sites import UnfoldAdminSite


class StaffSiteConfig(AdminConfig):
    """Django's admin, with our site as its only one."""

    default_site = "billing_site.console.staff_site.StaffSite"


class StaffSite(UnfoldAdminSite):
    """The themed site; a password that its owner changes leaves an audit entry."""

    index_title = "Staff pages"

    def get_urls(self) -> list[URLResolver | URLPattern]:
        """Add the studio's pages, before the address that takes what no other has."""
        # The pages' apps are loaded after this module.
        from billing_site.console.studio.urls import studio_urls

        return [*studio_urls(self), *super().get_urls()]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Leave the theme's colours to our style sheet: its own way is an inline style, which our pages do not allow."""
        return {**super().each_context(request), "colors": None}

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Change the user's own password and record that it was changed, in one transaction. Never a value."""
        # Neither can be imported while Django still loads the apps.
        from billing_site.staff import actor_of
        from subscriptions.services import audit

        with transaction.atomic():
            response: HttpResponse = super().password_change(request, extra_context)
            user = request.user
            if isinstance(response, HttpResponseRedirect) and isinstance(user, Model):
                after = {"name": user.get_username(), "changes": "own password"}
                audit.record(actor=actor_of(request), action="update", instance=user, after=after)
            return response
