"""
The short way to what gateways ask thousands of times a second: WSGI in front of Django, under the same URLs.

Posting events, authorizing calls and settling them by quantity or event, reading a tenant's balances; each in the plain case alone: the exact
address, no query, a key that this process knows.
Everything else, every refusal among it, goes on to Django, whose views call the same functions; so no rule stands here twice, and a request
costs a fifth (ADR 0003).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from http import HTTPStatus
from io import BytesIO
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection
from rest_framework.exceptions import AuthenticationFailed

from billing_site.http.authentication import bearer_token
from billing_site.http.problems import MEDIA_TYPE, problem_bytes, translate
from billing_site.http.serializers import CODE
from billing_site.http.wire import BODY_BYTES_MAX
from metering.api.balances import balances_body
from metering.api.gate import handle_authorize, handle_settle
from metering.api.ingest import Answer, handle, wire_headers
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.keys import remembered_key

EVENTS = "/api/v1/events"
AUTHORIZATIONS, SETTLE = "/api/v1/authorizations", "/settle"
TENANTS, BALANCES = "/api/v1/tenants/", "/balances"

# What the view's answer passes through on its way out adds these; a test holds the two equal.
_HEADERS = [
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]
_OF_EVENTS = [("Allow", "GET, POST, HEAD, OPTIONS"), *_HEADERS]
_OF_AUTHORIZATIONS = [("Allow", "POST, OPTIONS"), *_HEADERS]
_OF_BALANCES = [("Allow", "GET, HEAD, OPTIONS"), *_HEADERS]
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]
Handler = Callable[[bytes, Mapping[str, str], datetime], Answer]
_is_uuid = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


class ShortWay:
    """A WSGI application that answers what is plain, and hands everything else to the one behind it."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def __call__(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        path = environ["PATH_INFO"]
        answer = None
        if path == EVENTS:
            answer, headers = _posted(environ, handle, scope="ingest"), _OF_EVENTS
        elif path == AUTHORIZATIONS:
            answer, headers = _posted(environ, handle_authorize, scope="gate"), _OF_AUTHORIZATIONS
        elif path.endswith(SETTLE) and path.startswith(AUTHORIZATIONS):
            answer, headers = _settle(environ, path[len(AUTHORIZATIONS) + 1 : -len(SETTLE)]), _OF_AUTHORIZATIONS
        elif path.endswith(BALANCES) and path.startswith(TENANTS):
            answer, headers = _balances(environ, path[len(TENANTS) : -len(BALANCES)]), _OF_BALANCES
        if answer is None:
            return self._application(environ, start_response)
        start_response(
            _STATUS_LINES[answer.status],
            [
                ("Content-Type", "application/json" if answer.status < 400 else MEDIA_TYPE),
                ("Content-Length", str(len(answer.body))),
                *answer.headers.items(),
                *headers,
            ],
        )
        return [answer.body]


def _posted(environ: Environment, handle: Handler, *, scope: str) -> Answer | None:
    """Let a function answer the body of a plain post; None where it is not plain."""
    length = environ.get("CONTENT_LENGTH") or ""
    if not (
        environ["REQUEST_METHOD"] == "POST"
        and length.isdecimal()
        and length.isascii()
        and int(length[:20]) <= BODY_BYTES_MAX
        and _is_plain(environ, scope=scope)
    ):
        return None
    return handle(environ["wsgi.input"].read(int(length)), wire_headers(environ), wall_now())


def _settle(environ: Environment, authorization: str) -> Answer | None:
    # As Django's converter reads it: any other form of it is no address.
    if _is_uuid(authorization) is None:
        return None
    return _posted(environ, partial(handle_settle, UUID(authorization)), scope="gate")


def _balances(environ: Environment, code: str) -> Answer | None:
    if not (environ["REQUEST_METHOD"] == "GET" and CODE.fullmatch(code) and _is_plain(environ, scope="read")):
        return None
    try:
        return Answer(200, balances_body(code, wall_now()), {})
    except Exception as exception:
        error = translate(exception)
        # Anything else is Django's to say; that the database does not answer need not be found out twice.
        if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
            return None
        document = problem_bytes(error.status, error.code, error.title, error.detail, error.errors)
        return Answer(error.status, document, error.headers)
    finally:
        if not connection.in_atomic_block:
            connection.close()


def _is_plain(environ: Environment, *, scope: str) -> bool:
    """Whether Django would let this request through to the view, as far as can be seen at once."""
    return (
        not environ.get("QUERY_STRING")
        and environ.get("HTTP_ACCEPT", "*/*") in ("*/*", "application/json")
        and _may(environ.get("HTTP_AUTHORIZATION"), scope)
        and _is_welcome(
            environ.get("HTTP_HOST", ""),
            environ["SERVER_NAME"],
            environ["SERVER_PORT"],
            environ.get("wsgi.url_scheme", "http"),
            environ.get(_PROXY_HEADER, ""),
        )
    )


def _may(authorization: str | None, scope: str) -> bool:
    try:
        key = remembered_key(bearer_token(authorization))
    except AuthenticationFailed:
        return False
    return key is not None and scope in key.scopes


_PROXY_HEADER = (settings.SECURE_PROXY_SSL_HEADER or ("HTTP_X_FORWARDED_PROTO",))[0]


@lru_cache(maxsize=1000)
def _is_welcome(host: str, server_name: str, server_port: str, scheme: str, forwarded_scheme: str) -> bool:
    """Whether Django serves this host, and would not send the request to HTTPS first: asked of Django itself, once for each host."""
    environ = {
        "REQUEST_METHOD": "POST",
        "SERVER_NAME": server_name,
        "SERVER_PORT": server_port,
        "wsgi.url_scheme": scheme,
        "wsgi.input": BytesIO(),
    }
    environ |= {name: value for name, value in (("HTTP_HOST", host), (_PROXY_HEADER, forwarded_scheme)) if value}
    request = WSGIRequest(environ)
    try:
        request.get_host()
    except DisallowedHost:
        return False
    return request.is_secure() or not settings.SECURE_SSL_REDIRECT
