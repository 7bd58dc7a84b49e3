"""
The Celery application and its beat schedule: one table, a reason per row.

No task on it decides anything by the moment at which it runs: each asks PostgreSQL what is due, so a tick may be lost,
doubled or late without harm, and every row of the table can be run by hand at any time.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "billing_site.settings")


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One row of the schedule: which task, how often, and what would go wrong without it."""

    task: str
    every: timedelta
    why: str


SCHEDULE = (
    Tick(
        task="invoices.run_due",
        every=timedelta(seconds=15),
        why="Opens, books and closes what is due. A doorbell only makes it sooner; what no doorbell rang for comes here.",
    ),
    Tick(
        task="invoices.plan_publications",
        every=timedelta(minutes=1),
        why="Schedules the changes that a publication asks for, where its doorbell was lost or a worker died in the middle of it.",
    ),
    Tick(
        task="invoices.audit_books",
        every=timedelta(hours=1),
        why="Parks a tenant whose books do not balance, before they are billed, and keeps the figures that /metrics shows.",
    ),
    Tick(
        task="invoices.run_backtests",
        every=timedelta(minutes=1),
        why="Goes on with a backtest whose worker died, or whose doorbell was lost; else it would run for ever.",
    ),
    Tick(
        task="metering.ensure_partitions",
        every=timedelta(days=1),
        why="Creates the coming months' event partitions; without them events pile up in the default partition.",
    ),
    Tick(
        task="subscriptions.prune_idempotency_keys",
        every=timedelta(days=1),
        why="An answer is kept for 30 days for a client that repeats its request; after that it is only weight.",
    ),
)

app = Celery("tierbook")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.beat_schedule = {
    tick.task: {
        "task": tick.task,
        "schedule": tick.every,
        # A tick that no worker took before the next one is not needed any more: a queue does not grow overnight.
        "options": {"expires": tick.every.total_seconds()},
    }
    for tick in SCHEDULE
}
app.autodiscover_tasks()
