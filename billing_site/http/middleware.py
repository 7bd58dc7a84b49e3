"""Problem documents for what goes wrong outside of DRF: middleware and the site's error pages."""

from collections.abc import Callable
from html import escape

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.handlers.wsgi import LimitedStream
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from billing_site.http.parsers import LENGTH_UNKNOWN
from billing_site.http.problems import (
    BadRequest,
    BodyTooLarge,
    DomainError,
    InternalError,
    Missing,
    NotAllowedMethod,
    StorageUnavailable,
    Unauthenticated,
    UriTooLong,
    problem_for,
    translate,
)
from billing_site.http.wire import BODY_BYTES_MAX

API_PREFIX = "/api/"
# Where callers are known by their key alone.
KEYS_PREFIX = "/api/v1/"
QUERY_BYTES_MAX = 8 * 1024
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class ProblemMiddleware:
    """
    Refuse what no view should see, and see to it that every error under /api/ is a problem document.

    Stands first in MIDDLEWARE, so that refusals by other middleware pass through it. Refused: a query string over 8 KB (414),
    a second Authorization header (400), methods such as TRACE (405). `?format=` has no effect, as DRF's
    URL_FORMAT_OVERRIDE is None. A body without a length is made readable for the views under /api/, within the limit of all bodies.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        refusal = _refusal(request)
        if refusal is not None:
            return answer(request, refusal)
        if _under_api(request):
            _let_body_be_read(request)
        response = self.get_response(request)
        if response.status_code >= 400 and _under_api(request) and _is_page(response):
            return _converted(response)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer for views under /api/ that are not DRF's; other pages keep Django's handling."""
        return problem_for(translate(exception)) if _under_api(request) else None


class _PagesOnly(MiddlewareMixin):
    """Middleware that requests with a key pass by: they have no session, no cookie and no form, and come thousands of times a second."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(KEYS_PREFIX):
            return self.get_response(request)  # type: ignore[return-value]
        return super().__call__(request)  # type: ignore[return-value]


class PageSessions(_PagesOnly, SessionMiddleware):
    """Django's sessions, for pages."""


class PageUsers(_PagesOnly, AuthenticationMiddleware):
    """Django's users, for pages."""


class PageMessages(_PagesOnly, MessageMiddleware):
    """Django's messages, for pages."""


_OWN = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
# By the start of an address: what its pages need beyond our own files. Nothing is ever loaded from another host.
_NEEDED: dict[str, dict[str, str]] = {
    # The theme's attributes are expressions, which its script makes into functions.
    "/admin/": {"script-src": "'self' 'unsafe-eval'"},
    # Swagger's page writes styles into itself.
    "/api/docs/": {"style-src": "'self' 'unsafe-inline'"},
}


class PagePolicies(_PagesOnly):
    """Says with each page what it may load: our own files, and neither inline script nor inline style but where `_NEEDED` says so."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Add the policy of the page's address."""
        needed = next((more for start, more in _NEEDED.items() if request.path_info.startswith(start)), {})
        response.headers["Content-Security-Policy"] = "; ".join(map(" ".join, {**_OWN, **needed}.items()))
        return response


def handler400(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a request that Django refuses, such as one for a foreign host name."""
    return answer(request, BadRequest("The request could not be understood."))


def handler403(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a page that this user may not see."""
    return answer(request, _Forbidden("You may not see this page."))


def handler404(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer an address that does not exist."""
    return answer(request, Missing("There is nothing at this address."))


def handler500(request: HttpRequest) -> HttpResponseBase:
    """Answer a fault of ours. Django has logged it."""
    return answer(request, InternalError("The fault was recorded."))


def answer(request: HttpRequest, error: DomainError) -> HttpResponse:
    """Answer with a problem document under /api/, and with a plain page elsewhere."""
    if _under_api(request):
        return problem_for(error)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(error.title)}</title>'
        f"<h1>{escape(error.title)}</h1><p>{escape(error.detail)}</p></html>"
    )
    return HttpResponse(page, status=error.status, headers=error.headers)


class _Forbidden(DomainError):
    status = 403
    code = "forbidden"
    title = "Forbidden"


_KINDS: dict[int, type[DomainError]] = {
    401: Unauthenticated,
    403: _Forbidden,
    404: Missing,
    405: NotAllowedMethod,
    413: BodyTooLarge,
    503: StorageUnavailable,
}


def _refusal(request: HttpRequest) -> DomainError | None:
    if request.method not in METHODS:
        return NotAllowedMethod("This method is not served.", headers={"Allow": ", ".join(METHODS)})
    if len(request.META.get("QUERY_STRING", "")) > QUERY_BYTES_MAX:
        return UriTooLong(f"The query string is longer than {QUERY_BYTES_MAX} bytes.")
    # WSGI joins headers that are sent twice with a comma; neither a key nor Basic credentials contain one.
    if _under_api(request) and "," in request.META.get("HTTP_AUTHORIZATION", ""):
        return BadRequest("The Authorization header stands twice.")
    return None


def _let_body_be_read(request: HttpRequest) -> None:
    """
    Give a body that announces no length (chunks, HTTP/2) the largest one that is read; Django and DRF would take it for empty.

    Nothing is read here, before the key is known. The stream goes one byte further, so that a larger body shows itself.
    """
    meta = request.META
    may_have_body = meta.get("HTTP_TRANSFER_ENCODING") or meta.get("SERVER_PROTOCOL", "").startswith("HTTP/2")
    # Only where the server says that its stream ends by itself; a read of another would wait for ever.
    if may_have_body and meta.get("wsgi.input_terminated") and not meta.get("CONTENT_LENGTH"):
        meta |= {"CONTENT_LENGTH": str(BODY_BYTES_MAX), LENGTH_UNKNOWN: True}
        request._stream = LimitedStream(meta["wsgi.input"], BODY_BYTES_MAX + 1)  # type: ignore[assignment]


def _under_api(request: HttpRequest) -> bool:
    return request.path_info.startswith(API_PREFIX)


def _is_page(response: HttpResponseBase) -> bool:
    # Not by what it contains: an answer without a body (405 of a plain view) counts as a page too.
    return response.headers.get("Content-Type", "").partition(";")[0] in ("", "text/html", "text/plain")


def _converted(response: HttpResponseBase) -> HttpResponse:
    kind = _KINDS.get(response.status_code, InternalError if response.status_code >= 500 else BadRequest)
    error = kind("The request did not reach an endpoint.")
    error.status = response.status_code
    kept = {name: value for name, value in response.items() if name.lower() not in ("content-type", "content-length")}
    error.headers.update(kept)
    converted = problem_for(error)
    converted.cookies = response.cookies
    return converted
