"""Staff pages of what was written for everybody: the audit, and messages to the world. Read-only."""

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from billing_site.staff import HISTORY_OF, ReadOnlyAdmin, readable, shown, table, to_the_second
from subscriptions.models import AuditEntry, OutboxMessage
from subscriptions.services import audit


class HistoryOf(admin.SimpleListFilter):
    """The entries of one row, named by its model and key."""

    title = "row"
    parameter_name = HISTORY_OF

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the row whose history is shown, and nothing else: rows are chosen on their own pages."""
        row = _row(request.GET.get(HISTORY_OF, ""))
        return [] if row is None else [(self.value() or "", str(row))]

    def has_output(self) -> bool:
        """Filter also where there is nothing to choose."""
        return self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the row's entries."""
        if self.value() is None:
            return queryset
        row = _row(self.value() or "")
        if row is None:
            return queryset.none()
        return queryset.filter(object_type=row._meta.label_lower, object_id=audit.object_id(row)[:200])


def _row(name: str) -> Model | None:
    label, _, key = name.partition(":")
    try:
        return apps.get_model(label)._default_manager.filter(pk=key).first()
    except (LookupError, ValueError, ValidationError):
        return None


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who changed what."""

    _recorded_at = shown("recorded at", lambda entry: to_the_second(entry.recorded_at))
    list_display = [_recorded_at, "actor", "action", "object_type", "object_id", "reason"]
    list_filter = [HistoryOf]
    fields = [_recorded_at, "actor", "action", "object_type", "object_id", "changes", "reason"]
    readonly_fields = [_recorded_at, "changes"]
    sortable_by = ()
    ordering = ["-pk"]
    search_fields = ["object_id__exact", "actor__exact", "action__exact"]
    search_help_text = "An object's id, an actor (staff:ann) or an action (publish), written out in full."

    @admin.display(description="what changed")
    def changes(self, entry: AuditEntry) -> Any:
        """Show each member as it was and as it is."""
        before, after = entry.before or {}, entry.after or {}
        names = list(dict.fromkeys([*before, *after]))
        rows = ((name.replace("_", " "), readable(before.get(name)), readable(after.get(name))) for name in names)
        return table(("what", "before", "after"), rows)


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    """What the world is to be told."""

    list_display = ["recorded_at", "tenant", "type", "public_id"]
    list_select_related = ["tenant"]
    _payload = shown("payload", lambda message: table(("member", "value"), _members(message.payload)))
    fields = ["recorded_at", "tenant", "type", "public_id", _payload]
    readonly_fields = ["public_id", _payload]
    sortable_by = ()
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "type__exact"]
    search_help_text = "A tenant's id or a message's type, written out in full."


def _members(payload: Any) -> list[tuple[str, str]]:
    return [(str(name), readable(value)) for name, value in payload.items()]
