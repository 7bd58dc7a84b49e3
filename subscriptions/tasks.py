"""Celery doors: one call each."""

from datetime import timedelta

from celery import shared_task

from subscriptions.selectors.clock import wall_now
from subscriptions.services import idempotency


@shared_task(name="subscriptions.prune_idempotency_keys")
def prune_idempotency_keys() -> None:
    """Forget the answers of requests that are older than 30 days of wall time."""
    idempotency.prune(before=wall_now() - timedelta(days=idempotency.KEPT_DAYS))
