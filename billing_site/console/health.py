"""
Two questions of whoever runs the site: does this process live, and may it be sent requests?

Only PostgreSQL decides: without Redis the site is slower and not wrong, so cache and queue are reported and do not count. Nor does the role
under which backtests read: without it their transactions alone are held to reading.
"""

from collections.abc import Callable
from functools import cache

from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_redis import get_redis_connection
from django_redis.exceptions import ConnectionInterrupted
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from billing_site.celery import app as celery
from billing_site.database import reader_state
from invoices.models import Invoice

QUEUE_SECONDS = 0.5


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200 for as long as this process answers at all; asks no other server."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Answer 200 when the database answers and has every migration of this version, else 503; each part is named."""
    try:
        missing = migrations_missing()
        deciding = {"database": "ok", "migrations": f"{missing} missing" if missing else "ok"}
        # Before the first migration there is no table to ask about.
        reader = "unknown" if missing else reader_state(Invoice._meta.db_table)
    except DatabaseError:
        deciding = {"database": "unavailable", "migrations": "unknown"}
        reader = "unknown"
    ready = all(state == "ok" for state in deciding.values())
    reported = {"reader": reader, "cache": state_of(ask_cache), "queue": state_of(ask_queue)}
    document = {"status": "ready" if ready else "not ready", "checks": {**deciding, **reported}}
    return JsonResponse(document, status=200 if ready else 503, headers={} if ready else {"Retry-After": "2"})


def migrations_missing() -> int:
    """Return how many of this version's migrations the database does not have."""
    return len(_known_migrations() - MigrationRecorder(connection).applied_migrations().keys())


@cache
def _known_migrations() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None).disk_migrations)


def state_of(ask: Callable[[], object]) -> str:
    """Return "ok" when the question is answered, else "unavailable"."""
    try:
        ask()
    except (OSError, RedisError, ConnectionInterrupted, BrokerError):
        return "unavailable"
    return "ok"


def ask_cache() -> None:
    """Reach the cache past the setting that lets it fail in silence. Raises when it does not answer."""
    get_redis_connection("default").ping()


def ask_queue() -> None:
    """Connect to the broker. Raises when it does not answer."""
    with celery.connection_for_read(connect_timeout=QUEUE_SECONDS) as queue:
        queue.ensure_connection(max_retries=1, timeout=QUEUE_SECONDS)
