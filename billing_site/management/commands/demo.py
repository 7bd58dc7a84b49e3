"""`manage.py demo`: customers to look at."""

from typing import Any

from django.core.management.base import BaseCommand

from billing_site.console import demo
from subscriptions.selectors.clock import wall_now


class Command(BaseCommand):
    """Loads the demo data, or what an earlier run has left undone of it; when all is there, it changes nothing."""

    help = "Load demo data: three tiers, five customers on a test clock, and two closed months of usage and invoices."

    def handle(self, *args: Any, **options: Any) -> None:
        """Load it, and say how far it is."""
        loaded = demo.load(now=wall_now(), say=self._say)
        self._say(f"Demo data: complete, {loaded.events} new events; its customers have {loaded.invoices} invoices.")

    def _say(self, line: str) -> None:
        """Print a line now: whoever waits sees that it goes on."""
        self.stdout.write(line)
        self.stdout.flush()
