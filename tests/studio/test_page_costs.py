"""What the staff's pages cost: as many queries for many rows as for few, on every list and on every row's page."""

from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing_site.keyset import KeysetChangeList, estimated_rows
from metering.models import LedgerEntry
from metering.services.gate import perform
from metering.services.requests import Authorize
from subscriptions.models import TestClock
from subscriptions.selectors.clock import wall_now
from subscriptions.services import audit, keys
from tests.staff import sign_in
from tests.world import ACTOR, JUNE, make_world

pytestmark = pytest.mark.django_db

# More than a page of a list shows.
FEW, MANY = 10, 60
QUERIES_MAX = 30
EVENTS = "metering_usageevent"


def fill(number: int) -> None:
    world = make_world(code=f"org_{number}")
    world.use(12_000, time=JUNE)
    perform([Authorize(world.tenant.code, "tokens", Decimal(70), f"call {number}", {}, 300, wall_now())])
    world.record(replace(world.event(5, time=wall_now()), subject="nobody", id=f"n{number}"))
    keys.issue_key(name=f"gateway {number}", scopes=["ingest"], actor="system")
    get_user_model().objects.create_user(f"user {number}", is_staff=True)


def addresses() -> dict[str, str]:
    """Return each list, and the page of one row of each, by name."""
    found = {"index": reverse("admin:index"), "studio": reverse("admin:studio")}
    for model in admin.site._registry:
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        found[name] = reverse(f"admin:{name}_changelist")
        row = model._base_manager.order_by("pk").first()
        if row is not None:
            found[f"{name}, a row"] = reverse(f"admin:{name}_change", args=[row.pk])
    found[EVENTS] += "?unmatched=yes"
    return found


def queries(client: Client, pages: dict[str, str]) -> dict[str, int]:
    counts = {}
    for name, address in pages.items():
        with CaptureQueriesContext(connection) as asked:
            assert client.get(address).status_code == 200, name
        counts[name] = len(asked)
    return counts


def test_every_page_takes_as_many_queries_for_many_rows_as_for_few():
    client = sign_in(None)
    get_user_model().objects.update(is_superuser=True)
    for number in range(FEW):
        fill(number)
    pages = addresses()
    queries(client, pages)  # content types are read once
    few = queries(client, pages)
    for number in range(FEW, MANY):
        fill(number)
    many = queries(client, pages)

    assert many == few
    assert {name: count for name, count in few.items() if count > QUERIES_MAX} == {}


def lines(count: int) -> None:
    clock = TestClock.objects.create(code="c", now=JUNE)
    for number in range(count):
        audit.record(actor=ACTOR, action="advance", instance=clock, reason=f"line {number:03}")


def shown(client: Client, address: str) -> tuple[list[str], KeysetChangeList]:
    found = client.get(address).context["cl"]
    return [entry.reason for entry in found.result_list], found


def test_a_list_goes_on_from_its_last_row_and_back_from_its_first():
    client = sign_in("read-only")
    start = reverse("admin:subscriptions_auditentry_changelist")
    lines(120)
    newest, first = shown(client, start)
    middle, second = shown(client, start + first.older)
    oldest, third = shown(client, start + second.older)

    assert [one[-3:] for one in (newest[0], middle[0], oldest[0])] == ["119", "069", "019"]
    assert [len(newest), len(middle), len(oldest)] == [50, 50, 20]
    assert (first.newer, first.newest, third.older) == (None, None, None)
    assert shown(client, start + third.newer)[0] == middle
    back, again = shown(client, start + second.newer)
    assert (back, again.newer) == (newest, None)
    assert first.counted == "120"


def test_a_place_that_is_none_is_the_start_of_the_list():
    client = sign_in("read-only")
    start = reverse("admin:subscriptions_auditentry_changelist")
    lines(3)

    assert shown(client, f"{start}?older_than=x")[0] == ["line 002", "line 001", "line 000"]
    assert client.get(reverse(f"admin:{EVENTS}_changelist"), {"newer_than": str(uuid4())}).status_code == 200


def test_the_next_page_keeps_what_was_searched_for_and_another_search_begins_at_the_start():
    client = sign_in("read-only")
    start = reverse("admin:subscriptions_auditentry_changelist")
    lines(60)
    first = shown(client, start + "?q=advance")[1]
    second = shown(client, start + first.older)[1]

    assert "q=advance" in first.older
    assert second.result_count == 60
    assert second.get_query_string() == "?q=advance"


def test_a_table_that_grows_with_every_event_is_sorted_by_no_column():
    client = sign_in("read-only")
    world = make_world()
    for tokens in (5, 3, 9):
        world.use(tokens, time=JUNE)
    for order in ("", "?o=5", "?o=-5"):
        listed = client.get(reverse("admin:metering_ledgerentry_changelist") + order).context["cl"].result_list
        assert [entry.pk for entry in listed] == sorted((entry.pk for entry in listed), reverse=True)


def test_how_many_rows_a_large_table_has_is_estimated_over_its_partitions():
    make_world().use(5, time=JUNE)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")

    assert estimated_rows(LedgerEntry._meta.db_table) == LedgerEntry.objects.count()
    assert estimated_rows("metering_usageevent") == 1
