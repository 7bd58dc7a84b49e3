"""
Where the usage of calls would belong: the tenant's time, its period, the balance and the terms.

Read without locks; what is found here is tried against the balance's epoch, as usage itself is (`ingest`). Decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from billing_site.http.problems import DomainError, Invalid
from metering.core.decision import Reason
from metering.core.measuring import DimensionSet, MeterDefinition, dimension_key
from metering.core.pools import Pool
from metering.selectors.meters import read_meter, remembered_meter
from metering.selectors.placement import (
    PlacedBalance,
    Placement,
    read_placements,
    remembered_placement,
    unopened_subscription,
)
from metering.selectors.terms import pools_of_version
from metering.services.opening import open_due_periods
from metering.services.requests import Authorize, Extend, GateAnswer
from metering.services.reversing import ClockAdvancing
from subscriptions.core.money import plain
from subscriptions.selectors.catalog import CatalogItemNotFound
from subscriptions.selectors.tenants import TenantNotFound

Answer = GateAnswer | DomainError
"""An answer to one request, or the refusal that its door raises."""


class NotAdditive(Invalid):
    """The meter's value is no sum, so that no call has a part of it to hold."""

    code = "not_additive"
    title = "The meter does not add up"


@dataclass(slots=True)
class Call:
    """A request on its way through a group: where its usage would belong, and what became of it."""

    request: Authorize
    tenant_id: int
    # Tenant time.
    now: datetime
    fingerprint: bytes
    dimension_key: str
    # Why it is denied without a look at any balance; else where it belongs, and on which terms.
    denial: Reason | None = None
    balance: PlacedBalance | None = None
    pool: Pool | None = None
    # The hold that is to grow, where it is no new one.
    extends: Extend | None = None
    answer: Answer | None = None

    @property
    def key(self) -> tuple[int, str]:
        """What makes it the same authorization as another."""
        return self.tenant_id, self.request.key


def find_call(request: Authorize, placements: dict[str, Placement | None]) -> Call | DomainError:
    """Return where a request belongs, as remembered where that has it; else as read, which `placements` keeps for the group."""
    if request.tenant not in placements:
        remembered = remembered_placement(request.tenant)
        call = None if remembered is None else _placed(request, remembered, fresh=False)
        if call is not None:
            return call
        placements[request.tenant] = _read(request)
    placement = placements[request.tenant]
    if placement is None:
        return TenantNotFound(f"There is no tenant {request.tenant}.")
    call = _placed(request, placement, fresh=True)
    assert call is not None  # what was read afresh is a finding
    return call


def _read(request: Authorize) -> Placement | None:
    """Read where the tenant's usage of now belongs, and open its period if that has begun."""
    now = request.now
    placement = read_placements([request.tenant], earliest=now, latest=now, wall=now).get(request.tenant)
    if placement is None or placement.is_advancing or placement.period_at(placement.now(now)) is not None:
        return placement
    instant = placement.now(now)
    subscription_id = unopened_subscription(tenant_id=placement.tenant_id, at=instant)
    if subscription_id is None or not open_due_periods(subscription_id=subscription_id, now=instant):
        return placement
    return read_placements([request.tenant], earliest=now, latest=now, wall=now).get(request.tenant)


def _placed(request: Authorize, placement: Placement, *, fresh: bool) -> Call | DomainError | None:
    """Return where a request belongs; None where a remembered placement or meter lacks it, which is no finding until read afresh."""
    if placement.is_advancing:
        return ClockAdvancing(
            "The tenant's test clock is advancing; ask again when it is done.", headers={"Retry-After": "1"}
        )
    meter = (read_meter if fresh else remembered_meter)(request.meter)
    if meter is None:
        return CatalogItemNotFound(f"There is no meter {request.meter}.") if fresh else None
    meter_id, definition = meter
    if not definition.aggregation.is_additive:
        return NotAdditive(
            f"The meter {request.meter} has the aggregation {definition.aggregation}: nothing of it can be held."
        )
    now = placement.now(request.now)
    try:
        dimensions = complete(definition, request.dimensions)
    except Invalid as error:
        return error
    key = dimension_key(dimensions)
    call = Call(request, placement.tenant_id, now, _fingerprint(request, key), key)
    period = placement.period_at(now)
    if period is None or period.is_closed:
        call.denial = Reason.NO_PERIOD
        return call if fresh else None
    _, version_id = period.segment_of(now)
    pools = pools_of_version(version_id).get(meter_id)
    call.balance = period.balances.get((meter_id, pools.key_for(dimensions))) if pools else None
    if pools is None or call.balance is None:
        call.denial = Reason.NOT_IN_TIER
        return call if fresh else None
    call.pool = pools.by_key[call.balance.pool]
    return call


def complete(definition: MeterDefinition, dimensions: Mapping[str, str]) -> DimensionSet:
    """Return a call's dimension set, as its event would have it. Raises Invalid (422) for a name that the meter does not declare."""
    unknown = [name for name in dimensions if name not in definition.dimensions]
    if unknown:
        faults = [
            (f"dimensions.{name[:100]}", "not_a_dimension", f"is no dimension of {definition.code}") for name in unknown
        ]
        raise Invalid("The meter does not know these dimensions.", errors=faults)
    return tuple(sorted((name, dimensions.get(name, "")) for name in definition.dimensions))


def _fingerprint(request: Authorize, dimension_key: str) -> bytes:
    content = f"{request.meter} {plain(request.quantity)} {request.ttl_seconds} {dimension_key}"
    return blake2b(content.encode(), digest_size=16).digest()
