"""What the world is to be told, written in the transaction in which it happened. Sending it is not this module's work."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import connection

from billing_site.database import json_rows, uuid7s
from subscriptions.models import OutboxMessage, Tenant


def write(*, tenant: Tenant, type: str, payload: Mapping[str, Any]) -> OutboxMessage:
    """
    Queue a message about a tenant, such as "invoice.finalized".

    Call it inside the transaction of what it tells. `payload` is JSON-safe: amounts and quantities as strings.
    """
    return OutboxMessage.objects.create(tenant=tenant, type=type, payload=dict(payload))


def write_all(*, type: str, payloads: Iterable[tuple[Tenant, Mapping[str, Any]]]) -> None:
    """Queue a message of one type about each of several tenants, in one statement."""
    messages = list(payloads)
    rows = (
        {"id": message_id, "tenant_id": tenant.pk, "payload": payload}
        for message_id, (tenant, payload) in zip(uuid7s(len(messages)), messages, strict=True)
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO subscriptions_outboxmessage (public_id, tenant_id, type, payload)
            SELECT id, tenant_id, %s, payload
            FROM jsonb_to_recordset(%s::jsonb) AS m (id uuid, tenant_id bigint, payload jsonb)
            """,
            [type, json_rows(rows)],
        )
