"""Staff pages of changes of tier: what one did, what is to come, and the form that shows what a change would do before it is done."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from billing_site.http.problems import DomainError
from billing_site.staff import (
    PARKED,
    Moment,
    ReadOnlyAdmin,
    StaffAdmin,
    actor_of,
    explain,
    link,
    number,
    readable,
    shown,
    table,
    unbroken,
)
from invoices.admin.subscriptions import is_parked, release_parked
from invoices.selectors.statements import Statement, StatementLine, statement_of
from invoices.services import changing, undoing
from subscriptions.core.changes import ChangeAllowance, ChangeBill, ChangeFee
from subscriptions.core.proration import Grain
from subscriptions.models import ScheduledChange, Subscription, TierChange, TierVersion
from subscriptions.selectors.catalog import money_text
from subscriptions.selectors.clock import now_for

AT_DATE = "date"
_AS_THE_VERSION = ("", "as the version says")
_CHOICES = ("fee", "grain", "allowance", "bill")


class Changing(forms.Form):
    """Asks which version a subscription changes to, when and how; answered twice, the second time with what it will do in sight."""

    version = forms.ModelChoiceField(
        TierVersion.objects.filter(published_at__isnull=False).select_related("tier").order_by("tier__code", "-number")
    )
    when = forms.ChoiceField(
        choices=[
            (changing.NOW, "now"),
            (changing.PERIOD_END, "at the end of the running period"),
            (AT_DATE, "at a date"),
        ]
    )
    date = Moment(required=False, label="Date (UTC)", help_text="Only for a change at a date.")
    fee = forms.ChoiceField(
        required=False,
        label="Fees",
        choices=[
            _AS_THE_VERSION,
            (ChangeFee.PRORATE.value, "give back the unused part of the old, charge the remaining part of the new"),
            (ChangeFee.FULL.value, "charge the new in full, give nothing back"),
            (ChangeFee.NONE.value, "neither"),
        ],
    )
    grain = forms.ChoiceField(
        required=False,
        label="Time",
        choices=[_AS_THE_VERSION, (Grain.DAY.value, "by days"), (Grain.SECOND.value, "exactly, by seconds")],
    )
    allowance = forms.ChoiceField(
        required=False,
        label="Allowances",
        choices=[
            _AS_THE_VERSION,
            (ChangeAllowance.PRORATED.value, "in proportion to time"),
            (ChangeAllowance.FULL_NEW.value, "the new in full, instead of the old"),
            (ChangeAllowance.RESET.value, "end the period now and begin a new one"),
        ],
    )
    bill = forms.ChoiceField(
        required=False,
        label="Billing",
        choices=[
            _AS_THE_VERSION,
            (ChangeBill.NEXT.value, "on the next invoice"),
            (ChangeBill.NOW.value, "at once, on an invoice of its own"),
        ],
    )
    # The answers whose consequences were in sight.
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        """Ask for the date where one is needed."""
        given = super().clean() or {}
        if given.get("when") == AT_DATE and not given.get("date"):
            self.add_error("date", "Say at which date.")
        return given


@admin.action(description="Change tier", permissions=["operate"])
def change_tier(page: StaffAdmin, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
    """Change one subscription's tier: asked first, then shown what it will do, then done."""
    if queryset.count() != 1:
        page.message_user(request, "Change one subscription at a time.", messages.ERROR)
        return None
    subscription = queryset.select_related("tenant").get()
    title = "See what it will do"
    answers = page.ask(request, queryset, Changing, title=title)
    if isinstance(answers, TemplateResponse):
        return answers
    seen = answers.pop("seen")
    in_sight = repr(sorted((name, str(value)) for name, value in answers.items()))
    asked = changing.Asked(
        to_version=answers["version"],
        when=answers["date"] if answers["when"] == AT_DATE else answers["when"],
        choices={name: answers[name] for name in _CHOICES if answers[name]},
    )
    terms: dict[str, Any] = {
        "subscription_id": subscription.pk,
        "asked": asked,
        "now": now_for(subscription.tenant),
        "actor": actor_of(request),
    }
    try:
        if seen != in_sight:
            statement = changing.preview_change(**terms, read=statement_of)
            again = Changing(initial=answers | {"seen": in_sight})
            return page.ask_again(request, queryset, again, title="Change tier", detail=_told(statement))
        changing.change_tier(**terms, read=statement_of)
    except DomainError as refusal:
        page.message_user(request, f"Not done: {explain(refusal)}", messages.ERROR)
        return None
    page.message_user(
        request, "The change is made, or scheduled; its statement stands under Changes.", messages.SUCCESS
    )
    return None


_subscriptions: Any = admin.site.get_model_admin(Subscription)
_subscriptions.actions = [change_tier, *_subscriptions.actions]
_subscriptions.row_conditions = {
    **_subscriptions.row_conditions,
    "change_tier": lambda subscription: subscription.paused_at is None,
}


@admin.register(TierChange)
class TierChangeAdmin(ReadOnlyAdmin):
    """Statements: what each change gave back and charged, what became of allowances, and where it is billed."""

    list_display = [
        shown("tenant", lambda change: unbroken(change.tenant.code), order="tenant__code"),
        "from_version",
        "to_version",
        "effective_at",
        "allowance",
        "bill",
    ]
    list_select_related = ["tenant", "from_version__tier", "to_version__tier"]
    list_filter = ["to_version__tier", "effective_at"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "public_id__exact"]
    search_help_text = "A tenant's or a change's id, written out in full."
    _subscription = shown("subscription", lambda change: link(change.subscription, str(change.subscription.public_id)))
    _words = shown("in words", lambda change: _sentences(statement_of(change)))
    _fees = shown("fees", lambda change: _fees_table(statement_of(change)))
    _allowances = shown("allowances", lambda change: _allowances_table(statement_of(change)))
    fieldsets = [
        (None, {"fields": [_words]}),
        ("Figures", {"fields": [_fees, _allowances]}),
        ("Versions", {"fields": ["tenant", _subscription, "from_version", "to_version", "effective_at", "public_id"]}),
        ("Choices", {"fields": list(_CHOICES)}),
    ]
    readonly_fields = [_words, _fees, _allowances, _subscription, "public_id"]

    def name_of(self, row: TierChange) -> str:
        """Name the tenant, and from what to what it changed."""
        return f"{row.tenant}: {row}"


@admin.register(ScheduledChange)
class ScheduledChangeAdmin(ReadOnlyAdmin):
    """Changes that are to come, and what became of those that were."""

    list_display = [
        shown("tenant", lambda change: unbroken(change.tenant.code), order="tenant__code"),
        "to_version",
        shown("when", lambda change: _when(change), order="wanted_at"),
        "status",
        shown("publication", lambda change: change.publication or "–"),
        "parked_at",
    ]
    list_select_related = ["tenant", "to_version__tier", "publication__version__tier", "subscription"]
    list_filter = ["status", PARKED, "to_version__tier"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "public_id__exact"]
    search_help_text = "A tenant's or a change's id, written out in full."
    actions = ["undo", release_parked]
    row_conditions = {
        "undo": lambda change: change.status == ScheduledChange.Status.SCHEDULED,
        "release_parked": is_parked,
    }
    _subscription = shown("subscription", lambda change: link(change.subscription, str(change.subscription.public_id)))
    _when_shown = shown("when", lambda change: _when(change))
    fields = ["tenant", _subscription, "to_version", _when_shown, "status", *_CHOICES, "publication", "anchor_at",
              "due_at", "parked_at", "parked_reason", "public_id"]  # fmt: skip
    readonly_fields = [_subscription, _when_shown, "public_id"]

    def name_of(self, row: ScheduledChange) -> str:
        """Name the tenant and what it is to change to."""
        return f"{row.tenant} to {row.to_version}"

    @admin.action(description="Undo", permissions=["operate"])
    def undo(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Take changes back that have not come into force."""
        actor = actor_of(request)
        self.run_each(
            request,
            queryset.select_related("tenant"),
            lambda row: undoing.undo(
                subscription_id=row.subscription_id, change=str(row.public_id), now=now_for(row.tenant), actor=actor
            ),
            done="Undone",
        )


def _when(change: ScheduledChange) -> str:
    if not change.at_boundary:
        return f"{change.wanted_at:%Y-%m-%d %H:%M} UTC"
    return f"with the first period from {change.wanted_at:%Y-%m-%d %H:%M} UTC on"


def _told(statement: Statement) -> SafeString:
    return _sentences(statement) + _fees_table(statement)


def _sentences(statement: Statement) -> SafeString:
    return format_html_join("", "<p>{}</p>", ((sentence,) for sentence in statement.words))


def _fees_table(statement: Statement) -> Any:
    rows = [_fee_row(line, statement.currency) for line in statement.lines]
    net = number(money_text(statement.net, statement.currency), statement.currency)
    return table(("line", "part of the fee", "amount", "invoice"), [*rows, ["Together", "", net, ""]] if rows else [])


def _fee_row(line: StatementLine, currency: str) -> list[Any]:
    billed, item = line.billed_by, line.item
    part = f"{item.share_numerator:,} of {item.share_divisor:,} {item.share_grain}s" if item.share_grain else "whole"
    amount = number(money_text(item.amount, currency), currency)
    invoice = link(billed.invoice, f"{billed.invoice}, line {billed.number}") if billed else "the next one"
    return [line.values.description, part, amount, invoice]


def _allowances_table(statement: Statement) -> Any:
    rows = [
        [one["meter"], readable(one["dimensions"]), *(number(one[name]) for name in ("before", "after", "used"))]
        for one in statement.allowances
    ]
    return table(("meter", "dimensions", "before", "after", "had been used"), rows)
