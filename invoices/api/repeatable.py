"""Endpoints that move money: each POST carries an Idempotency-Key, and a repeat gets the first one's answer."""

from collections.abc import Callable
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from billing_site.http.wire import encode
from subscriptions.services import idempotency

HEADER = "Idempotency-Key"


def answer_once(request: Request, action: Callable[[], tuple[int, dict[str, Any]]]) -> Response:
    """
    Run the action and answer (status, document), or answer as the first time.

    Two bodies are the same when they say the same: white space and the order of members do not matter. Raises
    IdempotencyKeyRequired (400), IdempotencyKeyReuse (422).
    """
    status, document = idempotency.once(
        key=request.headers.get(HEADER),
        method=str(request.method),
        path=request.path,
        body=encode(request.data),
        action=action,
    )
    return Response(document, status=status)


def answer_anew(request: Request, document: Callable[[], dict[str, Any]]) -> Response:
    """
    Answer with what is true now, each time: for a POST that changes nothing.

    The header is demanded like everywhere beside it, and not kept. Raises IdempotencyKeyRequired (400).
    """
    idempotency.checked_key(request.headers.get(HEADER))
    return Response(document())
