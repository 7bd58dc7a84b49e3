"""The one parser of the API for DRF: strict JSON. The rules are `wire`'s."""

from collections.abc import Mapping
from typing import IO, Any

from django.http import HttpRequest
from rest_framework.parsers import BaseParser

from billing_site.http import wire
from billing_site.http.problems import BodyTooLarge

# Set in the environment of a request whose Content-Length is not the sender's, but the middleware's.
LENGTH_UNKNOWN = "tierbook.length_unknown"


class StrictJSONParser(BaseParser):
    """Read application/json by the rules of `wire.decode`; the only entry of DEFAULT_PARSER_CLASSES."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the decoded body; an empty object where only its end could show that there is none. Raises what `wire` raises."""
        meta = (parser_context or {})["request"].META
        wire.media_type(media_type)
        body = read_limited(stream, meta)
        return {} if not body and LENGTH_UNKNOWN in meta else wire.decode(body)


def read_limited(stream: IO[Any] | HttpRequest, meta: Mapping[str, Any], *, limit: int = wire.BODY_BYTES_MAX) -> bytes:
    """
    Read a request's body and undo gzip, never holding more than `limit` bytes of either form.

    `meta` is the request's WSGI environment (Content-Length and Content-Encoding). A length that is announced as too large is
    refused before anything is read. Raises BodyTooLarge, MalformedJson, UnsupportedMediaType.
    """
    announced = str(meta.get("CONTENT_LENGTH") or "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise BodyTooLarge(f"The body is larger than {limit} bytes.")
    return wire.unpack(stream.read(limit + 1), meta.get("HTTP_CONTENT_ENCODING"), limit=limit)
