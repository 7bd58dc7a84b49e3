"""Takes back what is still to come of a subscription: its end, a change of tier, a move of its anchor."""

from datetime import datetime

from django.db import transaction

from billing_site.database import run_with_retries
from billing_site.http.problems import DomainError
from invoices.services.changing import bring_up
from invoices.services.invoicing import lock_subscription
from subscriptions.models import ScheduledChange, Subscription
from subscriptions.selectors.pending import PendingChange, pending_changes
from subscriptions.services import agreement, switching
from subscriptions.services.agreement import NothingToUndo
from subscriptions.services.announcing import announce


class SeveralToUndo(DomainError):
    """More than one thing is to come, and none was named."""

    code = "several_to_undo"
    title = "Several things are still to come"


def undo(
    *, subscription_id: int, change: str | None = None, now: datetime, actor: str, reason: str = ""
) -> Subscription:
    """
    Take back the one thing that is still to come, or the one that is named as its pending changes name it (an id, or "cancel").

    What was due by now is carried out first, and is not undone. Nothing was given back or charged for what is undone. Raises NothingToUndo
    and SeveralToUndo (409).
    """
    return run_with_retries(lambda: _undo(subscription_id, change, now, actor, reason))


@transaction.atomic
def _undo(subscription_id: int, change: str | None, now: datetime, actor: str, reason: str) -> Subscription:
    subscription = lock_subscription(subscription_id)
    bring_up(subscription, now=now)
    one = _named(_pending(subscription, now), change)
    if one.scheduled is None:
        agreement.undo_end(subscription=subscription, now=now)
    else:
        switching.undo(change=one.scheduled)
    announce(
        subscription,
        action="undo",
        type="subscription.change_undone",
        actor=actor,
        before={"effective_at": one.effective_at},
        after={"change": one.id, "kind": one.kind},
        reason=reason,
    )
    return subscription


def _pending(subscription: Subscription, now: datetime) -> list[PendingChange]:
    waiting = subscription.scheduled_changes.select_for_update(no_key=True, of=("self",))
    return pending_changes(
        subscription,
        scheduled=waiting.filter(status=ScheduledChange.Status.SCHEDULED).order_by("wanted_at", "pk"),
        newest=subscription.periods.order_by("-sequence").first(),
        now=now,
    )


def _named(pending: list[PendingChange], name: str | None) -> PendingChange:
    if not pending:
        raise NothingToUndo("Nothing of the subscription is still to come.")
    found = pending if name is None else [one for one in pending if one.id == name]
    if not found:
        raise NothingToUndo(f"Nothing that is still to come is named {name}.")
    if len(found) > 1:
        names = ", ".join(f"{one.kind} {one.id}" for one in found)
        raise SeveralToUndo(f"Name which is to be undone: {names}.")
    return found[0]
