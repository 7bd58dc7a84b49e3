"""`manage.py bootstrap`: the groups of staff, the first admin and the first API key of a new installation."""

import os
import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from billing_site.console.roles import ROLES, permissions_of
from billing_site.http.problems import DomainError
from subscriptions.models import ApiKey
from subscriptions.services.keys import issue_key


@transaction.atomic
def ensure_groups() -> list[str]:
    """
    Make the groups that are missing, and return their names.

    A group that exists is left as the operator has made it. Needs the permissions that migrating the database creates.
    """
    made = []
    for role in ROLES:
        group, is_new = Group.objects.get_or_create(name=role)
        if is_new:
            group.permissions.set(permissions_of(role))
            made.append(role)
    return made


class Command(BaseCommand):
    """
    Creates what nobody could sign in without, once.

    TIERBOOK_BOOTSTRAP_EMAIL, TIERBOOK_BOOTSTRAP_PASSWORD and TIERBOOK_BOOTSTRAP_API_KEY fix the values for unattended
    installs. They count on the first start only: an installation that has an admin, or a key, is left as it is.
    """

    help = "Create the first admin and the first API key where there is none; what was generated is printed once."

    def handle(self, *args: Any, **options: Any) -> None:
        """Create them in one transaction, and print only what is stored."""
        with transaction.atomic():
            ensure_groups()
            lines = [*self._first_admin(), *self._first_key()]
        if lines:
            self.stdout.write("\n".join(["", *lines, "Keep them: they are not shown again.", ""]))

    def _first_admin(self) -> list[str]:
        users = get_user_model()._default_manager
        if users.filter(is_superuser=True).exists():
            return []
        email = os.environ.get("TIERBOOK_BOOTSTRAP_EMAIL") or "admin@localhost"
        given = os.environ.get("TIERBOOK_BOOTSTRAP_PASSWORD")
        password = given or secrets.token_urlsafe(15)
        users.create_superuser(username=email, email=email, password=password)
        return [f"First admin:    {email}", f"Password:       {'as given' if given else password}"]

    def _first_key(self) -> list[str]:
        if ApiKey.objects.exists():
            return []
        given = os.environ.get("TIERBOOK_BOOTSTRAP_API_KEY")
        try:
            _key, secret = issue_key(
                name="First key", scopes=ApiKey.Scope.values, actor="bootstrap", secret=given or None
            )
        except DomainError as refusal:
            reasons = "; ".join(f"{error.path} {error.message}" for error in refusal.errors)
            raise CommandError(f"TIERBOOK_BOOTSTRAP_API_KEY cannot be used: {reasons or refusal.detail}") from refusal
        return [f"First API key:  {'as given' if given else secret}"]
