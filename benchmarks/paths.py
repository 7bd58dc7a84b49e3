"""The paths that are measured: the full path, its floor, and the naive baseline, on the same tables."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

from django.db import connection, transaction

from benchmarks import naive
from billing_site.database import uuid7
from invoices.services.subscribing import start_subscription
from metering.core.identity import digest, fingerprint
from metering.models import MeterBalance
from metering.services import committer
from metering.services.arrays import bytes_array, plain_array, text_array
from metering.services.ingest import record_events
from metering.services.requests import NewEvent, Record
from subscriptions.models import Tenant
from subscriptions.services import catalog, tenants

FLOOR = """
WITH keys AS (
    INSERT INTO metering_eventkey (subject, digest, fingerprint, event_id, posting_id)
    SELECT subject, digest, fingerprint, id, id
    FROM unnest(%(subjects)s::text[], %(digests)s::bytea[], %(fingerprints)s::bytea[], %(ids)s::uuid[])
         AS k (subject, digest, fingerprint, id) ON CONFLICT DO NOTHING
)
INSERT INTO metering_usageevent (id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts, unmatched_code)
SELECT id, subject, 'bench', event_id, 'llm.completion', now(), false, '{"total_tokens": 7}', '[]', 'bench'
FROM unnest(%(ids)s::uuid[], %(subjects)s::text[], %(event_ids)s::text[]) AS e (id, subject, event_id)
"""


class Bench:
    """A tenant on a tier, and endless new events for it."""

    def __init__(self) -> None:
        now = datetime.now(tz=UTC)
        catalog.create_meter(
            code="tokens",
            name="Tokens",
            event_type="llm.completion",
            aggregation="sum",
            value_property="total_tokens",
            actor="system",
        )
        tier = catalog.create_tier(code="bench", name="Bench", actor="system")
        price = {"model": "per_unit", "unit_amount": "0.0002"}
        document = {
            "currency": "USD",
            "interval": "month",
            "fee": "99.00",
            "charges": [{"kind": "usage", "meter": "tokens", "included": "10000", "price": price}],
        }
        draft = catalog.create_version(tier=tier, actor="system", document=document)
        version = catalog.publish(version_id=draft.pk, now=now - timedelta(days=9), actor="system")
        self._tenants: dict[str, Tenant] = {}
        for code in ("bench", "bench-naive"):
            tenant = tenants.create_tenant(code=code, name=code, actor="system")
            starts_at = now - timedelta(hours=1)
            start_subscription(
                tenant=tenant, version=version, starts_at=starts_at, anchor_at=starts_at, now=now, actor="system"
            )
            self._tenants[code] = tenant
        self._naive_balance = MeterBalance.objects.get(tenant=self._tenants["bench-naive"]).pk
        self._numbers = count(1)

    def _events(self, number: int, tenant: str = "bench") -> list[NewEvent]:
        return [
            NewEvent(tenant, "bench", f"n{next(self._numbers)}", "llm.completion", None, {"total_tokens": Decimal(7)})
            for _ in range(number)
        ]

    def floor(self, size: int) -> Callable[[], None]:
        """Insert the same key and event rows, and nothing else, in one statement."""
        events = self._events(size, "bench-floor")

        def insert() -> None:
            parameters = {
                "subjects": text_array(event.subject for event in events),
                "digests": bytes_array(digest(event.source, event.id) for event in events),
                "fingerprints": bytes_array(fingerprint(event.type, event.data, None) for event in events),
                "ids": plain_array(uuid7() for _ in events),
                "event_ids": text_array(event.id for event in events),
            }
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(FLOOR, parameters)

        return insert

    def full_path(self, size: int) -> Callable[[], None]:
        """Record a batch: keys, events, ledger, balances, answers."""
        events = self._events(size)
        return lambda: _discard(record_events([Record(events, datetime.now(tz=UTC))]))

    def singles(self, number: int) -> Callable[[], None]:
        """Record events one request after the other."""
        events = self._events(number)
        return lambda: [_discard(record_events([Record([event], datetime.now(tz=UTC))])) for event in events] and None

    def naive(self, number: int) -> Callable[[], None]:
        """The same events, one transaction and one lock each."""
        events = self._events(number, "bench-naive")
        return lambda: [naive.record(event, self._naive_balance, uuid7()) for event in events] and None

    def hot(self, number: int, threads: ThreadPoolExecutor) -> Callable[[], None]:
        """Post single events of one tenant from many threads, through the committer."""
        events = self._events(number)
        return lambda: _discard(
            list(threads.map(lambda event: committer.submit(Record([event], datetime.now(tz=UTC))), events))
        )

    def hot_naive(self, number: int, threads: ThreadPoolExecutor) -> Callable[[], None]:
        """The same against a lock per request; eight at a time, as many as there are connections."""
        events = self._events(number, "bench-naive")

        def post(part: list[NewEvent]) -> None:
            for event in part:
                naive.record(event, self._naive_balance, uuid7())
            connection.close()

        return lambda: _discard(list(threads.map(post, [events[start::6] for start in range(6)])))


def _discard(_: object) -> None:
    """Take an answer that nobody reads."""
