"""
What the admin pages of every app share: pages that only show, forms that write through a service, actions that ask first.

Owns no model and no rule: what is allowed is said by the services, whose refusals are shown here as sentences.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.functional import cached_property

from billing_site.http.problems import DomainError

# Counting more would read the table for a number that nobody looks at; older rows are found by searching.
ROWS_COUNTED_MAX = 10_000

Row = TypeVar("Row", bound=Model)


class LargeTablePaginator(Paginator):
    """Counts, and pages through, at most ROWS_COUNTED_MAX rows."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, cut at the limit."""
        rows: Any = self.object_list
        return rows[:ROWS_COUNTED_MAX].count()


class Moment(forms.DateTimeField):
    """A point in time in UTC, asked with the browser's own picker."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S")


class StaffAdmin(admin.ModelAdmin):
    """
    The base of all pages: nothing is deleted, large tables stay fast, and a row's page has its actions as buttons.

    An action names `permissions=["operate"]` where it changes a row that no form changes.
    """

    show_full_result_count = False
    list_per_page = 50
    paginator = LargeTablePaginator
    change_form_template = "admin/staff_change_form.html"
    # Whether the page of one row offers the list's actions, too.
    row_buttons: ClassVar[bool] = True

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: what has happened is kept."""
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Whether the user may run the actions: Django's permission to change, also where no form changes a row."""
        return request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add the buttons of a row's own page."""
        has_buttons = self.row_buttons and context.get("original") is not None
        context["row_actions"] = self.get_action_choices(request, []) if has_buttons else []
        return super().render_change_form(request, context, *args, **kwargs)

    def ask(
        self,
        request: HttpRequest,
        rows: QuerySet[Any],
        form_class: type[forms.Form],
        *,
        title: str,
        initial: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | TemplateResponse:
        """Return what the user has answered, or the page that asks; an action hands the page back as its own answer."""
        confirmed = "confirmed" in request.POST
        form = form_class(request.POST) if confirmed else form_class(initial=dict(initial or {}))
        if confirmed and form.is_valid():
            return form.cleaned_data
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "form": form,
            "rows": rows,
            "opts": self.opts,
            "action": request.POST["action"],
            "checkbox": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/ask.html", context)

    def run_each(self, request: HttpRequest, rows: QuerySet[Row], run: Callable[[Row], object], *, done: str) -> None:
        """Run a service on each row; report how many succeeded, and each refusal with its row. One refusal stops no other."""
        succeeded = 0
        for row in rows:
            try:
                run(row)
            except DomainError as refusal:
                self.message_user(request, f"{row}: {explain(refusal)}", messages.ERROR)
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
