"""Which API key a caller holds."""

import hashlib
import hmac
import threading
import time
from dataclasses import dataclass
from datetime import datetime

from subscriptions.models import ApiKey
from subscriptions.selectors.clock import wall_now

PREFIX_LENGTH = 11
# Below the second within which a revoked key must be refused, Redis or no Redis: each process forgets by itself.
CACHE_SECONDS = 0.9
# From this age on one thread asks again while the others go on: thirty threads that all ask at once would stop the process.
RENEW_SECONDS = 0.5
CACHED_KEYS_MAX = 1_000

_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a door needs to know of the key that it was called with."""

    id: int
    prefix: str
    scopes: frozenset[str]
    expires_at: datetime | None = None

    @property
    def actor(self) -> str:
        """Who did it, as the audit names a key."""
        return f"key:{self.prefix}"


@dataclass(slots=True)
class _Remembered:
    """A good key, with the moment (monotonic) at which the database was asked for it."""

    info: KeyInfo
    asked_at: float
    # The thread that is asking again.
    renewed_by: int | None = None


_cache: dict[bytes, _Remembered] = {}


def find_key(token: str) -> KeyInfo | None:
    """
    Return the key that this token is, or None when there is none, or it was revoked or has expired.

    A good key is remembered for 0.9 seconds in this process, so that a busy gateway costs two queries per second; a revocation
    is therefore in force everywhere within a second. A bad one is looked up each time: the door counts and slows those down.
    Digests are compared in constant time, and an unknown prefix costs the same query and comparison as a wrong secret.
    """
    remembered = remembered_key(token)
    if remembered is not None:
        return remembered
    digest = digest_of(token)
    # Before the query: what is remembered must never be older than the answer that it stands for.
    asked_at = time.monotonic()
    row = ApiKey.objects.filter(prefix=token[:PREFIX_LENGTH], revoked_at__isnull=True).first()
    if not hmac.compare_digest(bytes(row.digest) if row else _NO_DIGEST, digest) or row is None:
        _cache.pop(digest, None)
        return None
    info = KeyInfo(id=row.pk, prefix=row.prefix, scopes=frozenset(row.scopes), expires_at=row.expires_at)
    if len(_cache) >= CACHED_KEYS_MAX:
        _cache.clear()
    _cache[digest] = _Remembered(info, asked_at)
    return _unless_expired(info)


def remembered_key(token: str) -> KeyInfo | None:
    """
    Return the key that this token is if this process remembers it, without a query; None says nothing of the token.

    Also None for the one thread whose turn it is to ask again.
    """
    remembered = _cache.get(digest_of(token))
    if remembered is None:
        return None
    age = time.monotonic() - remembered.asked_at
    if age >= CACHE_SECONDS:
        return None
    if age >= RENEW_SECONDS:
        if remembered.renewed_by is None:
            remembered.renewed_by = threading.get_ident()
        if remembered.renewed_by == threading.get_ident():
            return None
    return _unless_expired(remembered.info)


def forget_keys() -> None:
    """Forget what this process remembers of keys. For tests, and for a process that revokes a key itself."""
    _cache.clear()


def digest_of(token: str) -> bytes:
    """Return what is stored of a key: its SHA-256. 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode()).digest()


def _unless_expired(info: KeyInfo) -> KeyInfo | None:
    return None if info.expires_at is not None and info.expires_at <= wall_now() else info
