"""The staff pages of test clocks. They live here, and not with their rows, because an advance runs every app's due work."""

from datetime import MAXYEAR, datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html

from billing_site.http.problems import DomainError
from billing_site.staff import (
    Moment,
    ServiceAdmin,
    ServiceForm,
    actor_of,
    change_path,
    explain,
    table,
    to_the_second,
    unbroken,
)
from invoices.admin.timeline import User, linked, summary, tell
from invoices.selectors.timeline import entries, residents
from invoices.services import advancing
from invoices.services.due import UpcomingItem, upcoming
from subscriptions.core.periods import Anchor, Cadence, Interval, nth_boundary
from subscriptions.models import Subscription, Tenant, TestClock
from subscriptions.services import clocks

TENANTS_SHOWN = 50
UPCOMING_SHOWN = 50
ENTRIES_PER_PAGE = 50
MONTHLY = Cadence(Interval.MONTH)


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
    """Clocks that move when told to, each with the timeline of what was run and what falls due next."""

    form = ClockForm
    list_display = ["code", "now", "status", "advancing_to"]
    search_fields = ["code"]
    actions = ["advance"]
    change_form_template = "admin/test_clock.html"
    # A clock's own page has a form for it.
    row_buttons = False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Ask for the time of a new clock; show where an old one is going."""
        return ["code", "now"] if obj is None else ["code", "now", "status", "advancing_to"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a clock is advanced, which runs what falls due on the way."""
        return False

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Make the clock."""
        return clocks.create_clock(**form.cleaned_data, actor=actor_of(request))

    def get_urls(self) -> list[Any]:
        """Add what the form on a clock's page is sent to."""
        address = path(
            "<int:clock_id>/advance/",
            self.admin_site.admin_view(self.advance_one),
            name="subscriptions_testclock_advance",
        )
        return [address, *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add tenants, timeline and form to the page of a clock that exists."""
        clock = context.get("original")
        if clock is not None:
            context |= self._about(request, clock)
        return super().render_change_form(request, context, *args, **kwargs)

    def _about(self, request: HttpRequest, clock: TestClock) -> dict[str, Any]:
        given = request.GET.get("before", "")
        before = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
        found = entries(clock, before=before, limit=ENTRIES_PER_PAGE + 1)
        shown = found[:ENTRIES_PER_PAGE]
        ahead = upcoming(clock=clock, limit=UPCOMING_SHOWN + 1)
        past, future = tell(shown, ahead[:UPCOMING_SHOWN], user=request.user)
        tenants = residents(clock, limit=TENANTS_SHOWN + 1)
        return {
            "tenants": _tenants_table(tenants[:TENANTS_SHOWN], now=clock.now, user=request.user),
            "has_more_tenants": len(tenants) > TENANTS_SHOWN,
            "past": past,
            "is_older": before is not None,
            "older_before": shown[-1].pk if len(found) > len(shown) else None,
            "future": future,
            "has_more_future": len(ahead) > UPCOMING_SHOWN,
            "goal": Goal(initial={"to": clock.now}) if self.has_operate_permission(request) else None,
            "goals": _goals(clock, ahead),
            "advance_address": reverse("admin:subscriptions_testclock_advance", args=[clock.pk]),
        }

    def advance_one(self, request: HttpRequest, clock_id: int) -> HttpResponse:
        """Advance a clock to the time that its page has sent, and lead back to the page."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        clock = self.get_object(request, str(clock_id))
        if clock is None:
            raise Http404
        form = Goal(request.POST)
        if request.method == "POST" and form.is_valid():
            self._advance(request, clock, form.cleaned_data["to"])
        elif request.method == "POST":
            self.message_user(request, "Not advanced: say to which time, such as 2026-07-01 00:00:00.", messages.ERROR)
        return HttpResponseRedirect(change_path(self.opts.app_label, self.opts.model_name, clock.pk))

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
        self._advance(request, clock, answers["to"])
        return None

    def _advance(self, request: HttpRequest, clock: TestClock, to: datetime) -> None:
        try:
            journal = advancing.advance(clock_id=clock.pk, to=to, actor=actor_of(request))
        except DomainError as refusal:
            self.message_user(request, explain(refusal), messages.ERROR)
            return
        self.message_user(
            request,
            format_html("The clock {} stands at {}. Run: {}.", clock, to_the_second(to), summary(journal)),
        )


def _goals(clock: TestClock, ahead: list[UpcomingItem]) -> list[tuple[str, str, datetime]]:
    """
    Return the times to which one click leads: what the button says, the time as a form sends it, and the time.

    A clock that is on its way, or was cut off there, goes on to its goal and nowhere else.
    """
    if clock.advancing_to is not None:
        goals = [("Go on", clock.advancing_to)]
    else:
        goals = [("To what is due next", max(item.at, clock.now)) for item in ahead[:1]]
        if clock.now.year < MAXYEAR:
            goals += [
                ("+ 1 day", clock.now + timedelta(days=1)),
                ("+ 1 month", nth_boundary(Anchor.at(clock.now, "UTC"), MONTHLY, 1)),
            ]
    return [(label, goal.isoformat(), goal) for label, goal in goals]


def _tenants_table(tenants: list[tuple[Tenant, Subscription | None]], *, now: datetime, user: User) -> Any:
    return table(
        ("tenant", "name", "subscription", "version", "state"),
        (
            (
                unbroken(linked(tenant, tenant.code, user=user)),
                tenant.name,
                "–" if subscription is None else linked(subscription, subscription.version.tier.name, user=user),
                "–"
                if subscription is None
                else unbroken(linked(subscription.version, str(subscription.version), user=user)),
                _state(tenant, subscription, now),
            )
            for tenant, subscription in tenants
        ),
    )


def _state(tenant: Tenant, subscription: Subscription | None, now: datetime) -> str:
    if tenant.parked_at is not None:
        return "parked: waits for a person"
    if subscription is None:
        return "not subscribed"
    if now < subscription.starts_at:
        return "starts later"
    if subscription.ends_at is None:
        return "running"
    return "ends soon" if now < subscription.ends_at else "ended"
