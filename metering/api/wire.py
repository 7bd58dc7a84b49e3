"""
Events as they come over the wire, in all their forms, and what each of them says.

Owns the forms of `POST /events` (one object, an array, `{"events": […]}`, CloudEvents structured, batch and binary) and the rules for each
member. Does not own JSON itself (`billing_site.http.wire`), nor whether an event counts: what leaves this module is only well formed.
Source: api.md, "Usage"; semantics, "Identity of an event"; CloudEvents 1.0.2 with its JSON format and HTTP binding.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from billing_site.http import wire
from billing_site.http.problems import BodyTooLarge, DomainError, Invalid, UnknownField
from metering.core.measuring import SETTLED_SOURCE
from metering.services.requests import NewEvent, Rejected

EVENTS_MAX = 1_000
# Reading events one by one passes over them with a reader that makes an object of each value: only that many.
VALUES_APART_MAX = 2 * wire.VALUES_MAX
SOURCE_DEFAULT = "default"

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

# One of these headers makes a request a CloudEvent in binary mode.
_BINARY = frozenset({"ce-specversion", "ce-id", "ce-type"})

_MEMBERS = frozenset({"id", "source", "type", "subject", "time", "data"})
_CLOUD_MEMBERS = _MEMBERS | {"specversion", "datacontenttype", "dataschema"}

# Printable ASCII without blanks: an id goes into logs, headers and addresses.
_is_key = re.compile(r"[\x21-\x7e]{1,255}").fullmatch
_is_subject = re.compile(r"[A-Za-z0-9._:@-]{1,100}").fullmatch
_is_extension = re.compile(r"[a-z0-9]{1,100}").fullmatch
_is_json_type = re.compile(r"(application/json|[a-z0-9.+/-]+\+json)\s*(;.*)?").fullmatch

_KEY_RULE = "must be a string of 1 to 255 printable ASCII characters without blanks."


class EmptyBatch(DomainError):
    """The request holds no event."""

    status = 400
    code = "empty_batch"
    title = "There is no event in the request"


@dataclass(slots=True)
class Parsed:
    """The events of one request in the order in which they were sent."""

    # Whether the body was one event, and not a batch (of one, perhaps): the answer differs.
    single: bool
    events: list[NewEvent | Rejected]


class _Fault(Exception):
    """What is wrong with one event; never leaves this module."""

    def __init__(self, path: str, message: str, code: str = "validation") -> None:
        self.path = path
        self.message = message
        self.code = code


def parse(body: bytes, headers: Mapping[str, str]) -> Parsed:
    """
    Read the events of a request body.

    `headers` has lower-case names; `content-type`, `content-encoding` and those beginning with `ce-` are read. An event that is not well
    formed is returned as Rejected in its place, and the others go on. Raises a DomainError when the request as a whole cannot be read:
    not JSON (400), empty (400), too large (413), another media type (415), not an event (422).
    """
    kind = wire.media_type(headers.get("content-type"), allowed=wire.JSON_AND_CLOUD_EVENTS)
    body = wire.unpack(body, headers.get("content-encoding"))
    if kind == "application/json" and not _BINARY.isdisjoint(headers):
        return Parsed(True, [_read(_from_headers(body, headers), is_cloud_event=True)])
    try:
        document = wire.decode(body)
    except DomainError as error:
        return _parse_apart(body, kind, error)
    events = _elements(document, kind)
    if events is None:
        return Parsed(True, [_read(document, is_cloud_event=kind == STRUCTURED)])
    _check_number(events)
    is_cloud_event = kind == BATCH
    return Parsed(False, [_read(event, is_cloud_event=is_cloud_event) for event in events])


def read_event(document: Any) -> NewEvent | Rejected:
    """
    Read the event that settles an authorization, in the native form or as a CloudEvent.

    Its `subject` may be left out, and is then empty: the tenant is the authorization's.
    """
    if type(document) is not dict or document.get("subject") is not None:
        return _read(document, is_cloud_event=False)
    event = _read(document | {"subject": "tenant"}, is_cloud_event=False)
    if isinstance(event, NewEvent):
        event.subject = ""
    return event


def _elements(document: Any, kind: str) -> Sequence[Any] | None:
    """Return the events of a batch; None where the document is one event."""
    if kind != STRUCTURED and type(document) is list:
        return document
    if kind == BATCH:
        raise Invalid(f"A body of {BATCH} is an array of events.")
    if type(document) is not dict:
        raise Invalid("The body must be an event: a JSON object." if kind == STRUCTURED else _NO_EVENT)
    if kind == STRUCTURED or "events" not in document:
        return None
    if len(document) > 1:
        other = next(name for name in document if name != "events")
        raise UnknownField(
            "Beside `events` nothing may stand.",
            errors=[(other[:100], "unknown_field", "This field is not known here.")],
        )
    if type(document["events"]) is not list:
        raise Invalid("`events` must be an array.", errors=[("events", "validation", "Must be an array.")])
    return document["events"]


_NO_EVENT = 'The body must be an event, an array of events, or {"events": […]}.'


def _check_number(events: Sequence[Any]) -> None:
    if not events:
        raise EmptyBatch("Send at least one event.")
    if len(events) > EVENTS_MAX:
        raise BodyTooLarge(f"The request has more than {EVENTS_MAX} events.")


def _parse_apart(body: bytes, kind: str, error: DomainError) -> Parsed:
    """
    Read each event of a batch by itself, because strict reading refused the whole for what may be the fault of one event.

    Raises that refusal again where the body is no batch, or cannot even be cut into its events.
    """
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    parts = None if kind == STRUCTURED or values > VALUES_APART_MAX else _cut(body)
    if parts is None:
        raise error
    _check_number(parts)
    return Parsed(False, [_read_apart(part, is_cloud_event=kind == BATCH) for part in parts])


_OPENING = re.compile(r'[ \t\n\r]*(\{[ \t\n\r]*"events"[ \t\n\r]*:[ \t\n\r]*)?\[[ \t\n\r]*')
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_CLOSING = re.compile(r"[ \t\n\r]*\][ \t\n\r]*(\}[ \t\n\r]*)?")


def _cut(body: bytes) -> list[bytes] | None:
    """
    Return the texts of a batch's events, cut by the standard library's reader; None where the body is no JSON array of values.

    It reads what the strict one refuses (lone surrogates, repeated members), so that those, too, are the fault of their event alone.
    """
    try:
        text = body.decode()
        opening = _OPENING.match(text)
        parts: list[bytes] = []
        place = opening.end() if opening else len(text)
        while opening and len(parts) <= EVENTS_MAX:
            _, end = _CUTTER.raw_decode(text, place)
            parts.append(text[place:end].encode())
            comma = _COMMA.match(text, end)
            if comma is None:
                closing = _CLOSING.fullmatch(text, end)
                return parts if closing and bool(closing[1]) == bool(opening[1]) else None
            place = comma.end()
    except (ValueError, RecursionError):
        return None
    return parts or None


def _no_constant(name: str) -> None:
    raise ValueError(name)


# Values are only passed over here, so that none need be exact or small.
_CUTTER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)


def _read_apart(raw: bytes, *, is_cloud_event: bool) -> NewEvent | Rejected:
    try:
        document = wire.decode(raw)
    except DomainError as error:
        return Rejected(_id_in(raw), error.code, error.detail, error.errors[0].path if error.errors else "")
    return _read(document, is_cloud_event=is_cloud_event)


class _WithId(msgspec.Struct):
    id: str


_ID = msgspec.json.Decoder(_WithId)


def _id_in(raw: bytes) -> str | None:
    """Return the id of an event that strict reading refused, so that its sender finds it; None where it has none to show."""
    try:
        name = _ID.decode(raw).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return name if _is_key(name) else None


def _from_headers(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Put a CloudEvent in binary mode together: its attributes are headers, its data is the body."""
    document: dict[str, Any] = {
        name[3:]: _header_value(value) for name, value in headers.items() if name.startswith("ce-")
    }
    document.pop("data", None)
    if body:
        document["data"] = wire.decode(body)
    return document


def _header_value(value: str) -> str:
    """Undo the quoting that CloudEvents' HTTP binding allows (3.1.3.2): perhaps in quotes, and percent-encoded UTF-8."""
    if not value.isascii():
        raise Invalid("The headers of a CloudEvent must be ASCII; other characters are percent-encoded.")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return unquote(value)


def _read(document: Any, *, is_cloud_event: bool) -> NewEvent | Rejected:
    try:
        if type(document) is not dict:
            raise _Fault("", "An event must be a JSON object.")
        if is_cloud_event or "specversion" in document:
            _check_cloud_event(document)
        elif not document.keys() <= _MEMBERS:
            raise _unknown(document)
        subject, event_type = document.get("subject"), document.get("type")
        source, data = document.get("source"), document.get("data")
        event_id, time = document.get("id"), document.get("time")
        if type(event_id) is not str or not _is_key(event_id):
            raise _Fault("id", f"`id` {_KEY_RULE}")
        if type(subject) is not str or not _is_subject(subject):
            raise _Fault(
                "subject", "`subject` must be the tenant's id: 1 to 100 characters out of A-Z a-z 0-9 . _ : @ -"
            )
        if source is None:
            source = SOURCE_DEFAULT
        elif type(source) is not str or not _is_key(source):
            raise _Fault("source", f"`source` {_KEY_RULE}")
        elif source == SETTLED_SOURCE:
            raise _Fault(
                "source", f"`source` is not {SETTLED_SOURCE}: only settling an authorization makes such events."
            )
        if type(event_type) is not str or not 0 < len(event_type) <= 200 or not event_type.isprintable():
            raise _Fault("type", "`type` must be a string of 1 to 200 printable characters.")
        if data is None:
            data = {}
        elif type(data) is not dict:
            raise _Fault("data", "`data` must be a JSON object.")
        return NewEvent(subject, source, event_id, event_type, None if time is None else _time(time), data)
    except _Fault as fault:
        return Rejected(_shown_id(document), fault.code, fault.message, fault.path)


def _time(value: Any) -> datetime:
    try:
        return wire.parse_timestamp(value)
    except ValueError as error:
        raise _Fault("time", f"`time` is not valid. {error}") from None


def _unknown(document: dict[str, Any]) -> _Fault:
    """Name the first unknown member and the known one it resembles: a misspelt quantity would bill nothing, in silence."""
    name = next(name for name in document if name not in _MEMBERS)[:100]
    near = difflib.get_close_matches(name, _MEMBERS - document.keys(), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else " What is measured belongs into `data`."
    return _Fault(name, f"`{name}` is not a member of an event.{hint}", "unknown_field")


def _check_cloud_event(document: dict[str, Any]) -> None:
    """Refuse what CloudEvents 1.0 does not allow, and data that is no JSON. Extension attributes are accepted and not stored."""
    if document.get("specversion") != "1.0":
        raise _Fault("specversion", '`specversion` must be "1.0".')
    if document.get("source") is None:
        raise _Fault("source", "A CloudEvent needs a `source`.")
    content_type = document.get("datacontenttype")
    if content_type is not None and not (type(content_type) is str and _is_json_type(content_type.lower())):
        raise _Fault("datacontenttype", "`data` is read as JSON only.")
    if "data_base64" in document:
        raise _Fault("data_base64", "Send JSON in `data`; binary data is not read.")
    for name in document:
        if name not in _CLOUD_MEMBERS and not _is_extension(name):
            raise _Fault(
                name[:100],
                "The name of an extension attribute has lower-case letters and digits only.",
                "unknown_field",
            )


def _shown_id(document: Any) -> str | None:
    name = document.get("id") if type(document) is dict else None
    return name if type(name) is str and _is_key(name) else None
