"""
Seeded stories against the model: every balance and every invoice to the cent, and the audit.

`SIM_SEEDS=17 pytest tests/faults/test_simulator.py` tells one story again, `SIM_SEEDS=0-199` many; `SIM_STEPS` is their length.
"""

import os
from decimal import Decimal
from fractions import Fraction
from math import floor
from time import monotonic

import pytest

from invoices.core import lines
from tests import oracle
from tests.faults.model import Period
from tests.faults.simulator import Differs, Simulator

pytestmark = pytest.mark.django_db(transaction=True)


def seeds(default: str) -> range:
    first, _, last = os.environ.get("SIM_SEEDS", default).partition("-")
    return range(int(first), int(last or first) + 1)


def steps(default: int) -> int:
    return int(os.environ.get("SIM_STEPS", default))


@pytest.mark.parametrize("seed", seeds("0-5"))
def test_a_short_story_agrees_with_the_model(seed):
    Simulator(seed).run(steps(60))


@pytest.mark.long
@pytest.mark.parametrize("seed", seeds("0-199"), ids="seed {}".format)
def test_a_long_story_agrees_with_the_model(seed, record_property):
    simulator, started = Simulator(seed), monotonic()
    simulator.run(steps(500))
    record_property("operations", sum(simulator.counts.values()))
    record_property("seconds", monotonic() - started)
    record_property("throughput", "operations/s in each process, checks included")


class TestADifferenceIsNoticed:
    """A comparison that never fails proves nothing."""

    def test_in_a_balance(self, monkeypatch):
        monkeypatch.setattr(oracle.Grant, "is_live", lambda grant, instant: False)
        with pytest.raises(Differs, match="seed 0: used and covered of org-0-"):
            Simulator(0).run(60)

    def test_of_a_cent_on_an_invoice(self, monkeypatch):
        monkeypatch.setattr(lines, "quantize", lambda amount, currency: Decimal(floor(amount * 100)) / 100)
        with pytest.raises(Differs, match=r"seed 1: charge \d of org-1-"):
            Simulator(1).run(60)

    def test_in_what_a_change_of_tier_includes(self, monkeypatch):
        monkeypatch.setattr(Period, "allowance", lambda period, included: included(period.terms))
        with pytest.raises(Differs, match="seed 7: used and covered of org-7-"):
            Simulator(7).run(60)

    def test_in_what_a_change_of_tier_costs(self, monkeypatch):
        monkeypatch.setattr(Period, "left_from", lambda period, instant: Fraction(1, 2))
        with pytest.raises(Differs, match="seed 7: prorations of org-7-"):
            Simulator(7).run(60)
