"""The studio's first page: each tier with what is live and what is being made."""

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from billing_site.console.studio.pages import MAY_LOOK, page, permitted
from subscriptions.selectors.catalog import tiers_with_live_number
from subscriptions.selectors.clock import wall_now


@permitted(MAY_LOOK)
def show(request: HttpRequest) -> TemplateResponse:
    """List the tiers."""
    tiers = tiers_with_live_number(at=wall_now()).order_by("code")
    return page(request, "studio/home.html", title="Pricing studio", tiers=tiers)


paths: list[URLPattern] = [path("", show, name="studio")]
