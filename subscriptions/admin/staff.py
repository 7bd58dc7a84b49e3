"""Staff accounts and groups: Django's own pages, whose writes leave audit entries."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from billing_site.staff import actor_of
from subscriptions.services import audit


class Audited(admin.ModelAdmin):
    """Leaves an audit entry of every write to Django's own models. Never a value: a password is among them."""

    # Deleted one by one on their own pages, which are one transaction with the entry.
    actions = None

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Record a new row."""
        audit.record(actor=actor_of(request), action="create", instance=obj, after={"name": str(obj)})
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Record which fields have changed."""
        after = {"name": str(obj), "changes": message}
        audit.record(actor=actor_of(request), action="update", instance=obj, after=after)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Record what is deleted."""
        for one in queryset:
            audit.record(actor=actor_of(request), action="delete", instance=one, before={"name": str(one)})
        return super().log_deletions(request, queryset)


# The theme's class comes last: it empties what Django's own say of the page on which one is added.
class AuditedUserAdmin(Audited, UserAdmin, ModelAdmin):
    """Staff accounts."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def user_change_password(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Set a password and record that it was set, in one transaction."""
        with transaction.atomic():
            return super().user_change_password(request, *args, **kwargs)


class AuditedGroupAdmin(Audited, GroupAdmin, ModelAdmin):
    """Groups of staff and what they may do."""


for model, page in ((User, AuditedUserAdmin), (Group, AuditedGroupAdmin)):
    admin.site.unregister(model)
    admin.site.register(model, page)
