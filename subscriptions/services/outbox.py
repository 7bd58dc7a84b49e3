"""What the world is to be told, written in the transaction in which it happened. Sending it is not this module's work."""

from collections.abc import Mapping
from typing import Any

from subscriptions.models import OutboxMessage, Tenant


def write(*, tenant: Tenant, type: str, payload: Mapping[str, Any]) -> OutboxMessage:
    """
    Queue a message about a tenant, such as "invoice.finalized".

    Call it inside the transaction of what it tells. `payload` is JSON-safe: amounts and quantities as strings.
    """
    return OutboxMessage.objects.create(tenant=tenant, type=type, payload=dict(payload))
