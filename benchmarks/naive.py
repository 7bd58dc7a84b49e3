"""The baseline: ingestion as a competent team would first write it, one locked balance and one ORM insert per event."""

from datetime import UTC, datetime

from django.db import IntegrityError, connection, transaction

from metering.core.identity import digest, fingerprint
from metering.models import MeterBalance
from metering.services.requests import NewEvent

INSERT_KEY = (
    "INSERT INTO metering_eventkey (subject, digest, fingerprint, event_id, posting_id) VALUES (%s, %s, %s, %s, %s)"
)
INSERT_EVENT = """
INSERT INTO metering_usageevent (id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts, unmatched_code)
VALUES (%s, %s, %s, %s, %s, %s, true, '{}', '[]', 'bench')
"""


def record(event: NewEvent, balance_id: int, row_id: object) -> None:
    """Store one event and count it, in a transaction of its own."""
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                key = (event.subject, digest(event.source, event.id), fingerprint(event.type, event.data, None))
                cursor.execute(INSERT_KEY, [*key, row_id, row_id])
                now = datetime.now(tz=UTC)
                cursor.execute(INSERT_EVENT, [row_id, event.subject, event.source, event.id, event.type, now])
            balance = MeterBalance.objects.select_for_update().get(pk=balance_id)
            balance.used += event.data["total_tokens"]
            balance.events += 1
            balance.save(update_fields=["used", "events"])
    except IntegrityError:
        return
