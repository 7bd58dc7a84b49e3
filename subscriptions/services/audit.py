"""Who changed what, written in the transaction of the change itself. Entries are append-only (a trigger keeps them)."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models

from billing_site.database import json_rows
from subscriptions.models import AuditEntry, TierVersion

ACTOR_SYSTEM = "system"

_ENCODER = DjangoJSONEncoder()


def record(
    *,
    actor: str,
    action: str,
    instance: models.Model,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
) -> AuditEntry:
    """
    Note that `actor` did `action` to `instance`.

    Call it inside the transaction of the change, so that neither exists without the other. `actor` is "staff:<user name>",
    "key:<prefix>", "shell:<name>" or "system"; `action` a verb of the vocabulary ("create", "publish", "revoke"). `before` and `after` hold what
    changed; never put a secret into them.
    """
    return AuditEntry.objects.create(
        actor=actor[:200],
        action=action,
        object_type=instance._meta.label_lower,
        object_id=object_id(instance)[:200],
        before=_plain(before),
        after=_plain(after),
        reason=reason,
    )


def record_all(*, actor: str, action: str, after: Iterable[tuple[models.Model, Mapping[str, Any]]]) -> None:
    """Note that `actor` did `action` to each of several things, with what each is after it, in one statement."""
    entries = [
        {
            "type": instance._meta.label_lower,
            "id": object_id(instance)[:200],
            "after": msgspec.Raw(_text(values).encode()),
        }
        for instance, values in after
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO subscriptions_auditentry (actor, action, object_type, object_id, after, reason)
            SELECT %s, %s, type, id, after, '' FROM jsonb_to_recordset(%s::jsonb) AS e (type text, id text, after jsonb)
            """,
            [actor[:200], action, json_rows(entries)],
        )


def object_id(instance: models.Model) -> str:
    """Return the id by which entries name an object: the operator's own where there is one, else ours."""
    if isinstance(instance, TierVersion):
        return f"{instance.tier.code}/{instance.number}"
    for attribute in ("code", "public_id"):
        if value := getattr(instance, attribute, None):
            return str(value)
    return str(instance.pk)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Return the members that differ, as they were and as they are.

    >>> changes({"name": "Acme", "country": "DE"}, {"name": "Acme Inc", "country": "DE"})
    ({'name': 'Acme'}, {'name': 'Acme Inc'})
    """
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def _plain(values: Mapping[str, Any] | None) -> Any:
    return None if values is None else json.loads(_text(values))


def _text(values: Mapping[str, Any]) -> str:
    return _ENCODER.encode(values)
