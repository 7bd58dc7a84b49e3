"""The addresses of the studio, below /admin/studio/."""

from django.contrib.admin import AdminSite
from django.urls import URLPattern, path

from billing_site.console.studio import (
    backtests,
    calculator,
    catalog_text,
    comparing,
    copying,
    editor,
    guards,
    home,
    publication,
    publish,
)

PAGES = (home, editor, copying, calculator, comparing, backtests, catalog_text, publish, publication, guards)


def studio_urls(site: AdminSite) -> list[URLPattern]:
    """Return each page's addresses; `site` asks whoever comes to sign in."""
    return [
        path(f"studio/{one.pattern}", site.admin_view(one.callback), name=one.name)
        for page in PAGES
        for one in page.paths
    ]
