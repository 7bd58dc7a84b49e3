"""Requests that go past DRF's parsers, as bytes, and answers that came as bytes: the views of the hot paths."""

from django.http import HttpResponse
from rest_framework.request import Request

from billing_site.http.problems import MEDIA_TYPE, BodyTooLarge
from billing_site.http.wire import BODY_BYTES_MAX
from metering.api.ingest import Answer


def body_of(request: Request) -> bytes:
    """Read the raw body, never more than the limit; an announced length beyond it is refused before anything is read."""
    announced = str(request.META.get("CONTENT_LENGTH") or "")
    if announced.isdecimal() and int(announced[:20]) > BODY_BYTES_MAX:
        raise BodyTooLarge(f"The body is larger than {BODY_BYTES_MAX} bytes.")
    return request._request.read(BODY_BYTES_MAX + 1)


def as_response(answer: Answer) -> HttpResponse:
    """Return an answer of the hot path as Django's."""
    kind = "application/json" if answer.status < 400 else MEDIA_TYPE
    return HttpResponse(answer.body, status=answer.status, content_type=kind, headers=dict(answer.headers))
