"""
The hot path of the gate: bytes and headers in, status, headers and bytes out.

Knows neither Django's requests nor DRF, so that views and the short way can both call it. Owns what a gateway may ask and how an answer looks;
decides nothing (`metering.services.authorize`).
"""

import difflib
import math
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from billing_site.http import wire
from billing_site.http.problems import FieldError, Invalid, problem_bytes, translate, validation_error
from billing_site.http.serializers import CODE
from billing_site.http.wire import plain, timestamp
from metering.api.ingest import Answer
from metering.core.decision import Limit
from metering.core.quantities import RefusedValue, read_quantity
from metering.services import committer
from metering.services.requests import Authorize, GateAnswer

TTL_SECONDS = 300
TTL_SECONDS_MAX = 86_400
DIMENSION_LENGTH_MAX = 200

_AUTHORIZE = frozenset({"tenant", "meter", "quantity", "key", "ttl_seconds", "dimensions", "hold"})

# Printable ASCII without blanks, as ids of events are.
_is_key = re.compile(r"[\x21-\x7e]{1,255}").fullmatch


def handle_authorize(body: bytes, headers: Mapping[str, str], now: datetime) -> Answer:
    """
    Answer a request to hold a quantity: 201 when it is held, 200 when it is not, or was before.

    `headers` has lower-case names; `now` is the wall time of receipt. Never raises: a refusal is a problem document.
    """
    try:
        asked = _read_authorize(body, headers, now)
        answer = committer.submit(asked)
    except Exception as exception:
        return refusal(exception)
    return answered(answer, now, status=201 if answer.is_new else 200)


def refusal(exception: Exception) -> Answer:
    """Return the problem document of an exception."""
    error = translate(exception)
    return Answer(
        error.status, problem_bytes(error.status, error.code, error.title, error.detail, error.errors), error.headers
    )


def answered(answer: GateAnswer, now: datetime, *, status: int = 200) -> Answer:
    """Return an answer of the gate with its decision in headers, too."""
    return Answer(status, msgspec.json.encode(decision_document(answer)), decision_headers(answer, now))


def decision_document(answer: GateAnswer) -> dict[str, Any]:
    """Return an answer as the API shows it. Quantities are in meter units, the amount in the tenant's currency, not rounded."""
    decision = answer.decision
    return {
        "id": None if answer.authorization is None else str(answer.authorization),
        "status": answer.status or None,
        "decision": decision.decision,
        "reason": decision.reason,
        "quantity": plain(answer.quantity),
        "remaining": plain(decision.remaining),
        "overage_quantity": plain(decision.overage_quantity),
        "estimated_amount": plain(answer.estimated_amount),
        "binding_limit": None if decision.binding_limit is None else limit_document(decision.binding_limit),
        "frees_at": None if decision.frees_at is None else timestamp(decision.frees_at),
        "expires_at": None if answer.expires_at is None else timestamp(answer.expires_at),
        "fresh_at": timestamp(answer.fresh_at),
    }


def limit_document(limit: Limit) -> dict[str, Any]:
    """Return a limit as the API shows it: in meter units, a `spend_cap` in the tenant's currency. `window` stands with windows only."""
    document: dict[str, Any] = {
        "kind": limit.kind,
        "limit": plain(limit.limit),
        "left": plain(limit.left),
        "frees_at": None if limit.frees_at is None else timestamp(limit.frees_at),
    }
    return document | {"window": limit.window} if limit.window else document


def decision_headers(answer: GateAnswer, now: datetime) -> dict[str, str]:
    """
    Return the decision as headers, for proxies that read no body.

    `X-Tierbook-Resets` and the IETF fields stand where a limit binds (draft-ietf-httpapi-ratelimit-headers-10: whole units, and seconds).
    """
    decision = answer.decision
    headers = {"X-Tierbook-Decision": decision.decision.value, "X-Tierbook-Remaining": plain(decision.remaining)}
    limit = decision.binding_limit
    if limit is None:
        return headers
    headers["RateLimit-Policy"] = f'"{limit.kind}";q={_whole(limit.limit)}'
    headers["RateLimit"] = f'"{limit.kind}";r={_whole(limit.left)}'
    if limit.frees_at is not None:
        headers["X-Tierbook-Resets"] = timestamp(limit.frees_at)
        headers["RateLimit"] += f";t={max(0, math.ceil((limit.frees_at - now).total_seconds()))}"
    return headers


# The largest integer of a structured field (RFC 9651).
_INTEGER_MAX = 10**15 - 1


def _whole(number: Decimal) -> int:
    return min(int(number), _INTEGER_MAX)


def _read_authorize(body: bytes, headers: Mapping[str, str], now: datetime) -> Authorize:
    """Read what is asked. Raises Invalid or UnknownField (422), naming every fault; what wire.decode raises."""
    document, faults = read_members(body, headers, known=_AUTHORIZE)
    for name in ("tenant", "meter"):
        value = document.get(name)
        if not isinstance(value, str) or CODE.fullmatch(value) is None:
            faults.append(
                FieldError(
                    name, "validation", f"`{name}` must be an id: 1 to 100 characters out of A-Z a-z 0-9 . _ : @ -"
                )
            )
    key = document.get("key")
    if not isinstance(key, str) or not _is_key(key):
        faults.append(
            FieldError(
                "key", "validation", "`key` must be a string of 1 to 255 printable ASCII characters without blanks."
            )
        )
    quantity = read_positive(document.get("quantity"), "quantity", faults)
    ttl_seconds = read_ttl(document.get("ttl_seconds"), faults)
    dimensions = _dimensions(document.get("dimensions"), faults)
    if faults:
        raise validation_error(faults)
    return Authorize(
        document["tenant"], document["meter"], quantity, document["key"], dimensions, ttl_seconds or TTL_SECONDS, now
    )


def read_members(
    body: bytes, headers: Mapping[str, str], *, known: Collection[str]
) -> tuple[dict[str, Any], list[FieldError]]:
    """Return the members of the body, an object, and a list with a fault for each that is not known."""
    wire.media_type(headers.get("content-type"))
    document = wire.decode(wire.unpack(body, headers.get("content-encoding")))
    if type(document) is not dict:
        raise Invalid("The body must be a JSON object.")
    faults = []
    if not document.keys() <= known:
        for name in document.keys() - known:
            near = difflib.get_close_matches(name[:100], known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            faults.append(FieldError(name[:100], "unknown_field", f"This field is not known here.{hint}"))
    return document, faults


_QUANTITY_RULE = (
    "must be a number above 0 with at most 18 digits before the point and 12 after it, as a string or a JSON number."
)


def read_positive(value: Any, path: str, faults: list[FieldError]) -> Decimal:
    """Return a quantity above 0; notes a fault for anything else."""
    try:
        quantity = read_quantity(value)
    except RefusedValue:
        quantity = Decimal(0)
    if quantity <= 0:
        faults.append(FieldError(path, "validation", f"`{path}` {_QUANTITY_RULE}"))
    return quantity


def read_ttl(value: Any, faults: list[FieldError]) -> int | None:
    """Return a time to live in seconds, None where none is given; notes a fault for what is no whole number from 1 to 86,400."""
    if value is None or (type(value) is int and 1 <= value <= TTL_SECONDS_MAX):
        return value
    faults.append(
        FieldError("ttl_seconds", "validation", f"`ttl_seconds` must be a whole number from 1 to {TTL_SECONDS_MAX}.")
    )
    return None


def _dimensions(value: Any, faults: list[FieldError]) -> dict[str, str]:
    if value is None:
        return {}
    if type(value) is not dict:
        faults.append(FieldError("dimensions", "validation", "`dimensions` must be an object of names and texts."))
        return {}
    for name, text in value.items():
        if type(text) is not str or len(text) > DIMENSION_LENGTH_MAX:
            message = f"A dimension's value is a text of at most {DIMENSION_LENGTH_MAX} characters."
            faults.append(FieldError(f"dimensions.{name[:100]}", "validation", message))
    return value
