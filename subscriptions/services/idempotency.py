"""
A request that moves money is carried out once, however often it is sent.

Owns the stored answers. The key, the body's digest and the answer are written in the transaction of the action itself.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import transaction

from billing_site.database import run_with_retries
from billing_site.http.problems import DomainError
from subscriptions.models import IdempotencyKey

KEY_LENGTH_MAX = 255
KEPT_DAYS = 30

Answer = tuple[int, dict[str, Any]]

# A row without an answer is seen by nobody: it is written, answered and committed in one transaction.
_UNANSWERED = 0


class IdempotencyKeyRequired(DomainError):
    """The endpoint moves money, so that a request without a key could not be repeated safely."""

    status = 400
    code = "idempotency_key_required"
    title = "The header Idempotency-Key is required"


class IdempotencyKeyReuse(DomainError):
    """The key was used for another request."""

    status = 422
    code = "idempotency_key_reuse"
    title = "The idempotency key was used for another request"


def once(*, key: str | None, method: str, path: str, body: bytes, action: Callable[[], Answer]) -> Answer:
    """
    Run `action` and keep its answer (status, JSON-safe document), or return the answer kept from the first time.

    Runs in one transaction, which is repeated after a deadlock: `action` does nothing outside of the database. A repeat that comes while the first is still running waits for it, and gets its answer. An action that
    raises leaves nothing behind, so the key may be used again. Keys belong to the whole installation, and are kept for 30 days.

    Raises IdempotencyKeyRequired (400) without a key of 1 to 255 visible characters, IdempotencyKeyReuse (422) when the key came with
    another method, path or body.
    """
    checked = checked_key(key)
    digest = _digest(method, path, body)
    return run_with_retries(lambda: _once(checked, digest, action))


def checked_key(key: str | None) -> str:
    """Return the key. Raises IdempotencyKeyRequired (400) without 1 to 255 visible characters."""
    if key is None or not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isascii() or not key.isprintable():
        raise IdempotencyKeyRequired(
            "Send 1 to 255 visible ASCII characters, such as a UUID, in the header Idempotency-Key."
        )
    return key


@transaction.atomic
def _once(key: str, digest: bytes, action: Callable[[], Answer]) -> Answer:
    # The unique index makes a second inserter wait until the first commits (then it finds the row) or rolls back.
    row, is_first = IdempotencyKey.objects.get_or_create(
        key=key, defaults={"digest": digest, "status": _UNANSWERED, "answer": {}}
    )
    if not is_first:
        return _kept(row, digest)
    status, answer = action()
    row.status = status
    row.answer = answer
    row.save(update_fields=["status", "answer"])
    return status, answer


def prune(*, before: datetime) -> int:
    """Delete the answers recorded before that wall time, and return how many there were."""
    deleted, _ = IdempotencyKey.objects.filter(recorded_at__lt=before).delete()
    return deleted


def _kept(row: IdempotencyKey, digest: bytes) -> Answer:
    if bytes(row.digest) != digest:
        raise IdempotencyKeyReuse(
            "This Idempotency-Key came with another method, path or body. Use a new one for a new request."
        )
    return row.status, row.answer


def _digest(method: str, path: str, body: bytes) -> bytes:
    # Method and path cannot contain a line break, so two different requests never join to the same bytes.
    return hashlib.sha256(f"{method} {path}\n".encode() + body).digest()
