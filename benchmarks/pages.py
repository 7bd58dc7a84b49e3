"""
What the staff's pages take beside many rows, on servers of its own: every list with each of its filters, its next page and a search, a row of each,
and the pages of the studio, for a draft that a backtest has compared for every tenant.

    python -m benchmarks.pages --tenants 10000 --events 5000000

The time is that of the whole request within one process, in milliseconds: middleware, queries, template.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
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
    from invoices.services.backtesting import run_backtests, start_backtest
    from subscriptions.services import catalog

    call_command("migrate", verbosity=0)
    now = datetime.now(tz=UTC)
    began = now - timedelta(days=DAYS)
    version = population.publish(CODE, meters=METERS, now=began)
    tenant = population.subscribe(CODE, version=version, starts_at=began, now=began)
    population.live(tenant, types=METERS.values(), quantity=USED, since=began, until=now)
    population.clone(administrator, tenant, copies=tenants)
    dearer = population.usual_charges(METERS, included=9_000)
    draft = catalog.create_version(
        tier=version.tier, actor=population.ACTOR, document=population.document(dearer, fee="109.00")
    )
    start_backtest(version=draft, periods=3, now=now, actor=population.ACTOR)
    run_backtests()
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
    pages = {address: partial(client.get, address) for address in addresses(client)} | dict(studio_pages(client))
    teardown_test_environment()
    found = []
    for address, ask in pages.items():
        with CaptureQueriesContext(connection) as asked:
            ask()
            queries = len(asked)
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            answer = ask()
            times.append((time.perf_counter() - started) * 1000)
            assert answer.status_code == 200, address
        found.append((min(times), queries, address))
    return sorted(found, reverse=True)


def studio_pages(client: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the studio's pages, and what they ask while somebody types."""
    from django.urls import reverse

    from invoices.models import BacktestRun
    from subscriptions.models import TierVersion
    from subscriptions.selectors.catalog import editable_document, with_parts

    live, draft = TierVersion.objects.order_by("number")
    run = BacktestRun.objects.get()
    result = run.results.first()
    assert result is not None
    places = {
        "studio": [],
        "studio_version": [draft.pk],
        "studio_publish": [draft.pk],
        "studio_backtest_start": [draft.pk],
        "studio_guards": [draft.tier_id],
        "studio_backtests": [],
        "studio_backtest": [run.public_id],
        "studio_backtest_tenants": [run.public_id],
        "studio_backtest_tenant": [run.public_id, result.pk],
        "studio_catalog": [],
    }
    for name, arguments in places.items():
        address = reverse(f"admin:{name}", args=arguments)
        yield address, partial(client.get, address)
    for address in (
        reverse("admin:studio_version", args=[live.pk]),
        f"{reverse('admin:studio_compare')}?left={live.pk}&right={draft.pk}",
    ):
        yield address, partial(client.get, address)
    document = editable_document(with_parts(TierVersion.objects.filter(pk=draft.pk)).get())
    usage = [{"meter": meter, "quantity": USED, "events": 5} for meter in METERS]
    tomorrow = {"effective_at": f"{datetime.now(tz=UTC) + timedelta(days=1):%Y-%m-%dT%H:%M}", "cohort": "renewal"}
    for name, body in (("studio_check", {}), ("studio_calculate", {"usage": usage})):
        address = reverse(f"admin:{name}", args=[draft.pk])
        yield address, partial(client.post, address, {"document": document} | body, content_type="application/json")
    address = reverse("admin:studio_publish", args=[draft.pk])
    yield f"{address} for a date", partial(client.post, address, tomorrow | {"revision": draft.revision})


def addresses(client: Any) -> Iterator[str]:
    """Yield the address of each page: lists, what they lead to, and a row of each."""
    from django.contrib import admin
    from django.urls import reverse

    yield reverse("admin:index")
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
