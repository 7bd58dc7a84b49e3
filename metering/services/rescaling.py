"""
Lets the balances of a running period follow a change of its version: allowances, limits, pools that are new, and what had been placed already.

Owns what becomes of allowances and usage. That the version changed is the agreement's row, which is written between the two halves of this: first
the figures, which the row records, then what they do. The caller holds the locks of subscription and period. Source: semantics, "Changing
tier in mid-period".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from metering.core.measuring import dimension_set
from metering.models import CreditGrant, MeterBalance
from metering.selectors.grants import wide_mates
from metering.selectors.terms import pools_of_version
from metering.services import windows
from metering.services.crediting import enter_rescaling, write_grants
from metering.services.opening import allowance_of, open_pools
from metering.services.recutting import recut
from subscriptions.core.changes import AllowanceStep, ChangeAllowance, Choices, period_allowance
from subscriptions.core.money import exact, plain
from subscriptions.models import BillingPeriod, Meter
from subscriptions.selectors.agreement import VersionSpan, terms_id_in, version_spans

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class RescaledPool:
    """What a change does with the allowance of one pool of the period, in meter units, and what had been used of it."""

    meter: Meter
    pool: str
    before: Decimal
    after: Decimal
    used: Decimal

    def document(self) -> dict[str, Any]:
        """Return it as a change records it."""
        return {
            "meter": self.meter.code,
            "dimensions": dict(dimension_set(self.pool)) if self.pool else {},
            "before": plain(self.before),
            "after": plain(self.after),
            "used": plain(self.used),
        }


def pools_after(
    *, period: BillingPeriod, to_version_id: int, choices: Choices, at: datetime, zone: str
) -> list[RescaledPool]:
    """
    Return what becomes of the allowances of a period, of every pool that any of its versions has, if another version comes into force at an instant.

    In a trial all versions are in force on their terms for trials; but one that ends the trial has its own. Reads what is stored under the
    locks of its balances, which it takes.
    """
    balances = {(one.meter_id, one.pool): one for one in _locked(period)}
    stored = {
        grant.balance_id: grant.quantity
        for grant in CreditGrant.objects.filter(balance__in=balances.values(), kind=CreditGrant.Kind.ALLOWANCE)
    }
    changes = [
        (change.effective_at, terms_id_in(period.kind, change.to_version_id), change.choices)
        for change in period.changes.order_by("effective_at", "pk")
    ]
    ends_period = choices.allowance is ChangeAllowance.RESET
    to_terms_id = to_version_id if ends_period else terms_id_in(period.kind, to_version_id)
    # One that is carried out late comes before what has been done since.
    changes = sorted([*changes, (at, to_terms_id, choices)], key=lambda change: change[0])
    first_terms_id = terms_id_in(period.kind, period.version_id)
    keys = {
        (meter_id, key)
        for terms_id in (first_terms_id, *(terms_id for _, terms_id, _ in changes))
        for meter_id, pools in pools_of_version(terms_id).items()
        for key in pools.by_key
    }
    meters = Meter.objects.in_bulk({meter_id for meter_id, _ in keys})
    found = []
    for meter_id, key in sorted(keys, key=lambda one: (meters[one[0]].code, one[1])):
        steps = [
            AllowanceStep(instant, _included(terms_id, meter_id, key), _replaces(how), how.grain)
            for instant, terms_id, how in changes
        ]
        first, precision = _included(first_terms_id, meter_id, key), meters[meter_id].precision
        after = period_allowance(first, steps, period.period, zone=zone, precision=precision)
        balance = balances.get((meter_id, key))
        before = stored.get(balance.pk, _ZERO) if balance else _ZERO
        found.append(RescaledPool(meters[meter_id], key, before, after, balance.used if balance else _ZERO))
    return found


def follow_version(
    *,
    period: BillingPeriod,
    pools: Sequence[RescaledPool],
    versions_before: Sequence[VersionSpan],
    at: datetime,
    now: datetime,
) -> None:
    """
    Carry out what `pools_after` has said, after the change was written: the gate sees the new limits from this transaction on.

    Usage of the period counts against the new allowance, so what was overage may be covered now and the other way round; what was placed in
    the old version's segment after `at` is entered in the new one's. `versions_before` are those of the period without the change.
    """
    known = {(one.meter_id, one.pool) for one in MeterBalance.objects.filter(period=period)}
    open_pools((period, one.meter.pk, one.pool, one.after) for one in pools if (one.meter.pk, one.pool) not in known)
    balances = _locked(period)
    shrunk = _rescale(balances, pools, at)
    recut(balances, now=now, versions_before=versions_before, shrunk=shrunk)
    for grant_id, quantity in shrunk.items():
        CreditGrant.objects.filter(pk=grant_id).update(quantity=quantity)
    before = [span.terms_id for span in versions_before if span.starts_at <= at]
    after = [span.terms_id for span in version_spans(period) if span.starts_at <= at]
    windows.fill_from(period, at=at, before=before[-1], after=after[-1])


def _locked(period: BillingPeriod) -> list[MeterBalance]:
    """Lock, in id order, the period's balances and those that share grants with them; return the period's."""
    balances = list(MeterBalance.objects.filter(period=period))
    rows = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant", "meter")
    locked = rows.filter(pk__in={*(one.pk for one in balances), *wide_mates(balances)}).order_by("pk")
    own = [one for one in locked if one.period_id == period.pk]
    for one in own:
        one.period = period
    return own


def _rescale(balances: Sequence[MeterBalance], pools: Sequence[RescaledPool], at: datetime) -> dict[int, Decimal]:
    """Let allowances grow, and enter in the ledger by how much they move; return, by grant, those that are to shrink, to what."""
    wanted = {(one.meter.pk, one.pool): one.after for one in pools}
    grants = {
        grant.balance_id: grant
        for grant in CreditGrant.objects.filter(balance__in=balances, kind=CreditGrant.Kind.ALLOWANCE)
    }
    shrunk: dict[int, Decimal] = {}
    moved: list[tuple[CreditGrant, Decimal]] = []
    new: list[CreditGrant] = []
    for balance in balances:
        grant, after = grants.get(balance.pk), wanted[balance.meter_id, balance.pool]
        if grant is None:
            if after:
                new.append(allowance_of(balance, after))
            continue
        with exact():
            difference = after - grant.quantity
        if not difference:
            continue
        moved.append((grant, difference))
        if difference < 0:
            shrunk[grant.pk] = after
        else:
            CreditGrant.objects.filter(pk=grant.pk).update(quantity=after)
    if moved:
        enter_rescaling(moved, segment_at=at)
    if new:
        write_grants(new, posting_kind="change")
    return shrunk


def _included(terms_id: int, meter_id: int, key: str) -> Decimal:
    pools = pools_of_version(terms_id).get(meter_id)
    pool = pools.by_key.get(key) if pools else None
    return _ZERO if pool is None else pool.included


def _replaces(choices: Choices) -> bool:
    return choices.allowance is not ChangeAllowance.PRORATED
