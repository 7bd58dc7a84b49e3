"""Celery doors: an id, one call."""

from celery import shared_task

from metering.services import partitions
from subscriptions.selectors.clock import wall_now


@shared_task(name="metering.ensure_partitions")
def ensure_partitions() -> None:
    """Make the event partitions of the coming months."""
    partitions.ensure_partitions(today=wall_now().date())
