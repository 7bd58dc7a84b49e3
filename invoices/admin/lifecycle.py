"""What staff do with a subscription that runs: cancel, pause, resume, reactivate, move the anchor, undo. Each action calls one service."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from billing_site.staff import Moment, ServiceAdmin, actor_of, to_the_second
from invoices.services import anchoring, pausing, subscribing, trials, undoing
from subscriptions.models import ScheduledChange, Subscription
from subscriptions.selectors.agreement import newest_periods
from subscriptions.selectors.clock import now_for
from subscriptions.selectors.pending import PendingChange, pending_changes


class Reasoned(forms.Form):
    """Asks why, which the audit trail keeps."""

    reason = forms.CharField(max_length=1000, required=False, widget=forms.Textarea(attrs={"rows": 2}))


class Crediting(Reasoned):
    """Asks what becomes of the running fee; the first choice is what the API does by default."""

    credit = forms.ChoiceField(
        choices=[("unused", "the unused part of the fee"), ("none", "nothing")],
        label="Give back",
        help_text="As tenant credit, which later invoices use. Today counts as used where the fee is divided by days.",
    )
    field_order = ("when", "credit", "reason")


class Cancelling(Crediting):
    """Asks how a subscription ends."""

    when = forms.ChoiceField(
        choices=[(subscribing.PERIOD_END, "at the end of the running period"), (subscribing.NOW, "now")]
    )


class Anchoring(Reasoned):
    """Asks from where boundaries are counted."""

    anchor_at = Moment(
        help_text="In UTC. Counts from the next period on, which ends at the first boundary that is counted from here."
    )
    field_order = ("anchor_at", "reason")


class MovingTrial(Reasoned):
    """Asks where a trial ends."""

    ends_at = Moment(required=False, help_text="In UTC. Empty: now, in the tenant's time; what follows begins at once.")
    field_order = ("ends_at", "reason")


class Undoing(Reasoned):
    """Asks what is undone, where several things are to come."""

    change = forms.CharField(
        max_length=100, required=False, help_text="The id of the change, or cancel. Empty where one thing is to come."
    )
    field_order = ("change", "reason")

    def clean_change(self) -> str | None:
        """Return the id, or None where none was named."""
        return self.cleaned_data["change"] or None


class LifecycleAdmin(ServiceAdmin):
    """The actions of a subscription's life."""

    lifecycle_actions = ("cancel", "pause", "resume", "reactivate", "move_trial_end", "move_anchor", "undo")
    lifecycle_conditions = {
        "cancel": lambda row: row.ends_at is None,
        "pause": lambda row: row.paused_at is None and row.ends_at is None,
        "resume": lambda row: row.paused_at is not None and row.ends_at is None,
        "reactivate": lambda row: row.ends_at is not None,
        "move_trial_end": lambda row: is_in_trial(row),
        "move_anchor": lambda row: row.paused_at is None and row.ends_at is None,
        "undo": lambda row: bool(pending_of(row)),
    }

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """End subscriptions, now or with their period."""
        return self._carry_out(
            request, queryset, Cancelling, subscribing.cancel_subscription, "Cancel subscription", "Cancelled"
        )

    @admin.action(description="Pause", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """End the running periods now, until the subscriptions are resumed."""
        return self._carry_out(request, queryset, Crediting, pausing.pause_subscription, "Pause subscription", "Paused")

    @admin.action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Begin new periods now, and bill their first fees."""
        return self._carry_out(
            request, queryset, Reasoned, pausing.resume_subscription, "Resume subscription", "Resumed"
        )

    @admin.action(description="Reactivate", permissions=["operate"])
    def reactivate(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Take up subscriptions that have ended."""
        return self._carry_out(
            request, queryset, Reasoned, pausing.reactivate_subscription, "Reactivate subscription", "Reactivated"
        )

    @admin.action(description="Move the trial's end", permissions=["operate"])
    def move_trial_end(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Extend trials, or end them early."""
        return self._carry_out(request, queryset, MovingTrial, trials.move_trial_end, "Move the trial's end", "Moved")

    @admin.action(description="Move the anchor", permissions=["operate"])
    def move_anchor(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Count boundaries from elsewhere, from the next period on."""
        return self._carry_out(request, queryset, Anchoring, anchoring.move_anchor, "Move the anchor", "Moved")

    @admin.action(description="Undo what is to come", permissions=["operate"])
    def undo(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Take back a cancellation, a change or a move of the anchor that is still to come."""
        detail = " ".join(f"{row.tenant}: {in_words(pending_of(row))}." for row in queryset.select_related("tenant"))
        return self._carry_out(request, queryset, Undoing, undoing.undo, "Undo what is to come", "Undone", detail)

    def _carry_out(
        self,
        request: HttpRequest,
        queryset: QuerySet[Any],
        asked: type[forms.Form],
        transition: Callable[..., object],
        title: str,
        done: str,
        detail: str = "",
    ) -> TemplateResponse | None:
        answers = self.ask(request, queryset, asked, title=title, detail=detail)
        if isinstance(answers, TemplateResponse):
            return answers
        actor = actor_of(request)
        self.run_each(
            request,
            queryset.select_related("tenant"),
            lambda row: transition(subscription_id=row.pk, now=now_for(row.tenant), actor=actor, **answers),
            done=done,
        )
        return None


def is_in_trial(subscription: Subscription) -> bool:
    """Whether there is an end of a trial that could be moved."""
    ends_at = subscription.trial_ends_at
    runs_on = subscription.ends_at is None and subscription.paused_at is None
    return runs_on and ends_at is not None and now_for(subscription.tenant) < ends_at


def pending_of(subscription: Subscription) -> list[PendingChange]:
    """Return what is to come of a subscription, in its tenant's time."""
    waiting = subscription.scheduled_changes.filter(status=ScheduledChange.Status.SCHEDULED)
    return pending_changes(
        subscription,
        scheduled=waiting.select_related("to_version__tier").order_by("wanted_at", "pk"),
        newest=newest_periods([subscription.pk]).get(subscription.pk),
        now=now_for(subscription.tenant),
    )


def in_words(pending: list[PendingChange]) -> str:
    """Return what is to come as a line for a page."""
    return "; ".join(_words(one) for one in pending) or "nothing is to come"


def _words(pending: PendingChange) -> str:
    when = "with its next period" if pending.effective_at is None else _instant(pending.effective_at)
    if pending.scheduled is None:
        return f"it ends at {when} ({pending.id})"
    if pending.scheduled.anchor_at is not None:
        return f"its anchor moves to {_instant(pending.scheduled.anchor_at)} at {when} ({pending.id})"
    return f"it changes to {pending.scheduled.to_version} at {when} ({pending.id})"


def _instant(instant: datetime) -> str:
    return to_the_second(instant)
