"""What the studio's pages share: who may see one, and the frame in which it is shown."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse

# The permission to look at prices, to make them, and to publish them.
MAY_LOOK, MAY_EDIT = "subscriptions.view_tierversion", "subscriptions.change_tierversion"
MAY_DRAFT = "subscriptions.add_tierversion"

View = TypeVar("View", bound=Callable[..., HttpResponseBase])


def permitted(permission: str) -> Callable[[View], View]:
    """Answer 403 to who lacks a permission; whoever is not signed in is asked to before (`admin_view`)."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.has_perm(permission):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded  # type: ignore[return-value]

    return decorate


def page(request: HttpRequest, template: str, *, title: str, status: int = 200, **context: Any) -> TemplateResponse:
    """Return a page in the admin's frame; the template extends `studio/base.html`."""
    frame = {**admin.site.each_context(request), "title": title, "may_edit": request.user.has_perm(MAY_EDIT)}
    return TemplateResponse(request, template, {**frame, **context}, status=status)


def whole_number(text: str) -> int | None:
    """Return the number that a form's hidden field or choice holds; None for what no page of ours has sent."""
    return int(text) if text.isdecimal() and len(text) <= 18 else None
