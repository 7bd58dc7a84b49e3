"""
Which charges of a version share an allowance.

All charges of a meter share the pool of its default charge, unless a charge states an allowance or a cap of its own: then it is a
pool of its own, and usage that it matches touches no other (semantics, "Pools and dimensions"). A rolling window is a cap, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from metering.core.measuring import DimensionSet, dimension_key
from metering.core.overage import ChargeId, ChargeTerms, match
from metering.core.thresholds import Threshold
from metering.core.windows import Window
from subscriptions.core.prices import Price, PriceModel, ZeroUsage

SHARED = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a version says of one charge: its price terms, allowance and limits."""

    terms: ChargeTerms
    # None: shares the pool of the meter's default charge.
    included: Decimal | None
    at_limit: str
    overage_quantity_max: Decimal | None
    thresholds: tuple[Threshold, ...] = ()
    # Rolling windows.
    windows: tuple[Window, ...] = ()
    # How much of what is left of the allowance moves on when a period closes, and for how many periods.
    rollover_max: Decimal = Decimal(0)
    rollover_periods: int = 1

    @property
    def pool_key(self) -> str:
        """The pool that this charge burns from."""
        is_apart = self.included is not None or self.overage_quantity_max is not None or bool(self.windows)
        own = self.terms.dimensions and is_apart
        return dimension_key(tuple(sorted(self.terms.dimensions.items()))) if own else SHARED


@dataclass(frozen=True, slots=True)
class Pool:
    """Charges that share an allowance, and what the gate answers at its end."""

    key: str
    included: Decimal
    at_limit: str
    overage_quantity_max: Decimal | None
    charges: tuple[ChargeTerms, ...]
    # What each unit of its overage costs, where one charge prices all of it alike; None where rating must look closer.
    unit_amount: Decimal | None
    # Those of all its charges: what they look at is the pool.
    thresholds: tuple[Threshold, ...]
    windows: tuple[Window, ...] = ()
    # Of its leading charge.
    rollover_max: Decimal = Decimal(0)
    rollover_periods: int = 1


@dataclass(frozen=True, slots=True)
class MeterPools:
    """The pools of one meter in one version."""

    by_key: dict[str, Pool]
    charges: tuple[ChargeTerms, ...]
    _key_of_charge: dict[ChargeId, str]

    def key_for(self, dimension_set: DimensionSet) -> str:
        """Return the pool that usage with these values belongs to; the shared one where no charge matches."""
        if len(self.by_key) == 1:
            return SHARED
        charge = match(self.charges, dimension_set)
        return SHARED if charge is None else self._key_of_charge[charge.charge_id]

    def charge_for(self, dimension_set: DimensionSet) -> ChargeTerms | None:
        """Return the charge that prices these values; None where none does (such usage is unpriced)."""
        return match(self.charges, dimension_set)


def pools_of(offers: Sequence[Offer]) -> MeterPools:
    """
    Sort a meter's charges into pools.

    There is always a shared pool, so that usage which no charge matches has a place in which it is listed as unpriced. Its
    allowance and limits are those of the default charge; 0 and `allow` without one.
    """
    default = next((offer for offer in offers if not offer.terms.dimensions), None)
    pools = {}
    for key in dict.fromkeys([SHARED, *(offer.pool_key for offer in offers)]):
        leader = default if key == SHARED else next(offer for offer in offers if offer.pool_key == key)
        members = [offer for offer in offers if offer.pool_key == key]
        charges = tuple(offer.terms for offer in members)
        pools[key] = Pool(
            key=key,
            included=(leader.included if leader else None) or Decimal(0),
            at_limit=leader.at_limit if leader else "allow",
            overage_quantity_max=leader.overage_quantity_max if leader else None,
            charges=charges,
            unit_amount=_unit_amount(charges),
            thresholds=tuple(dict.fromkeys(one for offer in members for one in offer.thresholds)),
            windows=leader.windows if leader else (),
            rollover_max=leader.rollover_max if leader else Decimal(0),
            rollover_periods=leader.rollover_periods if leader else 1,
        )
    return MeterPools(
        by_key=pools,
        charges=tuple(offer.terms for offer in offers),
        _key_of_charge={offer.terms.charge_id: offer.pool_key for offer in offers},
    )


def _unit_amount(charges: Sequence[ChargeTerms]) -> Decimal | None:
    if len(charges) != 1 or charges[0].dimensions:
        return None
    price = charges[0].price
    # A price without any option is its unit amount alone; a minimum spend is no part of what overage costs so far.
    plain_price = price.model == PriceModel.PER_UNIT and price == Price(
        PriceModel.PER_UNIT, unit_amount=price.unit_amount, amount_min=price.amount_min
    )
    return price.unit_amount if plain_price else None


def costs_nothing_unused(pool: Pool) -> bool:
    """Whether the pool's price is certainly 0 as long as nothing is overage."""
    return all(
        charge.price.model != PriceModel.FLAT and charge.price.zero_usage == ZeroUsage.ZERO for charge in pool.charges
    )
