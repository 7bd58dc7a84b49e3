"""Backtests in the studio: asked for in a form, watched, stopped, and read by people who know prices and nothing else."""

import doctest

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing_site.console.studio import backtest_words
from invoices.models import BacktestResult, BacktestRun
from invoices.services import backtesting
from invoices.services.advancing import advance
from subscriptions.models import AuditEntry, Tenant
from subscriptions.services import catalog
from tests.staff import sign_in
from tests.world import ACTOR, JUNE, at, charge, make_world

pytestmark = pytest.mark.django_db(transaction=True)

LAST = {"which": "last", "periods": "3"}


@pytest.fixture
def world():
    """A tenant who used 12,000 of 10,000 tokens in June: $99 and 40 cents."""
    found = make_world(now=at("2026-06-20 00:00"))
    found.use(12_000, time=at("2026-06-05 00:00"))
    advance(clock_id=found.clock.pk, to=at("2026-07-02 00:00"), actor=ACTOR)
    return found


def draft(world, price="0.0003", **terms):
    version = world.subscription.version
    price_document = {"model": "per_unit", "unit_amount": price}
    document = {"currency": "USD", "interval": "month", "fee": "99.00", "charges": [charge(price=price_document)]}
    return catalog.create_version(tier=version.tier, actor=ACTOR, document=document | terms)


def address(name, *keys):
    return reverse(f"admin:{name}", args=keys)


def ask(client, version, **answers):
    return client.post(address("studio_backtest_start", version.pk), LAST | answers)


def done(world, version):
    run = backtesting.start_backtest(version=version, periods=3, test_clock=world.clock, now=JUNE, actor=ACTOR)
    backtesting.run_backtests()
    run.refresh_from_db()
    return run


def text_of(answer):
    return answer.content.decode()


def test_a_backtest_is_asked_for_watched_and_read(world):
    client, version = sign_in("product"), draft(world)
    answer = ask(client, version, who="clock", test_clock=world.clock.pk)
    run = BacktestRun.objects.get()
    place = address("studio_backtest", run.public_id)
    assert (answer.status_code, answer.headers["Location"], run.actor) == (302, place, "staff:ann")

    running = text_of(client.get(place))
    assert "0 of 1 customers compared" in running
    assert "studio/backtest.js" in running
    progress = client.get(address("studio_backtest_progress", run.public_id))
    assert progress.json() == {"status": "running", "percent": 0, "words": "0 of 1 customers compared"}

    backtesting.run_backtests()
    assert client.get(address("studio_backtest_progress", run.public_id)).json()["status"] == "done"
    shown = text_of(client.get(place))
    for figure in ("$99.40", "$99.60", "+$0.20", "+0.2 %", world.tenant.code, "Nobody would pay less."):
        assert figure in shown
    assert "studio/backtest.js" not in shown

    line = text_of(client.get(address("studio_backtest_tenant", run.public_id, world.tenant.pk)))
    for words in ("1 Jun 2026 to 1 Jul 2026", "Usage to be paid: tokens", "$0.40", "$0.60"):
        assert words in line


def test_the_form_stands_on_a_clock_where_a_tier_has_nobody_in_wall_time(world):
    client, version = sign_in("product"), draft(world)
    form = client.get(address("studio_backtest_start", version.pk)).context["form"]
    assert (form["who"].value(), form["test_clock"].value()) == ("clock", world.clock.pk)
    Tenant.objects.update(test_clock=None)
    form = client.get(address("studio_backtest_start", version.pk)).context["form"]
    assert form["who"].value() == "all"


def test_customers_are_named_one_to_a_line(world):
    client, version = sign_in("product"), draft(world)
    ask(client, version, who="named", tenants=f" {world.tenant.code}\r\n{world.tenant.code},\n")
    run = BacktestRun.objects.get()
    assert (run.cohort, run.tenants) == ({"tenants": [world.tenant.code]}, 1)
    assert f"the customer {world.tenant.code}" in text_of(client.get(address("studio_backtest", run.public_id)))


def test_periods_between_two_days_are_asked_for(world):
    client, version = sign_in("product"), draft(world)
    between = {"which": "between", "who": "clock", "test_clock": world.clock.pk}
    ask(client, version, **between, from_day="2026-06-01", to_day="2026-07-01")
    run = BacktestRun.objects.get()
    assert (run.periods, run.from_at, run.to_at, run.tenants) == (None, JUNE, at("2026-07-01 00:00"), 1)


@pytest.mark.parametrize(
    ("answers", "field", "message"),
    [
        ({"periods": ""}, "periods", "Fill this in"),
        ({"periods": "37"}, "periods", "36"),
        ({"which": "between", "from_day": "2026-06-01"}, "to_day", "Fill this in"),
        ({"which": "between", "from_day": "2026-06-02", "to_day": "2026-06-01"}, "to_day", "after the beginning"),
        ({"who": "named", "tenants": ""}, "tenants", "Fill this in"),
        ({"who": "named", "tenants": "nobody"}, "tenants", "There is no tenant nobody."),
        ({"who": "clock"}, "test_clock", "Fill this in"),
        ({"which": "always"}, "which", "not one of the available choices"),
    ],
)
def test_what_cannot_be_meant_is_said_beside_its_field(world, answers, field, message):
    answer = ask(sign_in("product"), draft(world), **({"who": "all"} | answers))
    assert answer.status_code == 422
    assert message in " ".join(answer.context["form"].errors[field])
    assert not BacktestRun.objects.exists()


def test_a_run_is_stopped_once(world):
    client, version = sign_in("product"), draft(world)
    ask(client, version, who="clock", test_clock=world.clock.pk)
    run = BacktestRun.objects.get()
    stop = address("studio_backtest_cancel", run.public_id)
    assert client.get(stop).status_code == 405
    assert "The backtest was stopped." in text_of(client.post(stop, follow=True))
    assert "The backtest is cancelled." in text_of(client.post(stop, follow=True))
    run.refresh_from_db()
    assert (run.status, backtesting.run_backtests()) == ("cancelled", 0)
    assert [one.actor for one in AuditEntry.objects.filter(object_type="invoices.backtestrun")] == ["staff:ann"] * 2


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(backtest_words).failed == 0


def test_bars_say_how_much_more_or_less_is_paid():
    same = {"direction": "same", "over": "0.00", "up_to": "0.00", "tenants": 7}
    falls = [{"direction": "fall", "over": "60.00", "up_to": None, "tenants": 1}]
    rises = [
        {"direction": "rise", "over": "0.00", "up_to": "1000.00", "tenants": 3},
        {"direction": "rise", "over": "1000.00", "up_to": "2000.00", "tenants": 2},
    ]
    assert backtest_words.bars({"currency": "USD", "histogram": [*falls, same, *rises]}) == [
        ("over $60 less", 1),
        ("no change", 7),
        ("up to $1,000 more", 3),
        ("$1,000–$2,000 more", 2),
    ]


def test_a_result_for_a_draft_that_has_changed_since_says_so(world):
    client, version = sign_in("product"), draft(world)
    run = done(world, version)
    place = address("studio_backtest", run.public_id)
    assert "The draft has changed since." not in text_of(client.get(place))
    document = {"currency": "USD", "interval": "month", "fee": "1.00", "charges": [charge()]}
    catalog.save_draft(version_id=version.pk, expected_revision=version.revision, document=document, actor=ACTOR)
    assert "The draft has changed since." in text_of(client.get(place))


def test_why_a_period_is_left_out_is_said_in_words(world):
    client = sign_in("product")
    run = done(world, draft(world, interval="year"))
    assert "1 period could not be compared and is in no figure" in text_of(
        client.get(address("studio_backtest", run.public_id))
    )
    listed = client.get(address("studio_backtest_tenants", run.public_id), {"show": "left-out"})
    assert world.tenant.code in text_of(listed)
    told = text_of(client.get(address("studio_backtest_tenant", run.public_id, world.tenant.pk)))
    assert "1 Jun 2026 to 1 Jul 2026: The period had another length, or its fee paid for another span." in told


@pytest.fixture
def many(world):
    """A run with 130 more results: of the i-th tenant the bill rises by i − 60 dollars."""
    run = done(world, draft(world))
    tenants = Tenant.objects.bulk_create(
        Tenant(code=f"t{number:03}", name=f"Tenant {number}", test_clock=world.clock) for number in range(130)
    )
    BacktestResult.objects.bulk_create(
        BacktestResult(
            run=run, tenant=tenant, before=100, after=40 + number, difference=number - 60, periods=1, lines=[]
        )
        for number, tenant in enumerate(tenants)
    )
    return run


@pytest.mark.parametrize(
    ("shown", "pages", "first"),
    [("more", [50, 20], "t129"), ("less", [50, 10], "t000"), ("same", [1], "t060"), ("all", [50, 50, 31], "t129")],
)
def test_winners_and_losers_are_listed_in_pages_the_largest_change_first(many, shown, pages, first):
    client, place = sign_in("read-only"), address("studio_backtest_tenants", many.public_id)
    found, sizes, after = [], [], None
    while after is not None or not sizes:
        answer = client.get(place, {"show": shown} | ({"after": after} if after else {}))
        rows = [row["tenant"].code for row in answer.context["rows"]]
        found += rows
        sizes.append(len(rows))
        after = answer.context["following"]
    assert (sizes, found[0], len(set(found))) == (pages, first, sum(pages))


def test_pages_cost_the_same_however_many_customers_there_are(world):
    client, run = sign_in("read-only"), done(world, draft(world))

    def costs():
        counts = []
        for name, keys in {
            "studio_backtests": (),
            "studio_backtest": (run.public_id,),
            "studio_backtest_tenants": (run.public_id,),
            "studio_backtest_tenant": (run.public_id, world.tenant.pk),
        }.items():
            with CaptureQueriesContext(connection) as queries:
                assert client.get(address(name, *keys)).status_code == 200
            counts.append(len(queries))
        return counts

    costs()
    few = costs()
    tenants = Tenant.objects.bulk_create(Tenant(code=f"t{number:03}", name="T") for number in range(100))
    BacktestResult.objects.bulk_create(
        BacktestResult(run=run, tenant=tenant, before=1, after=2, difference=1, periods=1) for tenant in tenants
    )
    for _ in range(20):
        done(world, run.version)
    assert costs() == few


@pytest.mark.parametrize("query", [{"show": "everything"}, {"after": "nonsense"}])
def test_an_address_that_no_page_gave_out_is_not_found(world, query):
    run = done(world, draft(world))
    assert sign_in("read-only").get(address("studio_backtest_tenants", run.public_id), query).status_code == 404


def test_what_was_found_is_handed_out_as_a_table(world):
    run = done(world, draft(world))
    answer = sign_in("read-only").get(address("studio_backtest_table", run.public_id))
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert (
        b"".join(answer.streaming_content).decode().splitlines()[1] == f"{world.tenant.code},USD,99.40,99.60,0.20,1,0"
    )


@pytest.mark.parametrize(
    ("role", "looks", "acts"),
    [
        ("product", 200, 302),
        ("finance", 200, 403),
        ("support", 200, 403),
        ("read-only", 200, 403),
        (None, 403, 403),
    ],
)
def test_who_may_look_and_who_may_act(world, role, looks, acts):
    client, version = sign_in(role), draft(world)
    run = done(world, version)
    for name in ("", "_progress", "_tenants", "_table"):
        assert client.get(address(f"studio_backtest{name}", run.public_id)).status_code == looks
    assert client.get(address("studio_backtest_tenant", run.public_id, world.tenant.pk)).status_code == looks
    assert client.get(address("studio_backtests")).status_code == looks
    assert ask(client, version, who="all").status_code == acts
    assert client.post(address("studio_backtest_cancel", run.public_id)).status_code == acts


def test_what_is_not_there_is_not_found(world):
    client, missing = sign_in("product"), "01890000-0000-7000-8000-000000000000"
    assert client.get(address("studio_backtest", missing)).status_code == 404
    assert client.get(address("studio_backtest_start", 0)).status_code == 404
    run = done(world, draft(world))
    assert client.get(address("studio_backtest_tenant", run.public_id, 0)).status_code == 404
