"""What a key may do: one scope per view, or one per method."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

SCOPES = ("ingest", "gate", "read", "manage")


class HasScope(BasePermission):
    """
    Permit a request whose key carries the scope that the view names; the only entry of DEFAULT_PERMISSION_CLASSES.

    A view states `scope = "manage"`, or `required_scopes = {"GET": "read", "POST": "manage"}` (GET stands for HEAD too).
    A view that states none is refused to everyone, as an error of ours. The key is `request.auth`, with its `scopes`.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return True, or raise 401 without a key, or 403 that names the missing scope."""
        key: Any = request.auth
        if key is None:
            raise NotAuthenticated("Send an API key in the header Authorization: Bearer <key>.")
        method = "GET" if request.method == "HEAD" else str(request.method)
        if method == "OPTIONS" or method not in view.allowed_methods:
            return True  # nothing is done: the answer is the methods there are, or 405
        scope = _scope_of(view, method)
        if scope not in key.scopes:
            raise PermissionDenied(f"This needs a key with the scope {scope}.")
        return True


def _scope_of(view: Any, method: str) -> str:
    scope = getattr(view, "required_scopes", {}).get(method) or getattr(view, "scope", None)
    if scope not in SCOPES:
        raise ImproperlyConfigured(f"{type(view).__name__} names no scope for {method}.")
    return scope
