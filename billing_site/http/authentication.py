"""
Bearer keys: reading the header, and slowing down who guesses.

Owns no key: looking a key up is `subscriptions.api.authentication`'s. It checks the key first and reports only failures here,
so that valid keys behind the same address keep working.
"""

import ipaddress
import math
import re
import threading
import time
from typing import Any

from rest_framework.exceptions import AuthenticationFailed

from billing_site import cache
from billing_site.http.problems import RateLimited

FAILURES_MAX = 100
WINDOW_SECONDS = 60
ADDRESSES_MAX = 10_000

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,200})", re.ASCII | re.IGNORECASE)


def bearer_token(header: str | None) -> str:
    """
    Return the key in an Authorization header. Raises AuthenticationFailed (401) when there is none, or no proper one.

    >>> bearer_token("Bearer tb_live_1")
    'tb_live_1'
    """
    if not header:
        raise AuthenticationFailed("Send an API key in the header Authorization: Bearer <key>.")
    match = _BEARER.fullmatch(header)
    if match is None:
        raise AuthenticationFailed("The Authorization header is not of the form Bearer <key>.")
    return match[1]


class BadKeyLimiter:
    """
    Count failed keys per client address: beyond 100 in a minute, each further failure is 429 instead of 401.

    Counted in Redis for all processes, and in this process as well: without Redis each process limits by itself, and never
    lets go. Addresses of one IPv6 /64 count as one client.
    """

    def __init__(self, *, failures_max: int = FAILURES_MAX, window_seconds: int = WINDOW_SECONDS) -> None:
        self._failures_max = failures_max
        self._window_seconds = window_seconds
        self._counts: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def failed(self, address: str | None) -> None:
        """
        Note one failure of `address` (the client's, as the proxy rules give it). Call it before raising the 401.

        Raises RateLimited (429, with Retry-After) when there were too many; otherwise returns.
        """
        client = client_block(address)
        count, seconds_left = self._count_here(client)
        shared = cache.increment(cache.key("", "bad-key", client), seconds=self._window_seconds)
        if shared is not None and shared[0] > count:
            count, seconds_left = shared
        if count > self._failures_max:
            retry_after = str(max(1, math.ceil(seconds_left)))
            raise RateLimited("Too many requests with an invalid key.", headers={"Retry-After": retry_after})

    def _count_here(self, client: str) -> tuple[int, float]:
        moment = time.monotonic()
        with self._lock:
            if client not in self._counts and len(self._counts) >= ADDRESSES_MAX:
                self._counts = {name: held for name, held in self._counts.items() if held[0] > moment}
                if len(self._counts) >= ADDRESSES_MAX:
                    # More addresses than fit: those that are new share one count, so that a flood is limited too.
                    client = ""
            ends_at, count = self._counts.get(client, (0.0, 0))
            if ends_at <= moment:
                ends_at, count = moment + self._window_seconds, 0
            self._counts[client] = (ends_at, count + 1)
        return count + 1, ends_at - moment


def client_block(address: str | None) -> str:
    """
    Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address.

    >>> client_block("2001:db8::1:2"), client_block("192.0.2.7"), client_block("::ffff:192.0.2.7")
    ('2001:db8::/64', '192.0.2.7', '192.0.2.7')
    """
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def actor_of(request: Any) -> str:
    """Return whom the audit names for an authenticated request: "key:<prefix>"."""
    return str(request.auth.actor)
