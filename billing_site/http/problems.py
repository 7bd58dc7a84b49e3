"""
Errors as answers: RFC 9457 problem documents.

Owns the shape of every error answer under /api/ and the translation of any exception into it. Does not own the errors
themselves: a service defines its own beside the code that raises it, as a subclass of `DomainError`.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
import psycopg
from django.core import exceptions as django_exceptions
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse
from rest_framework import exceptions

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# What DRF names the errors of a whole object; the object's own path says the same.
_WHOLE_OBJECT = "non_field_errors"


class FieldError(NamedTuple):
    """One fault at one place: `path` is dotted ("charges.0.price.model"), empty for the whole document."""

    path: str
    code: str
    message: str


class DomainError(Exception):
    """
    A refusal that the caller can act on; raise a subclass that sets `code`, `title` and, where it is not 409, `status`.

    `detail` is one sentence about this occurrence, without secrets; `errors` names each fault; `headers` go with the
    answer, on top of the class's own `always_headers`.
    """

    status: int = 409
    code: str = "state_conflict"
    title: str = "The state does not allow this"
    always_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        detail: str,
        *,
        errors: Iterable[FieldError | tuple[str, str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(FieldError(*error) for error in errors)
        self.headers = {**self.always_headers, **(headers or {})}


class Invalid(DomainError):
    """The document was understood, and a value in it is not allowed."""

    status = 422
    code = "validation"
    title = "Some values are not valid"


class UnknownField(DomainError):
    """The document has members that this endpoint does not know."""

    status = 422
    code = "unknown_field"
    title = "Unknown field"


class BadRequest(DomainError):
    """The request is wrong as a request, before its content is looked at."""

    status = 400
    code = "bad_request"
    title = "Bad request"


class Unauthenticated(DomainError):
    """No key, or none that is valid."""

    status = 401
    code = "unauthenticated"
    title = "A valid API key is required"
    always_headers = {"WWW-Authenticate": "Bearer"}


class InsufficientScope(DomainError):
    """The key is valid and does not carry the scope."""

    status = 403
    code = "insufficient_scope"
    title = "The key does not permit this"


class Missing(DomainError):
    """There is nothing at this address, or nothing that this caller may see."""

    status = 404
    code = "not_found"
    title = "Not found"


class NotAllowedMethod(DomainError):
    """The address exists, the method does not."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class NotAcceptable(DomainError):
    """The caller accepts no JSON."""

    status = 406
    code = "not_acceptable"
    title = "Not acceptable"


class BodyTooLarge(DomainError):
    """The body, after unpacking, is beyond a limit."""

    status = 413
    code = "body_too_large"
    title = "The body is too large"


class UriTooLong(DomainError):
    """The query string is beyond the limit."""

    status = 414
    code = "uri_too_long"
    title = "The address is too long"


class UnsupportedMediaType(DomainError):
    """The body's media type, charset or encoding is not one that this endpoint reads."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class MalformedJson(DomainError):
    """The body is not one JSON document in UTF-8."""

    status = 400
    code = "malformed_json"
    title = "The body is not valid JSON"


class RateLimited(DomainError):
    """Too many requests; `Retry-After` says when to come again."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"


class InternalError(DomainError):
    """A fault of ours. The log has the details, the answer has none."""

    status = 500
    code = "internal_error"
    title = "Something went wrong"


class StorageUnavailable(DomainError):
    """Nothing was stored, because the database did not answer in time. Sending the request again is safe."""

    status = 503
    code = "storage_unavailable"
    title = "The storage is not available"
    always_headers = {"Retry-After": "1"}

    def __init__(
        self,
        detail: str = "The database did not answer in time; nothing was stored. Please send the request again.",
        *,
        errors: Iterable[FieldError | tuple[str, str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail, errors=errors, headers=headers)


def problem_bytes(
    status: int, code: str, title: str, detail: str, errors: Iterable[FieldError | tuple[str, str, str]] = ()
) -> bytes:
    """
    Encode one problem document as JSON.

    >>> problem_bytes(404, "not_found", "Not found", "There is no tier gold.")[:60]
    b'{"type":"urn:tierbook:problem:not_found","title":"Not found"'
    """
    listed = [{"path": path, "code": fault, "message": message} for path, fault, message in errors]
    document = {
        "type": f"urn:tierbook:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": listed,
    }
    return msgspec.json.encode(document)


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: Iterable[FieldError | tuple[str, str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Build the answer for one problem. It is a plain response, so that no content negotiation can turn it into another."""
    body = problem_bytes(status, code, title, detail, errors)
    return HttpResponse(body, status=status, content_type=MEDIA_TYPE, headers=dict(headers or {}))


def problem_for(error: DomainError) -> HttpResponse:
    """Build the answer for a named error."""
    return problem(error.status, error.code, error.title, error.detail, error.errors, error.headers)


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """
    Turn whatever an API view raised into a problem document (REST_FRAMEWORK["EXCEPTION_HANDLER"]).

    A fault of ours becomes a 500 without details and is logged with its traceback.
    """
    # Importing DRF's views resolves the settings' classes, and those import this module.
    from rest_framework.views import set_rollback

    error = translate(exc)
    if isinstance(exc, exceptions.MethodNotAllowed):
        error.headers["Allow"] = ", ".join(getattr(context.get("view"), "allowed_methods", ()))
    set_rollback()
    return problem_for(error)


def translate(exc: BaseException) -> DomainError:
    """Give any exception its name in the API. What has none is logged and becomes an `InternalError`."""
    if isinstance(exc, DomainError):
        return exc
    if isinstance(exc, exceptions.APIException):
        return _from_framework(exc)
    if isinstance(exc, OperationalError | InterfaceError | psycopg.OperationalError | psycopg.InterfaceError):
        # Also an exhausted pool (psycopg_pool.PoolTimeout) and every time-out of a statement or a lock.
        logger.warning("storage unavailable: %s: %s", type(exc).__name__, str(exc).partition("\n")[0])
        return StorageUnavailable()
    for kinds, error in _FROM_DJANGO:
        if isinstance(exc, kinds):
            return error()
    logger.error("unhandled exception in the API", exc_info=exc)
    return InternalError("The fault was recorded. Sending the request again is safe.")


_FROM_DJANGO: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], Any]] = (
    (Http404, lambda: Missing("There is nothing at this address.")),
    (django_exceptions.PermissionDenied, lambda: InsufficientScope("The key does not permit this.")),
    (django_exceptions.RequestDataTooBig, lambda: BodyTooLarge("The body is larger than this service reads.")),
    (
        (django_exceptions.SuspiciousOperation, django_exceptions.BadRequest),
        lambda: BadRequest("The request could not be understood."),
    ),
)


def _from_framework(exc: exceptions.APIException) -> DomainError:
    detail = str(exc.detail)
    match exc:
        case exceptions.ValidationError():
            return validation_error(flattened(exc.detail))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return Unauthenticated(detail)
        case exceptions.PermissionDenied():
            return InsufficientScope(detail)
        case exceptions.NotFound():
            return Missing(detail)
        case exceptions.MethodNotAllowed():
            return NotAllowedMethod(detail)
        case exceptions.NotAcceptable():
            return NotAcceptable("This service answers application/json.")
        case exceptions.UnsupportedMediaType():
            return UnsupportedMediaType(detail)
        case exceptions.Throttled():
            return RateLimited(detail, headers={"Retry-After": str(max(1, math.ceil(getattr(exc, "wait", None) or 1)))})
        case exceptions.ParseError():
            return MalformedJson(detail)
    error = DomainError(detail)
    error.status, error.code, error.title = exc.status_code, str(exc.default_code), str(exc.default_detail)
    return error


def validation_error(errors: Sequence[FieldError]) -> DomainError:
    """Name a list of faults: `unknown_field` when that is all that is wrong, else `validation`."""
    detail = " ".join(f"{error.path}: {error.message}" if error.path else error.message for error in errors[:3])
    if len(errors) > 3:
        detail += f" ({len(errors) - 3} more)"
    if errors and all(error.code == UnknownField.code for error in errors):
        return UnknownField(detail, errors=errors)
    return Invalid(detail, errors=errors)


def flattened(detail: object, path: str = "") -> list[FieldError]:
    """
    Turn the nested errors of a serializer into a flat list with dotted paths.

    >>> from rest_framework.exceptions import ErrorDetail
    >>> flattened({"charges": [{}, {"price": [ErrorDetail("Unknown model.", code="invalid")]}]})
    [FieldError(path='charges.1.price', code='invalid', message='Unknown model.')]
    """
    if isinstance(detail, Mapping):
        parts = ((path if name == _WHOLE_OBJECT else _joined(path, name), part) for name, part in detail.items())
    elif isinstance(detail, list | tuple):
        # A list of texts belongs to one place; a list of objects has one entry per item of a list.
        parts = (
            (_joined(path, index) if isinstance(part, Mapping | list) else path, part)
            for index, part in enumerate(detail)
        )
    else:
        return [FieldError(path, str(getattr(detail, "code", None) or "invalid"), str(detail))]
    return [error for where, part in parts for error in flattened(part, where)]


def _joined(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
