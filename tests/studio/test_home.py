"""The studio's first page, and who may come in."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from subscriptions.models import TierVersion
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.offers import OFFERS_MAX
from subscriptions.services import catalog
from tests.staff import sign_in
from tests.world import ACTOR, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

HOME = "/admin/studio/"


@pytest.mark.parametrize("role", ["product", "finance", "support", "read-only"])
def test_every_role_sees_the_tiers(role):
    make_world()
    answer = sign_in(role).get(HOME)

    assert answer.status_code == 200
    assert "Version 1" in answer.content.decode()


def test_who_is_not_signed_in_is_asked_to():
    assert Client().get(HOME).headers["Location"].startswith("/admin/login/")


def test_who_may_not_look_at_prices_is_refused():
    assert sign_in(None).get(HOME).status_code == 403


def test_a_tier_shows_what_is_live_what_is_made_and_what_is_to_come():
    make_meter()
    live = publish("growth")
    coming = catalog.create_version(tier=live.tier, actor=ACTOR, document={"currency": "USD", "fee": "109"})
    tomorrow = wall_now() + timedelta(days=1)
    catalog.publish(version_id=coming.pk, now=wall_now(), effective_at=tomorrow, cohort="renewal", actor=ACTOR)
    catalog.create_version(
        tier=live.tier, actor=ACTOR, document={"currency": "USD", "fee": "1190", "interval": "year", "fee_every": 1}
    )
    page = sign_in("product").get(HOME).content.decode()

    assert "$99.00 every month" in page
    assert f"from {tomorrow:%Y-%m-%d %H:%M} UTC, for new subscribers, and subscriptions at their next renewal" in page
    assert "$1,190.00 every year" in page
    assert page.count("New draft") == 1


def test_who_may_only_look_is_offered_nothing_to_make():
    make_meter()
    publish("growth")

    assert "New draft" not in sign_in("finance").get(HOME).content.decode()


def test_an_empty_catalogue_says_so():
    assert "There is no tier yet." in sign_in("product").get(HOME).content.decode()


def test_its_queries_do_not_grow_with_the_tiers_and_a_long_list_has_pages():
    client = sign_in("product")
    make_meter()
    publish("a0")
    with_one = _queries(client)
    for number in range(1, OFFERS_MAX + 2):
        tier = publish(f"a{number}").tier
        catalog.create_version(tier=tier, actor=ACTOR)

    assert _queries(client) == with_one
    first = client.get(HOME).content.decode()
    codes = sorted(f"a{number}" for number in range(OFFERS_MAX + 2))
    assert f"?after={codes[OFFERS_MAX - 1]}" in first
    second = client.get(HOME, {"after": codes[OFFERS_MAX - 1]}).content.decode()
    assert second.count('class="panel offer"') == 2
    assert "?after=" not in second


def test_a_new_draft_copies_the_newest_version_and_opens_in_the_editor():
    make_meter()
    tier = publish("growth").tier
    answer = sign_in("product").post(f"/admin/studio/tiers/{tier.pk}/draft/")
    draft = TierVersion.objects.get(tier=tier, number=2)

    assert answer.headers["Location"] == f"/admin/studio/versions/{draft.pk}/"
    assert (draft.fee, draft.charges.get().included) == (99, 10000)


def _queries(client):
    with CaptureQueriesContext(connection) as captured:
        assert client.get(HOME).status_code == 200
    return len(captured)
