"""
What the admin pages of every app share: pages that only show, forms that write through a service, actions that ask first.

Owns no model and no rule: what is allowed is said by the services, whose refusals are shown here as sentences. How numbers, tables
and documents look on a page stands at the end.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.views import ChangeList

from billing_site.fields import StaffForm
from billing_site.http.problems import DomainError
from billing_site.keyset import KeysetChangeList, LargeTablePaginator

# Quantities and prices have at most 12 decimals and are shown whole. What has more is a share of a pool, perhaps endless: its first
# digits say enough, and pointing at them says the rest.
DECIMALS_WHOLE_MAX = 12
DECIMALS_CUT = 6
# Names the row in the form of a button on the row's own page, so that the action's answer leads back to it.
ROW_PAGE = "row_page"
# Names a row in the address of the audit entries that are shown as its history.
HISTORY_OF = "history_of"

Row = TypeVar("Row", bound=Model)


class Moment(forms.DateTimeField):
    """A point in time in UTC, asked with the browser's own picker."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S")


def either(title: str, field: str, *, empty: str, filled: str) -> type[admin.SimpleListFilter]:
    """Return a filter by whether a field is empty, which says in words what that means."""

    class Either(admin.SimpleListFilter):
        parameter_name = field

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return [("empty", empty), ("filled", filled)]

        def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
            if self.value() not in {"empty", "filled"}:
                return queryset
            return queryset.filter(**{f"{field}__isnull": self.value() == "empty"})

    Either.title = title
    return Either


PARKED = either("work", "parked_at", empty="in order", filled="parked: waits for a person")


class StaffAdmin(ModelAdmin):
    """
    The base of all pages: nothing is deleted, large tables stay fast, and a row's page has its actions as buttons.

    An action names `permissions=["operate"]` where it changes a row that no form changes.
    """

    show_full_result_count = False
    # The newest first, by which the lists page. `sortable_by = ()` where a table grows with every event: sorting by another column would read all of it.
    ordering = ["-pk"]
    list_per_page = 50
    paginator = LargeTablePaginator
    change_form_template = "admin/staff_change_form.html"
    list_before_template = "admin/search_help.html"
    # Whether the page of one row offers the list's actions, too.
    row_buttons: ClassVar[bool] = True
    # By action: for which rows its button is there. One that is not named is there for all.
    row_conditions: ClassVar[Mapping[str, Callable[[Any], bool]]] = {}
    # By field: what a person who fills it in has to know.
    help_texts: ClassVar[Mapping[str, str]] = {}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Page by the rows' keys."""
        return KeysetChangeList

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: what has happened is kept."""
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the user may run the actions: Django's permission to change, also where no form changes a row."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Hand the help texts to the form."""
        return super().get_form(request, *args, help_texts=dict(self.help_texts), **kwargs)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add the buttons of a row's own page."""
        row = context.get("original")
        choices = self.get_action_choices(request) if self.row_buttons and row is not None else []
        context["row_actions"] = [
            (name, description)
            for name, description in choices
            if name and self.row_conditions.get(name, lambda row: True)(row)
        ]
        if row is not None:
            context["subtitle"] = self.name_of(row)
        given = context["adminform"]
        context["adminform"] = StaffForm(given.form, given.fieldsets, {}, given.readonly_fields, model_admin=self)
        return super().render_change_form(request, context, *args, **kwargs)

    def name_of(self, row: Any) -> str:
        """Return how people call a row."""
        return str(row)

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Lead back to the row from whose page the action came."""
        response = super().response_action(request, queryset, *args, **kwargs)
        if isinstance(response, HttpResponseRedirect) and (row := request.POST.get(ROW_PAGE)):
            return HttpResponseRedirect(change_path(self.opts.app_label, self.opts.model_name, row))
        return response

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Show the row's audit entries: they know of the API and of the clock, too."""
        address = reverse("admin:subscriptions_auditentry_changelist")
        return HttpResponseRedirect(f"{address}?{urlencode({HISTORY_OF: f'{self.opts.label_lower}:{object_id}'})}")

    def ask(
        self,
        request: HttpRequest,
        rows: QuerySet[Any],
        form_class: type[forms.Form],
        *,
        title: str,
        initial: Mapping[str, Any] | None = None,
        detail: str = "",
    ) -> dict[str, Any] | TemplateResponse:
        """
        Return what the user has answered, or the page that asks; an action hands the page back as its own answer.

        `detail` is shown above the questions: what the answer is about.
        """
        confirmed = "confirmed" in request.POST
        form = form_class(request.POST) if confirmed else form_class(initial=dict(initial or {}))
        if confirmed and form.is_valid():
            return form.cleaned_data
        return self.ask_again(request, rows, form, title=title, detail=detail)

    def ask_again(
        self, request: HttpRequest, rows: QuerySet[Any], form: forms.Form, *, title: str, detail: str = ""
    ) -> TemplateResponse:
        """Return the page that asks, with a form of one's own: what has been answered, and in `detail` what that would do."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "form": form,
            "rows": [(row.pk, self.name_of(row)) for row in rows],
            "detail": detail,
            "opts": self.opts,
            "action": request.POST["action"],
            "checkbox": ACTION_CHECKBOX_NAME,
            "row_page": request.POST.get(ROW_PAGE, ""),
        }
        return TemplateResponse(request, "admin/ask.html", context)

    def run_each(self, request: HttpRequest, rows: QuerySet[Row], run: Callable[[Row], object], *, done: str) -> None:
        """Run a service on each row; report how many succeeded, and each refusal with its row. One refusal stops no other."""
        succeeded = 0
        for row in rows:
            try:
                run(row)
            except DomainError as refusal:
                # Never the row first: a message's first letter is shown as a capital, and ids have none.
                self.message_user(request, f"Not done for {self.name_of(row)}: {explain(refusal)}", messages.ERROR)
            else:
                succeeded += 1
        if succeeded:
            self.message_user(request, f"{done}: {succeeded}", messages.SUCCESS)


class ReadOnlyAdmin(StaffAdmin):
    """Pages that only show; what they allow beyond that are actions."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False


class ServiceForm(forms.ModelForm):
    """A form whose values a service writes. The service's refusal, when there was one, is shown at the fields it names."""

    refusal: ClassVar[DomainError | None] = None
    # Where faults are shown whose path is no field of the form; None: above the form.
    fault_field: ClassVar[str | None] = None

    def validate_constraints(self) -> None:
        """Leave the constraints to the service and the database, which see more than the form's fields."""

    def clean(self) -> dict[str, Any] | None:
        """Show why the service refused."""
        cleaned = super().clean()
        if self.refusal is not None:
            for error in self.refusal.errors:
                if error.path in self.fields:
                    self.add_error(error.path, error.message)
                else:
                    self.add_error(self.fault_field, f"{error.path}: {error.message}" if error.path else error.message)
            if not self.refusal.errors:
                self.add_error(None, self.refusal.detail)
        return cleaned


class ServiceAdmin(StaffAdmin):
    """Pages whose form is written by a service: subclasses say in `write` by which."""

    form = ServiceForm

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Call the service with the form's values, and return the row that it wrote."""
        raise NotImplementedError

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the form again when the service refuses; the first pass has been rolled back, the second cannot write."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except DomainError as refusal:
            request.refusal = refusal  # type: ignore[attr-defined]
            return super().changeform_view(request, *args, **kwargs)

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Hand the refusal to the form; the class is made anew for each request."""
        form: Any = super().get_form(request, *args, **kwargs)
        form.refusal = getattr(request, "refusal", None)
        return form

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        """Write through the service."""
        return self.write(request, form, change=change)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Write nothing: the service has."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Write nothing: the service has."""


def actor_of(request: HttpRequest) -> str:
    """Return the user as audit entries name one: "staff:<user name>"."""
    return f"staff:{request.user.get_username()}"


def explain(refusal: DomainError) -> str:
    """Return a refusal as text for a person: its sentence, and each fault with its place."""
    faults = [f"{error.path}: {error.message}" if error.path else error.message for error in refusal.errors]
    return " ".join([refusal.detail, *faults])


def change_path(app_label: str, model_name: str | None, key: Any) -> str:
    """Return the address of a row's page."""
    return reverse(f"admin:{app_label}_{model_name}_change", args=[key])


def link(row: Model, text: str) -> SafeString:
    """Return a link to a row's page."""
    return format_html('<a href="{}">{}</a>', change_path(row._meta.app_label, row._meta.model_name, row.pk), text)


def shown(title: str, read: Callable[[Any], Any], *, order: str | None = None) -> Any:
    """Return a column of a list, or a field of a row's page, that is read from the row."""
    return admin.display(description=title, ordering=order, empty_value="–")(read)


def grouped(text: str) -> str:
    """
    Return a plain number (no exponent, no separators) with its thousands apart, and endless decimals cut.

    >>> grouped("-1234567.5"), grouped("0.0000012"), grouped("902976.013443871927640656")
    ('-1,234,567.5', '0.0000012', '902,976.013443…')
    """
    whole, _, decimals = text.partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    if len(decimals) > DECIMALS_WHOLE_MAX:
        decimals = f"{decimals[:DECIMALS_CUT]}…"
    return f"{sign}{int(digits):,}" + (f".{decimals}" if decimals else "")


def number(text: str, unit: str = "") -> SafeString:
    """Return a plain number as a cell that lines up with those above and below it."""
    return format_html('<span class="number" title="{}">{}</span>', text, f"{grouped(text)} {unit}".rstrip())


def unbroken(text: str) -> SafeString:
    """Return a text that is not broken into lines."""
    return format_html('<span class="unbroken">{}</span>', text)


def to_the_second(instant: datetime) -> str:
    """Return an instant for pages on which its order matters."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> SafeString | str:
    """Return a table for a row's page; a dash when there is no row."""
    cells = [(format_html_join("", "<td>{}</td>", ((cell,) for cell in row)),) for row in rows]
    if not cells:
        return "–"
    head = format_html_join("", "<th>{}</th>", ((heading,) for heading in headings))
    body = format_html_join("", "<tr>{}</tr>", cells)
    return format_html('<table class="figures"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>', head, body)


def readable(value: Any) -> str:
    """Return a document as words, each member by its name: "model sonnet, direction output"."""
    if isinstance(value, Mapping):
        filled = ((name, member) for name, member in value.items() if member not in (None, "", [], {}))
        members = ((str(name).replace("_", " "), member) for name, member in filled)
        return ", ".join(f"{name} {_part(member)}" for name, member in members) or "–"
    if isinstance(value, list | tuple):
        return "; ".join(readable(one) for one in value) or "–"
    return "–" if value is None or value == "" else str(value)


def _part(value: Any) -> str:
    return f"({readable(value)})" if isinstance(value, Mapping | list | tuple) else readable(value)


_COMPONENT = ("kind", "band", "quantity", "unit_amount", "flat_amount", "total")


def components_table(components: Any) -> SafeString | str:
    """Return the components of an amount, as the rater or the biller wrote them: a list of documents, or one."""
    rows = [components] if isinstance(components, Mapping) else components or []
    extra = any(set(row) - set(_COMPONENT) for row in rows)
    headings = [name.replace("_", " ") for name in _COMPONENT] + (["of it"] if extra else [])
    return table(headings, (_component(row, extra=extra) for row in rows))


def _component(row: Mapping[str, Any], *, extra: bool) -> list[Any]:
    figures = ["–" if row.get(name) is None else number(str(row[name])) for name in _COMPONENT[2:]]
    rest = {name: value for name, value in row.items() if name not in _COMPONENT}
    return [
        readable(row.get("kind")).replace("_", " "),
        readable(row.get("band")),
        *figures,
        *([readable(rest)] if extra else []),
    ]
