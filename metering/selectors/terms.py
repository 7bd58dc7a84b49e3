"""A published version's terms as metering reads them: the pools of each meter. Immutable, so cached per process."""

from functools import lru_cache

from metering.core.overage import ChargeTerms
from metering.core.pools import MeterPools, Offer, pools_of
from metering.core.thresholds import threshold_of
from metering.core.windows import lengths, window_of
from subscriptions.selectors.catalog import terms_of


@lru_cache(maxsize=4096)
def pools_of_version(version_id: int) -> dict[int, MeterPools]:
    """Return the pools of every meter that the version charges, by meter id. Do not change the answer: it is shared."""
    offers: dict[int, list[Offer]] = {}
    for charge in terms_of(version_id).charges:
        terms = ChargeTerms(
            charge_id=charge.id, version_id=version_id, dimensions=dict(charge.dimensions), price=charge.price
        )
        offers.setdefault(charge.meter_id, []).append(
            Offer(
                terms,
                charge.included,
                charge.at_limit,
                charge.overage_quantity_max,
                thresholds=tuple(threshold_of(document) for document in charge.thresholds),
                windows=tuple(window_of(window, quantity) for window, quantity in charge.limits),
                rollover_max=charge.rollover_max,
                rollover_periods=charge.rollover_periods,
            )
        )
    return {meter_id: pools_of(meter_offers) for meter_id, meter_offers in offers.items()}


@lru_cache(maxsize=65_536)
def window_lengths(version_ids: tuple[int, ...], meter_id: int, pool: str) -> tuple[int, ...]:
    """Return the lengths in seconds of the rolling windows that a pool has in any of these versions; none for most."""
    found = (pools_of_version(version_id).get(meter_id) for version_id in version_ids)
    return lengths(window for pools in found if pools and pool in pools.by_key for window in pools.by_key[pool].windows)
