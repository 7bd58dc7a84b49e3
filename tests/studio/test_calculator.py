"""The calculator's fragment: what it shows of a document that is stored nowhere, and how it refuses."""

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from subscriptions.models import TierVersion
from subscriptions.selectors.catalog import get_version, version_document
from subscriptions.services import catalog
from tests.staff import sign_in
from tests.world import ACTOR, charge, make_meter, publish

pytestmark = pytest.mark.django_db

CHEAPER = {"model": "per_unit", "unit_amount": "0.00018"}


@pytest.fixture
def live():
    make_meter(name="Tokens", unit="tokens")
    return publish("growth")


def ask(version, browser=None, **body):
    browser = browser or sign_in("product")
    address = f"/admin/studio/versions/{version.pk}/calculate/"
    answer = browser.post(address, data=json.dumps(body), content_type="application/json")
    return answer.status_code, answer.json()["html"]


def tokens(quantity):
    return [{"meter": "tokens", "dimensions": {}, "quantity": str(quantity), "events": "1"}]


def document_of(version, **terms):
    document = version_document(get_version(version.tier, version.number))
    return json.loads(json.dumps(document | terms, default=str))


def test_an_unsaved_document_is_priced_beside_the_live_version(live):
    draft = catalog.create_version(tier=live.tier, actor=ACTOR)
    document = document_of(draft, fee="89.00", charges=[charge(price=CHEAPER)])
    status, html = ask(draft, document=document, usage=tokens(1_234_567))

    assert status == 200
    # 1,224,567 tokens beyond the allowance: 220.42206 with the draft, 244.9134 with what is live.
    assert "$309.42" in html
    assert "$343.91" in html
    assert "$34.49, 10 % less" in html
    assert "1,224,567 tokens × $0.00018" in html
    assert "Growth version 1" in html
    assert catalog.version_document(TierVersion.objects.get(pk=draft.pk))["fee"] == "99.00"


def test_without_a_document_what_is_stored_is_priced(live):
    status, html = ask(live, document=None, usage=tokens(1_234_567), against=None)
    assert (status, "$343.91" in html, "less" in html) == (200, True, False)


def test_three_drawings_with_their_figures_as_tables(live):
    _, html = ask(live, usage=tokens(0))
    assert html.count('role="img"') == 3
    assert html.count("Figures as a table") == 3
    assert "Average price per token" in html
    assert "style=" not in html
    assert "<script" not in html


def test_a_dial_for_each_charge_says_which_usage_it_enters(live):
    make_meter("calls", name="Calls", aggregation="count", value_property=None, dimensions=["model"])
    charges = [charge(), charge(meter="calls", dimensions={"model": "a b&c"}, included="0")]
    _, html = ask(live, document=document_of(live, charges=charges))
    assert 'data-meter="calls" data-dimensions="model=a+b%26c"' in html
    assert "Calls (model a b&amp;c)" in html
    assert "In how many events" not in html


def test_events_are_asked_for_where_they_matter(live):
    price = {"model": "percentage", "rate": "2", "fixed_amount": "0.30"}
    usage = [{"meter": "tokens", "dimensions": {}, "quantity": "100", "events": "5"}]
    _, html = ask(live, document=document_of(live, fee="0", charges=[charge(included="0", price=price)]), usage=usage)
    assert "In how many events" in html
    assert "5 events × $0.30" in html
    assert "<strong>$3.50</strong>" in html


def test_what_the_other_version_does_not_price_is_said(live):
    make_meter("calls", name="Calls", aggregation="count", value_property=None)
    usage = [{"meter": "calls", "dimensions": {}, "quantity": "5", "events": "1"}]
    draft = catalog.create_version(tier=live.tier, actor=ACTOR)
    _, html = ask(draft, document=document_of(draft, charges=[charge(meter="calls")]), usage=usage)
    assert "No charge prices 5 of calls." in html


def test_a_document_with_faults_says_what_comes_next(live):
    status, html = ask(live, document={"currency": "USD", "charges": [{"meter": "none"}]})
    assert status == 422
    assert "No price yet." in html
    assert 'data-part="inputs"' not in html


@pytest.mark.parametrize(
    "body",
    [
        {"usage": "much"},
        {"usage": [{"meter": "tokens", "quantity": "-1"}]},
        {"usage": [{"meter": "tokens", "quantity": "much"}]},
        {"usage": [{"meter": "tokens", "quantity": "1", "dimensions": []}]},
        {"usage": [{"meter": "tokens", "quantity": "1", "events": "0.5"}]},
        {"usage": [[]]},
        {"usage": tokens(1) * 201},
        {"against": "1"},
        {"against": True},
        {"against": 2**62},
        {"drawn": "0"},
        {"more": 1},
        [],
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(live, body):
    answer = sign_in("product").post(
        f"/admin/studio/versions/{live.pk}/calculate/", data=json.dumps(body), content_type="application/json"
    )
    assert answer.status_code == 422
    assert "No price yet." in answer.json()["html"]


def test_a_body_that_is_no_json_is_refused(live):
    address = f"/admin/studio/versions/{live.pk}/calculate/"
    answer = sign_in("product").post(address, data=b"{", content_type="application/json")
    assert answer.status_code == 400


def test_an_empty_version_has_a_fee_alone(live):
    status, html = ask(live, document={"currency": "JPY", "fee": "500"}, drawn=3)
    assert (status, "¥500" in html, "charges no usage" in html) == (200, True, True)


def test_another_currency_is_not_compared(live):
    draft = catalog.create_version(tier=live.tier, actor=ACTOR)
    _, html = ask(draft, document=document_of(draft, currency="EUR"), usage=tokens(20_000))
    assert "in another currency" in html
    assert "€101.00" in html


@pytest.mark.parametrize(("role", "status"), [("product", 200), ("finance", 200), ("support", 200), ("read-only", 200)])
def test_every_role_may_calculate(live, role, status):
    assert ask(live, sign_in(role))[0] == status


def test_who_may_not_look_at_prices_may_not_calculate(live):
    address = f"/admin/studio/versions/{live.pk}/calculate/"
    assert sign_in(None).post(address, data="{}", content_type="application/json").status_code == 403
    assert sign_in("product", "bob").get(address).status_code == 405
    assert (
        sign_in("product", "eve")
        .post("/admin/studio/versions/0/calculate/", data="{}", content_type="application/json")
        .status_code
        == 404
    )


def test_the_number_of_queries_does_not_grow_with_the_catalogue(live):
    browser = sign_in("product")
    ask(live, browser)
    with CaptureQueriesContext(
        connection,
    ) as few:
        ask(live, browser)
    for number in range(10):
        publish(f"tier-{number}")
        catalog.create_version(tier=live.tier, actor=ACTOR)
    with CaptureQueriesContext(connection) as many:
        ask(live, browser)
    assert len(many) == len(few)
