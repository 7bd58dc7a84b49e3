"""
What the staff's pages take beside many rows, on servers of its own: every list with each of its filters, its next page and a search, and a row of each.

    python -m benchmarks.pages --tenants 10000 --events 5000000

The time is that of the whole request within one process, in milliseconds: middleware, queries, template.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.stage import Stage

CODE = "many"
METERS = {"input": "llm.input", "output": "llm.output"}
DAYS = 100  # since the tenants began: three closed months
USED = 25_000
# Beside so many of the spread events stand those of one busy tenant.
SPREAD_PER_BUSY = 10
FILL = 1_000_000  # in a statement
_EVENTS = f"""
INSERT INTO metering_usageevent (id, subject, source, event_id, type, occurred_at, time_was_sent, data, counts, posting_id, unmatched_code)
SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
       CASE WHEN n %% %s = 0 THEN '{CODE}' ELSE '{CODE}-' || 1 + n %% %s END, 'gateway-eu', 'stored_' || n,
       'llm.input', now() - n * interval '1 millisecond', true,
       '{{"model": "opus", "input_tokens": 5, "output_tokens": 2, "total_tokens": 7}}', '[]', md5('posting')::uuid, ''
FROM generate_series(%s::int, %s::int) n
"""
_ENTRIES = """
INSERT INTO metering_ledgerentry (posting_id, tenant_id, balance_id, kind, segment_at, dimension_key, quantity, events)
SELECT md5('posting')::uuid, b.tenant_id, b.id, 'usage', now(), '', 7, 1
FROM generate_series(1, %s) CROSS JOIN (SELECT id, tenant_id FROM metering_meterbalance ORDER BY id LIMIT %s) b
"""


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description="Time the staff's pages.")
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tierbook-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # root's servers step down to another account, which has to pass
        with Stage(directory) as stage:
            os.environ.update(stage.environment())
            import django

            django.setup()
            with stage.superuser() as administrator:
                build(administrator, tenants=options.tenants, events=options.events)
            report(measure(options.rounds))


def build(administrator: psycopg.Connection, *, tenants: int, events: int) -> None:
    """Make a tenant with three closed months through the services, copy it, and store events and the ledger's entries by SQL."""
    from django.core.management import call_command

    from benchmarks import population
    from invoices.services import due
    from metering.services.ingest import record_events
    from metering.services.requests import NewEvent, Record

    call_command("migrate", verbosity=0)
    now = datetime.now(tz=UTC)
    began = now - timedelta(days=DAYS)
    version = population.publish(CODE, meters=METERS, now=began)
    tenant = population.subscribe(CODE, version=version, starts_at=began, now=began)
    for days in range(5, DAYS, 10):
        at = began + timedelta(days=days)
        record_events(
            [
                Record(
                    [
                        NewEvent(CODE, "bench", f"{kind}{days}", kind, at, {"total_tokens": USED})
                        for kind in METERS.values()
                    ],
                    at,
                )
            ]
        )
        due.sweep(now=at, seconds_max=60)
    due.sweep(now=now, seconds_max=60)
    population.clone(administrator, tenant, copies=tenants)
    for first in range(1, events + 1, FILL):
        administrator.execute(_EVENTS, [SPREAD_PER_BUSY, tenants, first, min(first + FILL - 1, events)])
    administrator.execute(_ENTRIES, [max(1, events // 5 // tenants), tenants])
    administrator.execute("VACUUM (ANALYZE)")


def measure(rounds: int) -> list[tuple[float, int, str]]:
    """Return the fastest milliseconds and the queries of each page: what others do on the machine only ever adds."""
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext, setup_test_environment, teardown_test_environment

    client = Client(SERVER_NAME="localhost")
    client.force_login(get_user_model().objects.create_superuser("bench", password="x"))
    setup_test_environment()  # so that answers name what their lists offer
    pages = list(addresses(client))
    teardown_test_environment()
    found = []
    for address in pages:
        with CaptureQueriesContext(connection) as asked:
            client.get(address)
            queries = len(asked)
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            answer = client.get(address)
            times.append((time.perf_counter() - started) * 1000)
            assert answer.status_code == 200, address
        found.append((min(times), queries, address))
    return sorted(found, reverse=True)


def addresses(client: Any) -> Iterator[str]:
    """Yield the address of each page: lists, what they lead to, and a row of each."""
    from django.contrib import admin
    from django.urls import reverse

    yield from (reverse("admin:index"), reverse("admin:studio"))
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        start = reverse(f"{name}_changelist")
        shown = client.get(start).context["cl"]
        yield start
        yield from (start + query for query in filter(None, [getattr(shown, "older", None)]))
        yield from (f"{start}?q={word}" for word in (CODE, f"{CODE}-77", "nothing"))
        for chosen in shown.filter_specs:
            yield from (start + choice["query_string"] for choice in chosen.choices(shown) if not choice["selected"])
        row = model._base_manager.order_by("-pk").first()
        if row is not None:
            yield reverse(f"{name}_change", args=[row.pk])


def report(found: list[tuple[float, int, str]]) -> None:
    """Print how many pages there are, and which take longest."""
    times = [milliseconds for milliseconds, _, _ in found]
    print(f"{len(found)} pages: median {statistics.median(times):.0f} ms, longest {times[0]:.0f} ms")
    print("| ms | queries | page |\n|---:|---:|---|")
    for milliseconds, queries, address in found[:25]:
        print(f"| {milliseconds:.0f} | {queries} | `{address}` |")


if __name__ == "__main__":
    main()
