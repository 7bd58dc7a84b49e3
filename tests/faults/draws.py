"""What the simulator's story is made of, drawn by its dice: quantities, prices, and versions as documents of the API."""

from decimal import Decimal
from random import Random
from typing import Any


def quantity(dice: Random) -> Decimal:
    return dice.choice(
        [
            Decimal(dice.randint(0, 4000)),
            Decimal(dice.randint(0, 4_000_000)) / 1000,
            Decimal(dice.randint(1, 10**14)) / 10**12,
        ]
    )


def document(dice: Random) -> dict[str, Any]:
    charges = []
    if dice.random() < 0.9:
        charges.append(
            {
                "kind": "usage",
                "meter": "tokens",
                "included": str(dice.choice([0, 500, 10_000])),
                "price": price(dice),
            }
        )
    if not charges or dice.random() < 0.5:
        opus: dict[str, Any] = {
            "kind": "usage",
            "meter": "tokens",
            "dimensions": {"model": "opus"},
            "price": price(dice),
        }
        charges.append(opus | ({"included": "2000"} if dice.random() < 0.5 else {}))
    if dice.random() < 0.5:
        charges.append({"kind": "usage", "meter": "calls", "included": str(dice.choice([0, 3])), "price": price(dice)})
    return {
        "currency": "USD",
        "interval": dice.choice(["month", "month", "week"]),
        "fee": dice.choice(["0", "20.00", "99.00", "499.99"]),
        "grace_hours": dice.choice([0, 1]),
        "charges": charges,
    }


def price(dice: Random) -> dict[str, Any]:
    model = dice.choice(["flat", "per_unit", "package", "graduated", "volume"])
    if model == "flat":
        return {"model": model, "amount": "7.50"}
    if model == "per_unit":
        return {"model": model, "unit_amount": unit_amount(dice)}
    if model == "package":
        return {"model": model, "size": str(dice.choice([7, 1000])), "amount": "0.20"}
    limits = [*sorted(dice.sample([10, 1000, 2500, 20_000], dice.randint(1, 3))), None]
    bands = [
        {
            "up_to": None if limit is None else str(limit),
            "unit_amount": unit_amount(dice),
            "flat_amount": dice.choice(["0", "1.25"]),
        }
        for limit in limits
    ]
    return {"model": model, "bands": bands}


def unit_amount(dice: Random) -> str:
    return dice.choice(["0", "0.0002", "0.00015", "0.003333333333", "1.1"])
