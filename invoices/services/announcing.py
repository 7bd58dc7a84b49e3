"""What the audit trail and the world are told when a subscription passes from one state to another."""

from collections.abc import Mapping
from typing import Any

from subscriptions.models import Subscription
from subscriptions.services import audit, outbox


def announce(
    subscription: Subscription,
    *,
    action: str,
    type: str,
    actor: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    reason: str = "",
) -> None:
    """
    Write who did it, and queue the message `type` with what is so afterwards.

    Call it inside the transaction of the transition. `after` holds texts, booleans and instants; who did it and why stays inside.
    """
    audit.record(actor=actor, action=action, instance=subscription, before=before, after=after, reason=reason)
    told = {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in after.items()}
    payload = {
        "subscription": str(subscription.public_id),
        "tier": subscription.version.tier.code,
        "version": subscription.version.number,
        **told,
    }
    outbox.write(tenant=subscription.tenant, type=type, payload=payload)
