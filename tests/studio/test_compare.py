"""Two versions side by side."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from subscriptions.selectors.catalog import get_version, version_document
from subscriptions.selectors.describing import version_changes_in_words, version_in_words
from subscriptions.services import catalog
from tests.staff import sign_in
from tests.world import ACTOR, charge, make_meter, publish

pytestmark = pytest.mark.django_db


@pytest.fixture
def versions():
    """Return a live version and a cheaper draft of its tier."""
    make_meter(name="Tokens", unit="tokens")
    live = publish("growth")
    cheaper = charge(price={"model": "per_unit", "unit_amount": "0.00018"})
    document = {"currency": "USD", "interval": "month", "fee": "99.00", "charges": [cheaper]}
    return live, catalog.create_version(tier=live.tier, document=document, actor=ACTOR)


def compare(left="", right="", role="product"):
    return sign_in(role).get("/admin/studio/compare/", {"left": left, "right": right})


def test_the_page_says_what_changes(versions):
    live, draft = versions
    html = compare(live.pk, draft.pk).content.decode()
    assert "Overage of Tokens: $0.0002 → $0.00018 per token" in html
    assert html.count('class="changed"') == 1
    assert "Growth version 2 (draft)" in html
    assert f'data-url="/admin/studio/versions/{draft.pk}/calculate/" data-against="{live.pk}"' in html


def test_a_version_and_itself_differ_in_nothing(versions):
    live, _ = versions
    assert "Nothing: both say the same." in compare(live.pk, live.pk).content.decode()


@pytest.mark.parametrize(("left", "right"), [("", ""), ("no", "1e3"), ("9" * 18, "٣"), ("9" * 30, "")])
def test_without_two_versions_the_page_asks_which(versions, left, right):
    answer = compare(left, right)
    assert answer.status_code == 200
    assert "Choose two versions" in answer.content.decode()


def test_a_version_alone_is_compared_with_what_is_live(versions):
    _, draft = versions
    html = sign_in("product").get("/admin/studio/compare/", {"right": draft.pk}).content.decode()
    assert "What changes from Growth version 1 to Growth version 2 (draft)" in html


def test_who_may_look_may_compare(versions):
    assert compare(role="read-only").status_code == 200
    assert sign_in(None, "bob").get("/admin/studio/compare/").status_code == 403


def test_versions_and_documents_are_compared_alike(versions):
    live, draft = (get_version(one.tier, one.number) for one in versions)
    document = version_document(draft)
    assert version_changes_in_words(live, draft) == version_changes_in_words(live, document)
    assert version_changes_in_words(live, draft) == ["Overage of Tokens: $0.0002 → $0.00018 per token"]
    assert version_in_words(draft) == version_in_words(document)


def test_meters_of_one_name_are_told_apart(versions):
    live, _ = versions
    make_meter("calls", name="Tokens", aggregation="count", value_property=None)
    document = version_document(get_version(live.tier, 1))
    more = document | {"charges": [*document["charges"], charge(meter="calls", included="0")]}
    assert "Allowance of Tokens [calls]: new, none" in version_changes_in_words(document, more)


def test_the_number_of_queries_does_not_grow_with_the_catalogue(versions):
    live, draft = versions
    browser = sign_in("product")
    address = f"/admin/studio/compare/?left={live.pk}&right={draft.pk}"
    browser.get(address)
    with CaptureQueriesContext(connection) as few:
        browser.get(address)
    for number in range(10):
        publish(f"tier-{number}")
    with CaptureQueriesContext(connection) as many:
        browser.get(address)
    assert len(many) == len(few)
