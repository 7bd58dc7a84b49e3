"""
A draft is saved and published at once, while usage comes in, tiers are changed and a period is closed: what is published is what was read.

Either the save comes first, and what was read is not published; or the publication does, and nothing is saved any more. Whatever came of it is then
read from the books, as in `test_change_races`: chain, fees, allowances and usage are those of some serial order.
"""

from datetime import timedelta
from random import Random

import pytest

from billing_site.http.problems import DomainError
from invoices.services.closing import close_periods
from invoices.services.due import run_due
from invoices.services.publishing import plan
from subscriptions.models import Approval, BillingPeriod, Publication
from subscriptions.services import catalog, publications
from subscriptions.services.approvals import approve
from tests.races import interleaved
from tests.services.test_change_races import BOUNDARY, MIDDLE, TIERS, Round, deadlocks, in_turn
from tests.world import charge, make_meter, publish

pytestmark = pytest.mark.django_db(transaction=True)

ANN, BEN = "staff:ann", "staff:ben"


def document(fee, included):
    return {"currency": "USD", "fee": fee, "charges": [charge(included=str(included), at_limit="deny")]}


def make_tiers(number):
    """Publish the tiers of one round, and draft the second version of the first."""
    versions = {
        name: publish(f"{name}-of-{number}", fee=fee, charges=[charge(included=str(included), at_limit="deny")])
        for name, (fee, included) in TIERS.items()
        if name != "basic-2"
    }
    draft = catalog.create_version(tier=versions["basic"].tier, actor=ANN, document=document(*TIERS["basic-2"]))
    return versions | {"basic-2": draft}


def attempt(call):
    """Return what became of a call: nothing special, or the name of its refusal."""
    try:
        call()
    except DomainError as refusal:
        return type(refusal).__name__
    return "done"


def one_round(number, settings):
    settings.PUBLISHING_NEEDS_APPROVAL = False
    versions = make_tiers(number)
    settings.PUBLISHING_NEEDS_APPROVAL = True
    told = Round(number, versions, BOUNDARY + timedelta(hours=2))
    draft = versions["basic-2"]
    period = BillingPeriod.objects.get(subscription=told.subscription)
    late, new = BOUNDARY - timedelta(days=1), BOUNDARY + timedelta(hours=1)

    def save():
        return attempt(
            lambda: catalog.save_draft(
                version_id=draft.pk, document=document("77", 777), expected_revision=1, actor=ANN
            )
        )

    def go_live():
        seen = {"version_id": draft.pk, "expected_revision": 1, "now": told.now}
        attempt(lambda: approve(**seen, actor=BEN))
        return attempt(lambda: catalog.publish(**seen, cohort="renewal", effective_at=MIDDLE, actor=ANN))

    # Who changes a price and who publishes it begin in an order that the dice choose.
    makers = [save, go_live]
    told.dice.shuffle(makers)
    results = interleaved(
        makers[0],
        makers[1],
        told.change("small"),
        lambda: close_periods(period_ids=[period.pk], now=told.now),
        lambda: run_due(until=told.now),
        told.use_some(late, new, new),
        in_turn(told.use_some(new, late), lambda: plan(now=told.now), told.authorize_some(2)),
        dice=told.dice,
    )
    plan(now=told.now)
    told.check(results)
    outcome = dict(zip([maker.__name__ for maker in makers], results, strict=False))
    draft.refresh_from_db()
    if draft.is_published:
        assert outcome == {"save": "VersionPublished", "go_live": "done"}
        assert (draft.revision, str(draft.fee)) == (1, "120.000000")
        assert Approval.objects.get(version=draft).approved_by == BEN
    else:
        assert outcome == {"save": "done", "go_live": "StaleRevision"}
        assert (draft.revision, str(draft.fee)) == (2, "77.000000")
        assert not Publication.objects.filter(version=draft).exists()
    return draft.is_published


@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=pytest.mark.long)])
def test_what_is_published_while_everything_moves_is_what_was_read(settings, rounds):
    make_meter()
    before = deadlocks()
    published = [one_round(number, settings) for number in range(rounds)]
    assert len(published) == rounds
    assert deadlocks() == before


def test_one_of_undoing_and_publishing_again_comes_first():
    make_meter()
    versions = make_tiers(0)
    draft, later = versions["basic-2"], BOUNDARY + timedelta(days=60)
    about = {"version_id": draft.pk, "now": BOUNDARY, "actor": ANN}
    for number in range(4):
        if not Publication.objects.filter(version=draft, undone_at=None).exists():
            catalog.publish(**about, cohort="renewal", effective_at=later)
        results = interleaved(
            lambda: attempt(lambda: publications.undo_publication(**about)),
            lambda: attempt(lambda: catalog.publish(**about, cohort="renewal", effective_at=later)),
            lambda: attempt(lambda: publications.undo_publication(**about)),
            dice=Random(number),
        )
        left = Publication.objects.filter(version=draft, undone_at=None).count()
        undone = [results[0], results[2]].count("done")
        published = results[1] == "done"
        assert left == 1 + published - undone
        assert set(results) <= {"done", "NoPublicationToUndo", "VersionPublished"}
