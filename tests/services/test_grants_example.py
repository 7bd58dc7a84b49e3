"""The worked example of docs/grants.md, played: every figure of its table is what is left."""

from pathlib import Path

import pytest

from metering.models import CreditGrant, MeterBalance
from metering.selectors.grants import standing_of
from tests.services.test_grants import give, move
from tests.world import at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db

DOCUMENT = Path(__file__).parent.parent.parent / "docs/grants.md"


def rows():
    """Return the rows of the worked example as day and figures; a figure that is not there yet is None."""
    table = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| 2026-")]
    for line in table:
        day, _, *figures = (cell.strip() for cell in line.strip("|").split("|"))
        yield day, [int(figure) if figure else None for figure in figures]


def left(world, **conditions):
    grants = CreditGrant.objects.filter(tenant=world.tenant, **conditions)
    if not grants:
        return None
    return sum(standing_of(grant, at=world.now).remaining for grant in grants)


def test_every_figure_of_the_table_is_what_is_left():
    make_meter()
    world = make_world(version=publish(charges=[charge(rollover_max="2000")]))
    steps = {
        "2026-06-05": lambda: world.use(4000),
        "2026-06-10": lambda: give(world, 3000, until=at("2026-06-20 00:00")),
        "2026-06-12": lambda: world.use(5000),
        "2026-06-15": lambda: give(world, 5000, kind="purchased"),
        "2026-06-18": lambda: world.use(2500),
        "2026-06-19": lambda: world.use(500, time=at("2026-06-09 00:00")),
        "2026-07-02": lambda: None,
        "2026-07-03": lambda: world.use(12_000),
        "2026-07-04": lambda: give(
            world, 2000, since=at("2026-07-01 00:00"), until=at("2026-07-05 00:00"), kind="purchased"
        ),
        "2026-07-20": lambda: world.use(7000),
    }
    played = []
    for day, _ in rows():
        move(world, f"{day} 00:00")
        steps[day]()
        overage = MeterBalance.objects.order_by("-period__sequence")[0].overage
        kinds = ({"kind": "allowance"}, {"kind": "promotional"}, {"kind": "purchased"}, {"kind": "rollover"})
        played.append((day, [left(world, **kind) for kind in kinds] + [overage]))
    assert played == list(rows())
    assert len(played) == len(steps)
