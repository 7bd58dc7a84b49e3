"""`manage.py prepare`: bring the database to this version, and a new one to its first use."""

from pathlib import Path
from typing import Any

from django.core.management import call_command, get_commands
from django.core.management.base import BaseCommand, CommandParser
from django.db import connection

from metering.services.partitions import ensure_partitions
from subscriptions.selectors.clock import wall_now


class Command(BaseCommand):
    """Runs before the first process of every start; on a database that is up to date it changes nothing."""

    help = "Migrate, create the first admin and API key where there is none, and load demo data into a new database."

    def add_arguments(self, parser: CommandParser) -> None:
        """Accept where to note that demo data is being loaded."""
        parser.add_argument(
            "--demo-marker",
            type=Path,
            help="Load demo data into a new database. This file is there for as long as that is unfinished, so that the "
            "next start goes on with it. Without this option no demo data is loaded.",
        )

    def handle(self, *args: Any, demo_marker: Path | None, **options: Any) -> None:
        """Migrate, bootstrap, and load the demo data that is due."""
        is_new = "django_migrations" not in connection.introspection.table_names()
        if is_new and demo_marker and "demo" in get_commands():
            demo_marker.touch()
        self.stdout.write("Bringing the database up to date …")
        call_command("migrate", interactive=False, verbosity=0)
        # Before the first event: a month whose events lie in the default partition gets none of its own any more.
        ensure_partitions(today=wall_now().date())
        call_command("bootstrap", stdout=self.stdout)
        if demo_marker and demo_marker.exists():
            call_command("demo", stdout=self.stdout)
            demo_marker.unlink()
