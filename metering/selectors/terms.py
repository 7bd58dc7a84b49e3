"""
A published version's terms as metering reads them: the pools of each meter. Immutable, so cached per process.

A version has two sets of them: its own, and those for trials. A terms id names either: it is the version's id, or, for trials, that id negated
(`subscriptions.selectors.agreement.terms_id_in`). Whatever says here which terms are in force says it by such an id.
"""

from dataclasses import replace
from decimal import Decimal
from functools import lru_cache

from metering.core.overage import ChargeTerms
from metering.core.pools import MeterPools, Offer, pools_of
from metering.core.thresholds import threshold_of
from metering.core.windows import lengths, window_of
from subscriptions.core.prices import Price, PriceModel, ZeroUsage
from subscriptions.selectors.agreement import version_of_terms
from subscriptions.selectors.catalog import UsageCharge, VersionTerms, terms_of

# In SQL, of a period `p`: the terms on which it begins, and, in the order of time, since when other versions are in force, and their terms.
TERMS_OF_PERIOD = "CASE p.kind WHEN 'trial' THEN -p.version_id ELSE p.version_id END"
TERMS_OF_CHANGE = "CASE p.kind WHEN 'trial' THEN -x.to_version_id ELSE x.to_version_id END"
_CHANGES = "FROM subscriptions_tierchange x WHERE x.period_id = p.id ORDER BY x.effective_at, x.id"
CHANGES_OF_PERIOD = f"ARRAY(SELECT x.effective_at {_CHANGES}), ARRAY(SELECT {TERMS_OF_CHANGE} {_CHANGES})"

_FREE = Price(PriceModel.PER_UNIT, unit_amount=Decimal(0))


@lru_cache(maxsize=4096)
def pools_of_version(terms_id: int) -> dict[int, MeterPools]:
    """
    Return the pools of every meter that the version charges, by meter id, on the terms of this id. Do not change the answer: it is shared.

    In a trial a charge includes what it includes in trials (if it says nothing of them, what it includes), and its pool is closed at its
    end and costs nothing; where a version bills the overage of trials, at its end it is as ever and has its price. Nothing rolls over.
    """
    return pools_of_terms(terms_of(version_of_terms(terms_id)), terms_id)


def pools_of_terms(terms: VersionTerms, terms_id: int) -> dict[int, MeterPools]:
    """Return the same of a version that may still be a draft, and so is not remembered."""
    offer_of = _offer_in_trial if is_of_trial(terms_id) else _offer
    offers: dict[int, list[Offer]] = {}
    for charge in terms.charges:
        offers.setdefault(charge.meter_id, []).append(offer_of(charge, terms_id, terms))
    return {meter_id: pools_of(meter_offers) for meter_id, meter_offers in offers.items()}


def is_of_trial(terms_id: int) -> bool:
    """Whether these are the terms that a version has for trials."""
    return terms_id < 0


def bills_overage(terms_id: int) -> bool:
    """Whether what is used beyond the allowance is billed on these terms; in a trial only where its version says so."""
    return _bills_overage(terms_of(version_of_terms(terms_id)), terms_id)


def _bills_overage(terms: VersionTerms, terms_id: int) -> bool:
    return not is_of_trial(terms_id) or terms.trial_overage == "bill"


def _offer(charge: UsageCharge, terms_id: int, _: VersionTerms) -> Offer:
    return Offer(
        ChargeTerms(charge_id=charge.id, version_id=terms_id, dimensions=dict(charge.dimensions), price=charge.price),
        charge.included,
        charge.at_limit,
        charge.overage_quantity_max,
        thresholds=tuple(threshold_of(document) for document in charge.thresholds),
        windows=tuple(window_of(window, quantity) for window, quantity in charge.limits),
        rollover_max=charge.rollover_max,
        rollover_periods=charge.rollover_periods,
    )


def _offer_in_trial(charge: UsageCharge, terms_id: int, terms: VersionTerms) -> Offer:
    is_billed = _bills_overage(terms, terms_id)
    offer = _offer(charge, terms_id, terms)
    return replace(
        offer,
        terms=replace(offer.terms, price=_price_of_usage(charge.price) if is_billed else _FREE),
        included=charge.included if charge.trial_included is None else charge.trial_included,
        at_limit=charge.at_limit if is_billed else "deny",
        rollover_max=Decimal(0),
    )


def _price_of_usage(price: Price) -> Price:
    """Return a price without what it costs whatever is used: a trial bills overage alone."""
    if price.model == PriceModel.FLAT:
        return _FREE
    return replace(price, amount_min=None, zero_usage=ZeroUsage.ZERO)


@lru_cache(maxsize=65_536)
def window_lengths(version_ids: tuple[int, ...], meter_id: int, pool: str) -> tuple[int, ...]:
    """Return the lengths in seconds of the rolling windows that a pool has in any of these versions; none for most."""
    found = (pools_of_version(version_id).get(meter_id) for version_id in version_ids)
    return lengths(window for pools in found if pools and pool in pools.by_key for window in pools.by_key[pool].windows)
