"""The staff page of test clocks. It lives here, and not with their rows, because an advance runs every app's due work."""

from collections import Counter
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html

from billing_site.http.problems import DomainError
from billing_site.staff import Moment, ServiceAdmin, ServiceForm, actor_of, explain, to_the_second
from invoices.services import advancing
from subscriptions.models import TestClock
from subscriptions.services import clocks


class Goal(forms.Form):
    """Asks to which time a clock goes."""

    to = Moment(label="Advance to (UTC)")


class ClockForm(ServiceForm):
    """A new clock and its time."""

    now = Moment(
        label="Its time (UTC)",
        help_text="It moves forward only, when told to. Tenants are put on it when they are made.",
    )


@admin.register(TestClock)
class TestClockAdmin(ServiceAdmin):
    """Clocks that move when told to."""

    form = ClockForm
    list_display = ["code", "now", "status", "advancing_to"]
    search_fields = ["code"]
    actions = ["advance"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Ask for the time of a new clock; show where an old one is going."""
        return ["code", "now"] if obj is None else ["code", "now", "status", "advancing_to"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a clock is advanced, which runs what falls due on the way."""
        return False

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Make the clock."""
        return clocks.create_clock(**form.cleaned_data, actor=actor_of(request))

    @admin.action(description="Advance", permissions=["operate"])
    def advance(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Advance one clock, and report what was run on the way."""
        if queryset.count() != 1:
            self.message_user(request, "Advance one clock at a time.", messages.ERROR)
            return None
        clock = queryset.get()
        answers = self.ask(request, queryset, Goal, title="Advance", initial={"to": clock.now})
        if isinstance(answers, TemplateResponse):
            return answers
        try:
            journal = advancing.advance(clock_id=clock.pk, to=answers["to"], actor=actor_of(request))
        except DomainError as refusal:
            self.message_user(request, explain(refusal), messages.ERROR)
            return None
        ran = ", ".join(f"{count} × {what}" for what, count in Counter(entry.what for entry in journal).items())
        self.message_user(
            request,
            format_html("The clock {} stands at {}. Run: {}.", clock, to_the_second(answers["to"]), ran or "nothing"),
        )
        return None
