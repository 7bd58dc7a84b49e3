"""Quotes over HTTP: what they refuse, and that they write nothing; the golden figures stand in `test_invoices_api`."""

import pytest
from django.db import connection

from tests.api.test_invoices_api import Api
from tests.world import charge, make_meter, publish

pytestmark = pytest.mark.django_db

PER_UNIT = {"model": "per_unit", "unit_amount": "0.0002"}
PERCENTAGE = {"model": "percentage", "rate": "2.9", "fixed_amount": "0.30"}


@pytest.fixture
def api():
    return Api()


def quote(api, **body):
    return api.post("/quotes", body)


def test_a_quote_explains_itself(api):
    answer = quote(api, price=PER_UNIT, included="10000", quantity="12345").json()
    component = {
        "kind": "units",
        "band": None,
        "quantity": "2345",
        "unit_amount": "0.0002",
        "flat_amount": None,
        "total": "0.469",
    }
    assert (answer["amount"], answer["amount_precise"], answer["currency"]) == ("0.47", "0.469", "USD")
    assert answer["components"] == [component]
    assert [(line["kind"], line["quantity"], line["amount"]) for line in answer["lines"]] == [
        ("overage", "2345", "0.47")
    ]


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "0"), ("KWD", "0.469"), ("USD", "0.47")])
def test_an_amount_has_the_decimals_of_its_currency(api, currency, amount):
    assert quote(api, price=PER_UNIT, quantity="2345", currency=currency).json()["amount"] == amount


def test_a_value_is_priced_whole_with_its_events(api):
    answer = quote(api, price=PERCENTAGE, value="100.00", events=3).json()
    assert answer["amount"] == "3.80"  # 2.90 and three times 0.30


def test_a_price_with_bounds_per_event_is_quoted_for_one_event(api):
    price = PERCENTAGE | {"minimum_per_event": "1.75"}
    assert quote(api, price=price, value="10").json()["amount"] == "1.75"
    assert quote(api, price=price, value="10", events=2).status_code == 422


def test_a_minimum_spend_is_a_line_of_its_own(api):
    answer = quote(api, price=PER_UNIT | {"amount_min": "5"}, quantity="2345").json()
    assert [(line["kind"], line["amount"]) for line in answer["lines"]] == [("overage", "0.47"), ("minimum", "4.53")]
    assert answer["amount"] == "5.00"


def test_a_tier_without_usage_costs_its_fee(api):
    make_meter()
    publish("quoted")
    assert quote(api, tier="quoted").json()["amount"] == "99.00"
    assert quote(api, tier="quoted", version=1).json()["amount"] == "99.00"


def test_the_allowance_of_a_pool_is_shared_and_an_own_pool_is_its_own(api):
    make_meter(dimensions=["model"])
    own = charge(dimensions={"model": "opus"}, included="100", price={"model": "per_unit", "unit_amount": "0.01"})
    publish("quoted", fee="0", charges=[charge(), own])
    usage = [
        {"meter": "tokens", "dimensions": {"model": "opus"}, "quantity": 150},
        {"meter": "tokens", "dimensions": {"model": "haiku"}, "quantity": 10_000},
        {"meter": "tokens", "quantity": 5_000},
    ]
    answer = quote(api, tier="quoted", usage=usage).json()
    assert sorted((line["quantity"], line["amount"]) for line in answer["lines"]) == [("50", "0.50"), ("5000", "1.00")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"price": PER_UNIT},
        {"price": PER_UNIT, "quantity": "1", "value": "1"},
        {"price": PER_UNIT, "quantity": "-1"},
        {"price": PER_UNIT, "quantity": "1e3"},
        {"price": PER_UNIT, "quantity": "0.0000000000001"},
        {"price": PER_UNIT, "quantity": "1", "currency": "XXX"},
        {"price": PER_UNIT, "quantity": "1", "tier": "quoted"},
        {"price": PER_UNIT, "quantity": "1", "events": -1},
        {"price": {"model": "per_unit"}, "quantity": "1"},
        {"price": "free", "quantity": "1"},
        {"price": PER_UNIT, "quantity": True},
        {"tier": "quoted", "usage": [{"meter": "nothing", "quantity": "1"}]},
        {"tier": "quoted", "usage": [{"meter": "tokens"}]},
        {"tier": "quoted", "usage": [{"meter": "tokens", "quantity": "1"}] * 101},
        {"tier": "quoted", "usage": [{"meter": "tokens", "quantity": "1", "dimension": {}}]},
    ],
)
def test_what_cannot_be_quoted_is_refused(api, body):
    make_meter()
    publish("quoted")
    response = quote(api, **body)
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")


def test_an_unknown_tier_is_not_found(api):
    assert quote(api, tier="nothing").status_code == 404


def test_a_quote_writes_nothing(api):
    make_meter()
    publish("quoted")
    statements = []

    def note(execute, sql, params, many, context):
        statements.append(sql.split()[0])
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        quote(api, tier="quoted", usage=[{"meter": "tokens", "quantity": "20000"}])
    assert not {"INSERT", "UPDATE", "DELETE"} & set(statements)


def test_a_key_for_ingestion_gets_no_quotes():
    assert quote(Api("ingest"), price=PER_UNIT, quantity="1").status_code == 403
