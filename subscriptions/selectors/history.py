"""Who did what to one object, as the audit has it."""

from subscriptions.models import AuditEntry

ENTRIES_SHOWN_MAX = 50


def entries_of(object_type: str, object_id: str) -> list[AuditEntry]:
    """Return the newest entries of an object, named as `services.audit` names it, up to ENTRIES_SHOWN_MAX."""
    return list(
        AuditEntry.objects.filter(object_type=object_type, object_id=object_id[:200]).order_by("-pk")[
            :ENTRIES_SHOWN_MAX
        ]
    )
