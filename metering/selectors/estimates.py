"""What a call would cost before it has run, by the function that will bill it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

from billing_site.database import one_state
from metering.core.measuring import DimensionSet
from metering.core.overage import SegmentUsage, match, price_pool
from metering.selectors.overage import BalanceFigures, charges_in_force, segments_of
from subscriptions.core.money import exact, precise
from subscriptions.core.pricing import clamp_event

_ZERO = Decimal(0)


class Estimator:
    """
    Prices further usage of one pool: F(overage after all holds + the call) − F(overage after all holds), unrounded.

    F is the price of the period as it stands, with the usage to come in its newest segment. Holds are priced as usage of the call's own
    dimension set. Negative where the call would reach a cheaper band. `segments` are the period's, where they have been read with its balance.
    """

    def __init__(
        self,
        row: BalanceFigures,
        versions: Mapping[datetime, int],
        *,
        version_id: int,
        segments: Sequence[SegmentUsage] | None = None,
    ) -> None:
        if segments is None:
            with one_state():
                segments = segments_of([row], {row.period_id: versions})[row.pk]
        self._segments = segments
        self._charges = charges_in_force(row, versions)
        # Usage to come belongs to the last segment of the version that is in force.
        places = [place for place, segment in enumerate(self._segments) if segment.version_id == version_id]
        self._place = places[-1]

    def amount(self, names: DimensionSet, quantity: Decimal, *, held: Decimal, remaining: Decimal) -> Decimal:
        """Return what a call of this quantity adds; `remaining` is what is left of the grants in force, before all holds."""
        with exact():
            after = held + quantity
        difference = self._price(names, after, remaining, calls=1) - self._price(names, held, remaining, calls=0)
        return precise(difference)

    def _price(self, names: DimensionSet, quantity: Decimal, remaining: Decimal, *, calls: int) -> Fraction:
        segments = list(self._segments)
        segments[self._place] = self._with(segments[self._place], names, quantity, remaining, calls)
        return price_pool(segments, self._charges).amount

    def _with(
        self, segment: SegmentUsage, names: DimensionSet, quantity: Decimal, remaining: Decimal, calls: int
    ) -> SegmentUsage:
        in_force = [charge for charge in self._charges if charge.version_id == segment.version_id]
        charge = match(in_force, names)
        clamped = dict(segment.clamped)
        with exact():
            if charge is not None and charge.price.clamps_events and quantity:
                clamped[names] = clamped.get(names, _ZERO) + clamp_event(charge.price, quantity)
            return replace(
                segment,
                usage={**segment.usage, names: segment.usage.get(names, _ZERO) + quantity},
                overage=segment.overage + max(_ZERO, quantity - remaining),
                events={**segment.events, names: segment.events.get(names, 0) + calls},
                clamped=clamped,
            )
