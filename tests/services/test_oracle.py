"""The ledger against its slow twin: any order, any repetition, any batching of the same events gives the oracle's position."""

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from metering.services.reversing import reverse_event
from tests import oracle
from tests.world import ACTOR, JUNE, make_world

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("seed", range(6))
def test_shuffled_late_and_repeated_events_give_the_position_of_the_oracles_walk(seed):
    dice = random.Random(seed)
    world = make_world(now=JUNE + timedelta(days=25))
    grants = [oracle.Grant("allowance", Decimal(10000), JUNE, JUNE + timedelta(days=30))]
    sent, kept = [], []
    for number in range(120):
        tokens = Decimal(dice.randint(0, 400_000)) / 1000
        time = JUNE + timedelta(seconds=dice.randint(0, 25 * 24 * 3600))
        sent.append(world.event(tokens, time=time, id=f"o{number}"))
        kept.append(oracle.Event(time, tokens))
    stream = sent + dice.sample(sent, 40)
    dice.shuffle(stream)
    reports = []
    while stream:
        size = dice.randint(1, 25)
        reports.append(world.record(*stream[:size]))
        del stream[:size]

    expected = oracle.position(kept, grants)
    balance = world.balance()
    assert (balance.used, balance.covered) == (expected.used, expected.covered)
    assert balance.used - balance.covered == expected.overage

    accepted = [outcome.event_id for report in reports for outcome in report.outcomes if outcome.status == "accepted"]
    assert len(accepted) == 120
    for event_id in dice.sample(accepted, 120):
        reverse_event(event_id=event_id, reason="all of it", actor=ACTOR)
    assert world.position() == ("0", "0", "0")
