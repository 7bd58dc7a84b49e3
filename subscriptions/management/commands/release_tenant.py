"""`manage.py release_tenant`: let a parked tenant be charged again."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing_site.http.problems import DomainError
from subscriptions.selectors.tenants import get_tenant
from subscriptions.services.parking import release_tenant


class Command(BaseCommand):
    """Does what the button of the tenant's staff page does, and leaves the same entry; the actor is "shell:<name>"."""

    help = "Release a tenant that the audit has parked; what fell due meanwhile is caught up."

    def add_arguments(self, parser: CommandParser) -> None:
        """Accept the tenant, who asks, and why."""
        parser.add_argument("tenant", help="The tenant's id.")
        parser.add_argument("--reason", required=True, help="Why its books may be billed; kept in the audit entry.")
        parser.add_argument("--by", required=True, help="Who says so; kept in the audit entry.")

    def handle(self, *args: Any, tenant: str, reason: str, by: str, **options: Any) -> None:
        """Release it, or say why not."""
        try:
            release_tenant(tenant_id=get_tenant(tenant).pk, actor=f"shell:{by}", reason=reason)
        except DomainError as refusal:
            raise CommandError(refusal.detail) from refusal
        self.stdout.write(f"{tenant} is released.")
