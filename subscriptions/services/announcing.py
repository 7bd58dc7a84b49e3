"""What the audit trail and the world are told when a subscription passes from one state to another."""

from collections.abc import Mapping
from typing import Any

from subscriptions.models import Subscription, TierChange
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


def announce_change(change: TierChange, *, actor: str) -> None:
    """Write who changed a subscription's tier and how, and queue `subscription.changed`. Call it inside the transaction of the change."""
    choices = {name: getattr(change, name) for name in ("fee", "grain", "allowance", "bill")}
    after = {
        "change": str(change.public_id),
        "from": str(change.from_version),
        "to": str(change.to_version),
        "effective_at": change.effective_at,
        **choices,
    }
    audit.record(actor=actor, action="change", instance=change.subscription, after=after)
    payload = {
        "subscription": str(change.subscription.public_id),
        "change": str(change.public_id),
        "from": {"tier": change.from_version.tier.code, "version": change.from_version.number},
        "to": {"tier": change.to_version.tier.code, "version": change.to_version.number},
        "effective_at": change.effective_at.isoformat(),
        "allowances": [{name: one[name] for name in ("meter", "before", "after")} for one in change.allowances],
    }
    outbox.write(tenant=change.subscription.tenant, type="subscription.changed", payload=payload)
