"""`manage.py audit`: are the books right?"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from invoices.selectors.books import INVARIANTS, breaches, refresh_statistics


class Command(BaseCommand):
    """Exits with 1 and names the rows when an invariant of the books is broken. Reads only, but for the planner's statistics."""

    help = "Check the books: every balance, grant, invoice and number against what it is made of."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run every invariant in one snapshot."""
        refresh_statistics()
        found = breaches()
        for breach in found:
            whose = f"tenant {breach.tenant}: " if breach.tenant else ""
            self.stdout.write(f"{breach.invariant}: {whose}{breach.row} (must hold: {breach.says})")
        if found:
            raise CommandError(f"The books are not right: {len(found)} rows break an invariant.")
        self.stdout.write(f"The books are right: {len(INVARIANTS)} invariants hold.")
