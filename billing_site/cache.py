"""
Redis as an accelerator: bounded time-outs and a circuit breaker, so that its absence means slower, never wrong.

Nothing here raises. A function that could not ask Redis says so (None or False), and its caller takes the way that needs no
Redis. What is kept here may vanish at any moment; PostgreSQL holds the truth.
"""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import redis
from django_redis import get_redis_connection
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

TIMEOUT_SECONDS = 0.05
FAILURES_TO_OPEN = 3
OPEN_SECONDS = 1.0

# One round trip and one command for many keys with an expiry: MSET has none, and a pipeline of SETs costs four times as much.
_SET_MANY = """
for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[1]) end
return #KEYS
"""
_INCREMENT = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('PTTL', KEYS[1])}
"""


class Breaker:
    """
    Stops asking after 3 failures in a row, for a second; then one caller tries, and the others wait for its outcome elsewhere.

    States: `closed` (asking), `open` (not asking), `half_open` (one is trying).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._closed_until_failure = True
        self._try_again_at = 0.0

    def state(self) -> str:
        """Return the state, for /readyz and metrics."""
        if self._closed_until_failure:
            return "closed"
        return "open" if time.monotonic() < self._try_again_at else "half_open"

    def permits(self) -> bool:
        """Say whether this caller may ask. Of several that come when the second is over, one may."""
        if self._closed_until_failure:
            return True
        with self._lock:
            if self._closed_until_failure:
                return True
            moment = time.monotonic()
            if moment < self._try_again_at:
                return False
            self._try_again_at = moment + OPEN_SECONDS
            return True

    def succeeded(self) -> None:
        """Note an answer."""
        if self._failures or not self._closed_until_failure:
            with self._lock:
                self._failures, self._closed_until_failure = 0, True

    def failed(self, error: Exception) -> None:
        """Note that no answer came."""
        with self._lock:
            self._failures += 1
            if self._failures < FAILURES_TO_OPEN:
                return
            if self._closed_until_failure:
                logger.warning("Redis does not answer, going on without it: %s", error)
            self._closed_until_failure = False
            self._try_again_at = time.monotonic() + OPEN_SECONDS


_breaker = Breaker()


@functools.cache
def _client() -> redis.Redis:
    """
    Return a client for the cache "default", with time-outs of our own whatever the settings say.

    redis-py's defaults wait for ever and retry three times with pauses of seconds: right for a store, wrong for an accelerator.
    """
    pool = get_redis_connection("default").connection_pool
    bounded = {
        **pool.connection_kwargs,
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }
    own = redis.ConnectionPool(connection_class=pool.connection_class, max_connections=pool.max_connections, **bounded)
    return redis.Redis(connection_pool=own)


def _ask(question: Callable[[redis.Redis], Result]) -> Result | None:
    if not _breaker.permits():
        return None
    try:
        answer = question(_client())
    except redis.ResponseError as error:
        # Redis answers and will not do it (out of memory, read-only replica): no reason to stop reading.
        logger.warning("Redis refused a command: %s", error)
        _breaker.succeeded()
        return None
    except (redis.RedisError, OSError, NotImplementedError) as error:
        # NotImplementedError: the cache "default" is not Redis.
        _breaker.failed(error)
        return None
    _breaker.succeeded()
    return answer


def get_many(keys: Sequence[str]) -> list[bytes | None] | None:
    """Return the values of the keys in their order, None for each that is absent; None altogether when Redis did not answer."""
    if not keys:
        return []
    return _ask(lambda client: cast("list[bytes | None]", client.mget(keys)))


def set_many(mapping: Mapping[str, bytes], *, seconds: int) -> bool:
    """Keep each value for `seconds` (at least 1). Returns whether Redis did."""
    if not mapping:
        return True
    return _ask(lambda client: _run(client, _SET_MANY, list(mapping), [seconds, *mapping.values()])) is not None


def delete(keys: Iterable[str]) -> bool:
    """Forget the keys. Returns whether Redis did; where it did not, they live on until they expire."""
    names = list(keys)
    if not names:
        return True
    return _ask(lambda client: client.unlink(*names)) is not None


def increment(name: str, *, seconds: int) -> tuple[int, float] | None:
    """Count one more under a key that vanishes `seconds` after its first count. Returns (count, seconds left), or None without Redis."""
    answer = _ask(lambda client: _run(client, _INCREMENT, [name], [seconds]))
    return None if answer is None else (int(answer[0]), max(0.0, int(answer[1]) / 1000))


@functools.cache
def _script(client: redis.Redis, source: str) -> Any:
    return client.register_script(source)


def _run(client: redis.Redis, source: str, keys: Sequence[str], arguments: Sequence[object]) -> Any:
    return _script(client, source)(keys=keys, args=arguments)


def state() -> str:
    """Return `closed` while Redis is asked, `open` or `half_open` while it is not; for /readyz, which reports it and does not fail."""
    return _breaker.state()


def ping() -> bool:
    """Ask Redis for a sign of life, within the time-out."""
    return bool(_ask(lambda client: client.ping()))


def key(tenant_code: str, *parts: str) -> str:
    """
    Return the key of something of a tenant. All keys of one tenant carry the same hash tag: Redis Cluster keeps them together.

    Different parts never give the same key: a colon in a part is escaped.

    >>> key("org_7890", "balance", "tokens"), key("org:1", "a:b")
    ('tierbook:{org_7890}:balance:tokens', 'tierbook:{org:1}:a%3Ab')
    """
    tail = "".join(
        f":{part}" if ":" not in part and "%" not in part else f":{part.replace('%', '%25').replace(':', '%3A')}"
        for part in parts
    )
    return f"tierbook:{{{tenant_code}}}{tail}"


def reset() -> None:
    """Forget the connection and the breaker's state: after the settings changed, and between tests."""
    global _breaker
    _breaker = Breaker()
    _client.cache_clear()
    _script.cache_clear()
