"""Staff pages of what was written for everybody: publications, the audit, and messages to the world. Read-only."""

from django.contrib import admin

from billing_site.staff import ReadOnlyAdmin
from subscriptions.models import AuditEntry, OutboxMessage, Publication


@admin.register(Publication)
class PublicationAdmin(ReadOnlyAdmin):
    """From when on which version is what new subscribers get."""

    list_display = ["version", "cohort", "effective_at"]
    list_select_related = ["version__tier"]
    search_fields = ["version__tier__code"]
    ordering = ["-pk"]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who changed what."""

    list_display = ["recorded_at", "actor", "action", "object_type", "object_id", "reason"]
    ordering = ["-pk"]
    search_fields = ["object_id__exact", "actor__exact", "action__exact"]
    search_help_text = "An object's id, an actor (staff:ann) or an action (publish), written out in full."


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    """What the world is to be told."""

    list_display = ["recorded_at", "tenant", "type", "public_id"]
    list_select_related = ["tenant"]
    ordering = ["-pk"]
    search_fields = ["tenant__code__exact", "type__exact"]
    search_help_text = "A tenant's id or a message's type, written out in full."
