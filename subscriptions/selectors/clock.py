"""
What time it is, for whom.

The one place in the apps that reads the wall clock. Doors ask here and pass the answer on as `now`; nothing below a door asks.
"""

from datetime import datetime

from django.utils import timezone

from billing_site.http.problems import DomainError
from subscriptions.models import Tenant, TestClock


class ClockNotFound(DomainError):
    """No test clock has this id."""

    status = 404
    code = "not_found"
    title = "There is no such test clock"


def wall_now() -> datetime:
    """Return the wall clock's time, for what concerns no tenant: keys, publications, the pruning of old answers."""
    return timezone.now()  # noqa: TID251 - this is the door through which the clock comes in


def now_for(tenant: Tenant) -> datetime:
    """
    Return the tenant's time: its test clock's, else the wall clock's.

    A test clock is read from the database each time, because it may have moved since the tenant was loaded.
    """
    if tenant.test_clock_id is None:
        return wall_now()
    return TestClock.objects.values_list("now", flat=True).get(pk=tenant.test_clock_id)


def get_clock(code: str) -> TestClock:
    """Return a test clock by its code. Raises ClockNotFound (404)."""
    clock = TestClock.objects.filter(code=code).first()
    if clock is None:
        raise ClockNotFound(f"There is no test clock {code}.")
    return clock
