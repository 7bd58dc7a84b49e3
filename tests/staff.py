"""People who work in the admin, signed in."""

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client

from billing_site.management.commands.bootstrap import ensure_groups


def sign_in(role: str | None, name: str = "ann") -> Client:
    """Return a browser with a new member of a role; None: staff who may nothing yet. Without a password: making one takes half a second."""
    user = get_user_model().objects.create_user(name, is_staff=True)
    if role is not None:
        ensure_groups()
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client
