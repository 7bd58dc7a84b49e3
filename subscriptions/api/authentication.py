"""
Who calls the API: the operator's gateway or back office, by an API key in the Authorization header.

Owns neither keys (`selectors.keys`) nor scopes (`billing_site.http.permissions`). A key in the address, a session's cookie and Basic
credentials open nothing here.
"""

from dataclasses import dataclass

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from billing_site.http.authentication import BadKeyLimiter, bearer_token
from subscriptions.selectors.keys import KeyInfo, find_key

_limiter = BadKeyLimiter()
_addresses = BaseThrottle()  # reads the client's address by NUM_PROXIES, and throttles nothing


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The caller in the place of a user: known by a key alone, never staff. What it may do stands in `request.auth`."""

    prefix: str
    is_authenticated: bool = True
    is_anonymous: bool = False
    is_active: bool = True
    is_staff: bool = False
    pk: None = None

    def __str__(self) -> str:
        return f"key:{self.prefix}"


class ApiKeyAuthentication(BaseAuthentication):
    """
    Authenticate by `Authorization: Bearer <key>`; `request.auth` is the `KeyInfo`, whose `actor` the audit names.

    A missing, wrong, revoked or expired key is 401 and nothing tells which; more than 100 wrong ones of one client in a minute are 429.
    Valid keys from the same address go on working.
    """

    def authenticate(self, request: Request) -> tuple[KeyHolder, KeyInfo]:
        """Return the caller and its key. Raises AuthenticationFailed (401), RateLimited (429)."""
        key = find_key(bearer_token(request.META.get("HTTP_AUTHORIZATION")))
        if key is None:
            _limiter.failed(_addresses.get_ident(request))
            raise AuthenticationFailed("The API key is not valid.")
        return KeyHolder(key.prefix), key

    def authenticate_header(self, request: Request) -> str:
        """Return what a 401 asks for."""
        return "Bearer"


class ApiKeyScheme(OpenApiAuthenticationExtension):
    """How the published schema describes the key. Registered by being defined."""

    target_class = ApiKeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """Return the scheme of OpenAPI."""
        return {"type": "http", "scheme": "bearer", "description": "An API key of the operator, with its scopes."}
