"""
The hot path of the gate: bytes and headers in, status, headers and bytes out.

Knows neither Django's requests nor DRF, so that views and the short way can both call it. Owns what a gateway may ask and how an answer looks;
decides nothing (`metering.services.authorize`).
"""

import difflib
import math
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from billing_site.http import wire
from billing_site.http.problems import FieldError, Invalid, problem_bytes, translate, validation_error
from billing_site.http.serializers import CODE
from billing_site.http.wire import plain, timestamp
from metering.api.ingest import Answer, balance_document
from metering.api.wire import read_event
from metering.core.decision import Limit, Outcome
from metering.core.measuring import dimension_set
from metering.core.quantities import RefusedValue, read_quantity
from metering.selectors.authorizations import FoundHold
from metering.services import committer
from metering.services.checking import check_call
from metering.services.requests import Authorize, Extend, GateAnswer, Rejected, Release, Settle

TTL_SECONDS = 300
TTL_SECONDS_MAX = 86_400
DIMENSION_LENGTH_MAX = 200

_SETTLE = frozenset({"quantity", "event"})
_EXTEND = frozenset({"quantity", "ttl_seconds"})
_AUTHORIZE = frozenset({"tenant", "meter", "quantity", "key", "ttl_seconds", "dimensions", "hold"})

# Printable ASCII without blanks, as ids of events are.
_is_key = re.compile(r"[\x21-\x7e]{1,255}").fullmatch


def handle_authorize(body: bytes, headers: Mapping[str, str], now: datetime) -> Answer:
    """
    Answer a request to hold a quantity: 201 when it is held, 200 when it is not, or was before. With `"hold": false` it only asks.

    `headers` has lower-case names; `now` is the wall time of receipt. Never raises: a refusal is a problem document.
    """
    try:
        asked, holds = _read_authorize(body, headers, now)
        answer = committer.submit(asked) if holds else check_call(asked)
    except Exception as exception:
        return refusal(exception)
    return answered(answer, status=201 if answer.is_new else 200)


def handle_extend(authorization: UUID, body: bytes, headers: Mapping[str, str], now: datetime) -> Answer:
    """Answer a request to hold more, or longer: 200, with the decision. Never raises."""
    try:
        document, faults = read_members(body, headers, known=_EXTEND)
        given = document.get("quantity")
        quantity = None if given is None else read_positive(given, "quantity", faults)
        ttl_seconds = read_ttl(document.get("ttl_seconds"), faults)
        if not faults and quantity is None and ttl_seconds is None:
            faults.append(
                FieldError("", "required", "Say by how much or for how long: `quantity`, `ttl_seconds`, or both.")
            )
        if faults:
            raise validation_error(faults)
        answer = committer.submit(Extend(authorization, quantity, ttl_seconds, now))
    except Exception as exception:
        return refusal(exception)
    return answered(answer)


def handle_settle(authorization: UUID, body: bytes, headers: Mapping[str, str], now: datetime) -> Answer:
    """Record what an authorized call has used, and free the hold: 200, also for a repeat. Never raises."""
    try:
        ended = committer.submit(_read_settle(authorization, body, headers, now))
    except Exception as exception:
        return refusal(exception)
    document = authorization_document(ended.found)
    document["balances"] = [balance_document(balance) for balance in ended.balances]
    return Answer(200, msgspec.json.encode(document), {})


def handle_release(authorization: UUID, body: bytes, headers: Mapping[str, str], now: datetime) -> Answer:
    """Free a hold of which nothing was used: 200, also for a repeat, and where it has expired. Never raises."""
    try:
        if body.strip():
            _, faults = read_members(body, headers, known=frozenset())
            if faults:
                raise validation_error(faults)
        ended = committer.submit(Release(authorization, now))
    except Exception as exception:
        return refusal(exception)
    return Answer(200, msgspec.json.encode(authorization_document(ended.found)), {})


def authorization_document(found: FoundHold) -> dict[str, Any]:
    """
    Return an authorization as the API shows it. Quantities are in meter units, the amount in the tenant's currency, not rounded.

    `hold` says how the hold ended: a settled authorization may have expired or been released before.
    """
    hold = found.hold
    return {
        "id": str(hold.id),
        "status": hold.status,
        "hold": hold.freed_by or "held",
        "tenant": found.tenant,
        "meter": found.meter,
        "dimensions": dict(dimension_set(hold.dimension_key)),
        "key": hold.key,
        "decision": hold.decision,
        "quantity": plain(hold.quantity),
        "overage_quantity": plain(hold.overage_quantity),
        "estimated_amount": plain(hold.amount_precise),
        "authorized_at": timestamp(hold.authorized_at),
        "expires_at": timestamp(hold.expires_at),
        "settled_quantity": None if hold.settled_quantity is None else plain(hold.settled_quantity),
        "event": None if hold.settled_event is None else str(hold.settled_event),
    }


def refusal(exception: Exception) -> Answer:
    """Return the problem document of an exception."""
    error = translate(exception)
    return Answer(
        error.status, problem_bytes(error.status, error.code, error.title, error.detail, error.errors), error.headers
    )


def answered(answer: GateAnswer, *, status: int = 200) -> Answer:
    """Return an answer of the gate with its decision in headers, too."""
    return Answer(status, msgspec.json.encode(decision_document(answer)), decision_headers(answer))


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


def decision_headers(answer: GateAnswer) -> dict[str, str]:
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
        headers["RateLimit"] += f";t={_seconds_until(limit.frees_at, answer.now)}"
    return headers


def _seconds_until(instant: datetime, now: datetime) -> int:
    return max(0, math.ceil((instant - now).total_seconds()))


# The largest integer of a structured field (RFC 9651).
_INTEGER_MAX = 10**15 - 1


def _whole(number: Decimal) -> int:
    return min(int(number), _INTEGER_MAX)


def handle_check(tenant: str, meter: str, quantity: Decimal, now: datetime) -> Answer:
    """Say whether a call may run: 200, or 429 with a Retry-After where it is known when it may. Never raises."""
    try:
        answer = check_call(Authorize(tenant, meter, quantity, "", {}, TTL_SECONDS, now))
    except Exception as exception:
        return refusal(exception)
    if answer.decision.decision != Outcome.DENY:
        return answered(answer)
    headers = decision_headers(answer)
    limit = answer.decision.binding_limit
    if limit is not None and limit.frees_at is not None:
        headers["Retry-After"] = str(max(1, _seconds_until(limit.frees_at, answer.now)))
    detail = f"The gate denies the call: {answer.decision.reason}."
    problem = problem_bytes(429, answer.decision.reason, "The gate denies the call", detail)
    # Nothing is held, and `status` is the problem's.
    said = {
        name: value for name, value in decision_document(answer).items() if name not in ("id", "status", "expires_at")
    }
    return Answer(429, msgspec.json.encode(msgspec.json.decode(problem) | said), headers)


def _read_authorize(body: bytes, headers: Mapping[str, str], now: datetime) -> tuple[Authorize, bool]:
    """Read what is asked, and whether it is to be held. Raises Invalid or UnknownField (422), naming every fault; what wire.decode raises."""
    document, faults = read_members(body, headers, known=_AUTHORIZE)
    for name in ("tenant", "meter"):
        value = document.get(name)
        if not isinstance(value, str) or CODE.fullmatch(value) is None:
            faults.append(
                FieldError(
                    name, "validation", f"`{name}` must be an id: 1 to 100 characters out of A-Z a-z 0-9 . _ : @ -"
                )
            )
    holds = document.get("hold", True)
    if type(holds) is not bool:
        faults.append(FieldError("hold", "validation", "`hold` must be true or false."))
    # What is only asked for needs no key.
    key = document.get("key", "-" if holds is False else None)
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
    tenant, meter = document["tenant"], document["meter"]
    return Authorize(tenant, meter, quantity, str(key), dimensions, ttl_seconds or TTL_SECONDS, now), holds


def _read_settle(authorization: UUID, body: bytes, headers: Mapping[str, str], now: datetime) -> Settle:
    """Read what was used: a quantity, 0 or more, or an event. Raises Invalid or UnknownField (422), what wire.decode raises."""
    document, faults = read_members(body, headers, known=_SETTLE)
    quantity, sent = document.get("quantity"), document.get("event")
    if (quantity is None) == (sent is None):
        faults.append(FieldError("", "required", "Say what was used: `quantity` or `event`, and not both."))
    elif faults:
        pass
    elif quantity is not None:
        try:
            return Settle(authorization, read_quantity(quantity), None, now)
        except RefusedValue:
            faults.append(
                FieldError("quantity", "validation", f"`quantity` {_QUANTITY_RULE.replace('above 0', 'of 0 or more')}")
            )
    else:
        event = read_event(sent)
        if not isinstance(event, Rejected):
            return Settle(authorization, None, event, now)
        faults.append(FieldError(f"event.{event.path}" if event.path else "event", event.code, event.detail))
    raise validation_error(faults)


def read_members(
    body: bytes, headers: Mapping[str, str], *, known: frozenset[str]
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
