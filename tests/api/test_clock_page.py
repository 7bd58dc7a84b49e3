"""The staff page of one test clock: who lives in its time, what was run, what falls due next, and the form that advances it."""

import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.html import strip_tags

from billing_site.management.commands.bootstrap import ensure_groups
from invoices.admin.timeline import WORDS
from invoices.models import ClockEntry, Invoice
from invoices.services import due
from invoices.services.advancing import advance
from invoices.services.subscribing import cancel_subscription, start_subscription
from metering.models import Authorization, GrantSchedule, ThresholdWatch
from metering.services.gate import perform
from metering.services.requests import Authorize
from subscriptions.core.periods import Interval
from subscriptions.models import AuditEntry, Subscription, TestClock
from subscriptions.services import clocks, tenants
from tests.services.test_grant_schedules import schedule
from tests.world import ACTOR, JUNE, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db


def signed_in(username="ann", *, group=None, permission=None):
    users = get_user_model().objects
    if group is None and permission is None:
        user = users.create_superuser(username)
    else:
        user = users.create_user(username, is_staff=True)
        ensure_groups()
        user.groups.set(Group.objects.filter(name=group))
        user.user_permissions.set(Permission.objects.filter(codename=permission))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def ann():
    return signed_in()


def address(clock, name="change"):
    return reverse(f"admin:subscriptions_testclock_{name}", args=[clock.pk])


def change(row):
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def page(client, clock, **query):
    response = client.get(address(clock), query)
    assert response.status_code == 200
    return response.content.decode()


def section(shown, heading):
    return shown.partition(f"<h2>{heading}</h2>")[2].partition("</section>")[0]


def lines(shown, heading):
    """Return a section's headings of days and lines, as a person reads them."""
    found = re.findall(r"<h3>.*?</h3>|<li.*?</li>", section(shown, heading), re.S)
    return [" ".join(strip_tags(one).split()) for one in found]


def send(client, clock, to):
    return client.post(address(clock, "advance"), {"to": to}, follow=True)


def goals(shown):
    return re.findall(r'name="to" value="([^"]+)"><strong>([^<]+)</strong>', shown)


def settled(clock):
    clock.refresh_from_db()
    return clock.now, clock.status


def june_closed():
    """Return a world in which June has closed, with 2,345 tokens beyond what is included."""
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    return world


def join(world, code):
    """Subscribe another tenant to the same version, in the same clock's time."""
    tenant = tenants.create_tenant(code=code, name=code.title(), actor=ACTOR, test_clock=world.clock.code)
    start_subscription(
        tenant=tenant,
        version=world.subscription.version,
        starts_at=world.now,
        anchor_at=world.now,
        now=world.now,
        actor=ACTOR,
    )
    return tenant


def test_what_was_run_is_told_in_sentences_by_days_the_newest_first(ann):
    world = june_closed()
    tenant, invoice = world.tenant.code, Invoice.objects.get(reason="period")
    shown = page(ann, world.clock)
    assert lines(shown, "What was run") == [
        "1 Jul 2026",
        f"01:00 The period of {tenant} closed period 1, 1 Jun 2026 – 1 Jul 2026 · invoice {invoice.printed_number}",
        f"00:00 A period of {tenant} opened subscription",
        "20 Jun 2026",
        f"00:00 What {tenant} used beyond its allowance was priced tokens",
    ]
    june, balance = world.subscription.periods.get(sequence=1), world.balance(period__sequence=1)
    for row in (world.tenant, world.subscription, june, balance, invoice):
        assert f'href="{change(row)}"' in section(shown, "What was run")


def test_what_falls_due_next_is_told_the_earliest_first(ann):
    world = june_closed()
    tenant, shown = world.tenant.code, page(ann, world.clock)
    july = world.subscription.periods.get(sequence=2)
    assert lines(shown, "What falls due next") == [
        "1 Aug 2026",
        f"00:00 The next period of {tenant} opens subscription",
        f"01:00 The period of {tenant} closes period 2, 1 Jul 2026 – 1 Aug 2026",
        "5 Aug 2026",
        f"00:00 Usage of {tenant} that came late is looked for period 1, 1 Jun 2026 – 1 Jul 2026",
    ]
    assert f'href="{change(july)}"' in section(shown, "What falls due next")


def test_holds_credit_and_thresholds_are_told_too(ann):
    make_meter()
    world = make_world(version=publish(charges=[charge(thresholds=[{"percent": 80}])]))
    tenant = world.tenant.code
    world.use(1)
    schedule(world, 100, interval=Interval.WEEK)
    perform([Authorize(tenant, "tokens", Decimal(70), "call", {}, 300, JUNE)])
    future = lines(page(ann, world.clock), "What falls due next")
    assert f"00:05 A hold of {tenant} expires tokens, call" in future
    assert f"00:00 {tenant} gets its recurring credit tokens" in future
    assert f"00:00 The thresholds of {tenant} are checked threshold watch" in future

    advance(clock_id=world.clock.pk, to=at("2026-07-01 00:00"), actor=ACTOR)
    shown = page(ann, world.clock)
    past = lines(shown, "What was run")
    assert f"00:05 A hold of {tenant} expired tokens, call" in past
    assert f"00:00 {tenant} got its recurring credit tokens" in past
    assert f"00:00 The thresholds of {tenant} were checked threshold watch" in past
    for row in (Authorization.objects.get(), GrantSchedule.objects.get(), ThresholdWatch.objects.get()):
        assert f'href="{change(row)}"' in section(shown, "What was run")


def test_a_long_future_is_cut_and_says_so(ann, monkeypatch):
    world = june_closed()
    monkeypatch.setattr("invoices.admin.clocks.UPCOMING_SHOWN", 2)
    shown = page(ann, world.clock)
    assert len(lines(shown, "What falls due next")) == 3
    assert "There is more after this." in shown


def test_a_new_clock_says_that_nothing_was_run_and_nothing_falls_due(ann):
    clock = clocks.create_clock(code="empty", now=JUNE, actor=ACTOR)
    shown = page(ann, clock)
    assert "Nothing was run yet." in shown
    assert "Nothing falls due." in shown
    assert [label for _, label in goals(shown)] == ["+ 1 day", "+ 1 month"]


def test_days_are_those_of_the_tenants_zone_where_a_period_is_named(ann):
    world = make_world(timezone="Asia/Tokyo", starts_at=at("2026-05-31 15:00"))
    assert "period 1, 1 Jun 2026 – 1 Jul 2026" in page(ann, world.clock)


def test_the_tenants_of_the_clock_stand_with_their_subscriptions(ann):
    world, stranger = make_world(), make_world().tenant
    later = join(world, "later")
    Subscription.objects.filter(tenant=later).update(starts_at=JUNE + timedelta(days=9))
    leaving = join(world, "leaving")
    subscription = Subscription.objects.get(tenant=leaving)
    cancel_subscription(
        subscription_id=subscription.pk, when="period_end", credit="none", now=JUNE, actor=ACTOR, reason=""
    )
    tenants.create_tenant(code="idle", name="Idle", actor=ACTOR, test_clock=world.clock.code)
    shown = section(page(ann, world.clock), "Tenants in its time")
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", shown)]
    told = {strip_tags(row[0]): strip_tags(row[4]) for row in rows if row}
    assert told == {
        "idle": "not subscribed",
        "later": "starts later",
        "leaving": "ends soon",
        world.tenant.code: "running",
    }
    for row in (world.tenant, world.subscription, world.subscription.version):
        assert f'href="{change(row)}"' in shown
    assert stranger.code not in shown


def test_many_tenants_are_cut_with_a_way_to_all_of_them(ann, monkeypatch):
    world = make_world(code="anna")
    join(world, "bert")
    monkeypatch.setattr("invoices.admin.clocks.TENANTS_SHOWN", 1)
    shown = section(page(ann, world.clock), "Tenants in its time")
    assert "bert" not in shown
    [way] = re.findall(r'href="([^"]+)">All tenants', shown)
    listed = ann.get(way).content.decode()
    assert (">anna<" in listed, ">bert<" in listed) == (True, True)


@pytest.mark.parametrize(
    ("label", "goal"),
    [
        ("To what is due next", at("2026-08-01 00:00")),
        ("+ 1 day", at("2026-07-03 00:00")),
        ("+ 1 month", at("2026-08-02 00:00")),
    ],
)
def test_one_click_advances_to_a_time_and_again_to_nothing_more(ann, label, goal):
    world = june_closed()
    [to] = [value for value, name in goals(page(ann, world.clock)) if name == label]
    for _ in range(2):
        assert send(ann, world.clock, to).redirect_chain == [(address(world.clock), 302)]
        assert settled(world.clock) == (goal, "ready")


def test_a_month_from_the_31st_is_the_last_of_the_next(ann):
    clock = clocks.create_clock(code="january", now=at("2026-01-31 12:00"), actor=ACTOR)
    [to] = [value for value, name in goals(page(ann, clock)) if name == "+ 1 month"]
    assert to == "2026-02-28T12:00:00+00:00"


def test_what_is_overdue_is_run_without_moving_the_clock(ann):
    world = make_world(now=at("2026-06-20 00:00"))
    world.use(12_345, time=at("2026-06-05 00:00"))
    (to, label), *_ = goals(page(ann, world.clock))
    assert label == "To what is due next"
    assert "1 × overage priced" in send(ann, world.clock, to).content.decode()
    assert settled(world.clock) == (at("2026-06-20 00:00"), "ready")


def test_a_typed_time_advances_and_the_answer_says_what_was_run(ann):
    world = make_world()
    shown = send(ann, world.clock, "2026-07-02T00:00:00").content.decode()
    assert "stands at 2026-07-02 00:00:00 UTC. Run: 1 × period opened, 1 × period closed." in shown
    entry = AuditEntry.objects.get(action="advance", actor="staff:ann")
    assert (entry.object_id, entry.after) == (world.clock.code, {"now": "2026-07-02T00:00:00Z"})
    assert "nothing was due" in send(ann, world.clock, "2026-07-03T00:00:00").content.decode()


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("2026-05-31T00:00:00", "stands at 2026-06-01T00:00:00Z already"),
        ("soon", "Not advanced"),
        ("", "Not advanced"),
    ],
)
def test_a_time_that_is_past_or_none_at_all_is_refused_with_the_reason(ann, to, why):
    world = make_world()
    assert why in send(ann, world.clock, to).content.decode()
    assert settled(world.clock) == (JUNE, "ready")
    assert not AuditEntry.objects.filter(action="advance").exists()


def test_an_advance_that_was_cut_off_is_resumed_from_the_page_and_nothing_else_is_offered(ann):
    world = june_closed()
    goal = at("2026-08-02 00:00")
    clocks.begin_advance(clock_id=world.clock.pk, to=goal)
    shown = page(ann, world.clock)
    assert goals(shown) == [("2026-08-02T00:00:00+00:00", "Go on")]
    assert "datetime-local" not in shown
    assert "datetime-local" in page(ann, make_world().clock)
    send(ann, world.clock, "2026-08-02T00:00:00+00:00")
    assert settled(world.clock) == (goal, "ready")
    assert [entry.what for entry in ClockEntry.objects.order_by("pk")][-2:] == ["open_period", "close_period"]


def test_a_failure_that_waits_for_a_person_stands_out(ann, monkeypatch):
    world = make_world()

    def broken(period_ids, now):
        raise RuntimeError("no ink")

    kinds = tuple(replace(kind, run=broken) if kind.what == "close_period" else kind for kind in due.KINDS)
    monkeypatch.setattr(due, "KINDS", kinds)
    assert "1 × failure that waits for a person" in send(ann, world.clock, "2026-07-02").content.decode()
    assert '<li class="failure"><time datetime="2026-07-01T01:00:00+00:00">' in page(ann, world.clock)


def test_the_past_is_paged_and_no_entry_is_left_out_or_shown_twice(ann, monkeypatch):
    world = june_closed()
    monkeypatch.setattr("invoices.admin.clocks.ENTRIES_PER_PAGE", 2)
    newest = page(ann, world.clock)
    [before] = re.findall(r'href="\?before=(\d+)#past">Older', newest)
    older = page(ann, world.clock, before=before)
    told = [line for shown in (newest, older) for line in lines(shown, "What was run") if ":" in line]
    assert len(told) == len(set(told)) == 3
    assert "Newest</a>" in older
    assert "Older</a>" not in older
    assert "Newest</a>" not in newest
    for nonsense in ("x", "-1", "9" * 40, "²"):
        assert lines(page(ann, world.clock, before=nonsense), "What was run") == lines(newest, "What was run")


def test_the_entries_of_another_clock_are_not_shown(ann):
    world, other = june_closed(), make_world()
    before = ClockEntry.objects.latest("pk").pk + 1
    assert lines(page(ann, other.clock, before=before), "What was run") == []
    assert world.tenant.code not in page(ann, other.clock)


def test_who_may_only_look_sees_the_timeline_and_no_form():
    world = june_closed()
    rob = signed_in("rob", group="read-only")
    shown = page(rob, world.clock)
    assert "The period of <a href" in shown
    assert 'name="to"' not in shown
    assert 'value="advance"' not in shown
    assert rob.post(address(world.clock, "advance"), {"to": "2026-08-02T00:00:00"}).status_code == 403
    assert settled(world.clock) == (at("2026-07-02 00:00"), "ready")


def test_who_may_see_clocks_alone_reads_the_sentences_without_ways_to_pages_that_are_closed():
    world = june_closed()
    eve = signed_in("eve", permission="view_testclock")
    shown = page(eve, world.clock)
    assert f"The period of {world.tenant.code} closed" in shown
    assert change(world.tenant) not in shown
    assert change(Invoice.objects.get(reason="period")) not in shown


def test_product_staff_advances_and_finance_does_not():
    world = make_world()
    pat, fay = signed_in("pat", group="product"), signed_in("fay", group="finance")
    assert 'name="to"' not in page(fay, world.clock)
    assert 'name="to"' in page(pat, world.clock)
    send(pat, world.clock, "2026-06-02T00:00:00")
    assert settled(world.clock) == (at("2026-06-02 00:00"), "ready")
    assert AuditEntry.objects.get(action="advance").actor == "staff:pat"


def test_a_clock_that_is_not_there_is_not_advanced_and_an_address_that_is_opened_leads_to_the_page(ann):
    world = make_world()
    missing = TestClock(pk=world.clock.pk + 1000)
    assert ann.post(address(missing, "advance"), {"to": "2026-07-02"}).status_code == 404
    assert ann.get(address(world.clock, "advance")).url == address(world.clock)


def test_three_tenants_take_as_many_queries_as_one(ann):
    one, three = make_world(), make_world()
    for code in ("second", "third"):
        join(three, code)
    for world in (one, three):
        world.use(12_345, time=JUNE)
        advance(clock_id=world.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    page(ann, one.clock)
    counts = []
    for world in (one, three):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            shown = page(ann, world.clock)
        counts.append(len(queries))
    assert len(lines(shown, "What was run")) == 2 + 7
    assert counts[0] == counts[1] < 25


def test_every_kind_of_due_work_is_told_in_words():
    assert {kind.what for kind in due.KINDS} | {due.PARKED} == set(WORDS)


def test_the_page_loads_nothing_from_another_host(ann):
    shown = page(ann, june_closed().clock)
    assert re.findall(r'(?:src|href|action)="(?:https?:)?//', shown) == []
