"""`manage.py catalog`: meters, tiers and versions as text, out and in."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing_site.http.problems import DomainError
from subscriptions.selectors.catalog_text import catalog_text
from subscriptions.selectors.clock import wall_now
from subscriptions.services.catalog_text import import_catalog


class Command(BaseCommand):
    """Exports the catalogue as YAML, and imports one; the actor of an import is "shell:<name>"."""

    help = (
        "Export the catalogue as YAML, or import one: what is missing is made, drafts are replaced, nothing is deleted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Accept what to do, and for an import the text and who asks for it."""
        what = parser.add_subparsers(dest="what", required=True)
        what.add_parser("export", help="Write the catalogue to standard output.")
        taking = what.add_parser(
            "import", help="Bring the catalogue to what a text says, or say what that would change."
        )
        taking.add_argument("file", help="The text's path; - for standard input.")
        taking.add_argument("--by", required=True, help="Who asks for it; kept in the audit entries.")
        taking.add_argument("--dry-run", action="store_true", help="Say what would change, and change nothing.")

    def handle(self, *args: Any, what: str, **options: Any) -> None:
        """Do it, or say why not."""
        if what == "export":
            self.stdout.write(catalog_text(), ending="")
            return
        self._import(options["file"], by=options["by"], dry_run=options["dry_run"])

    def _import(self, file: str, *, by: str, dry_run: bool) -> None:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{file} cannot be read: {error}") from error
        try:
            changes = import_catalog(text=text, now=wall_now(), actor=f"shell:{by}", dry_run=dry_run)
        except DomainError as refusal:
            faults = [f"{error.path}: {error.message}" for error in refusal.errors if error.path]
            raise CommandError("\n".join(faults) or refusal.detail) from refusal
        for change in changes:
            self.stdout.write(change)
        if not changes:
            self.stdout.write("Nothing changes.")
        elif dry_run:
            self.stdout.write("Nothing was written: this was a dry run.")
