"""Opens billing periods: the agreement's row and fee, and the balances and allowances of its pools."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import F

from metering.models import CreditGrant, MeterBalance
from metering.selectors.grants import pool_grants, pool_key
from metering.selectors.terms import pools_of_version
from metering.services import windows
from metering.services.crediting import write_grants
from metering.services.recutting import reach_of
from metering.services.watching import look_later
from subscriptions.models import BillingPeriod, Subscription
from subscriptions.selectors.agreement import terms_id_in
from subscriptions.services import succession


def open_due_periods(*, subscription_id: int, now: datetime) -> list[BillingPeriod]:
    """
    Open, in order, every period of the subscription that has begun at `now`, and return those opened.

    Idempotent: what is open stays as it is. Takes the subscription's lock, so beat, ingestion and closing may call it at once.
    Opens nothing at or after the subscription's end.
    """
    with transaction.atomic():
        subscriptions = Subscription.objects.select_for_update(no_key=True, of=("self",)).select_related("tenant")
        return open_periods([subscriptions.get(pk=subscription_id)], now=now)


def open_periods(subscriptions: Sequence[Subscription], *, now: datetime) -> list[BillingPeriod]:
    """
    Do the same for subscriptions whose locks the caller holds, their tenants at hand.

    The number of statements is fixed for each boundary that has passed, however many subscriptions there are.
    """
    opened: list[BillingPeriod] = []
    waiting = subscriptions
    while waiting and (following := succession.next_periods(subscriptions=waiting, now=now)):
        _open_pools(following)
        windows.fill(following)
        opened += following
        going_on = {period.subscription_id for period in following}
        waiting = [subscription for subscription in waiting if subscription.pk in going_on]
    return opened


def _open_pools(periods: Sequence[BillingPeriod]) -> None:
    open_pools(
        (period, meter_id, pool.key, pool.included)
        for period in periods
        for meter_id, pools in pools_of_version(terms_id_in(period.kind, period.version_id)).items()
        for pool in pools.by_key.values()
    )


def open_pools(wanted: Iterable[tuple[BillingPeriod, int, str, Decimal]]) -> None:
    """Write the balances of pools (period, meter id, key), each with its allowance; those that grants reach into know of them."""
    wanted = list(wanted)
    balances = [
        MeterBalance(tenant_id=period.tenant_id, period=period, meter_id=meter_id, pool=key)
        for period, meter_id, key, _ in wanted
    ]
    _reach(balances)
    MeterBalance.objects.bulk_create(balances)
    allowances = [
        allowance_of(balance, included)
        for balance, (_, _, _, included) in zip(balances, wanted, strict=True)
        if included > 0
    ]
    if allowances:
        write_grants(allowances, posting_kind="open")


def allowance_of(balance: MeterBalance, quantity: Decimal) -> CreditGrant:
    """Return the allowance of a balance, not yet saved: it covers the balance's period, from its first instant."""
    return CreditGrant(
        tenant_id=balance.tenant_id,
        meter_id=balance.meter_id,
        pool=balance.pool,
        balance=balance,
        kind=CreditGrant.Kind.ALLOWANCE,
        quantity=quantity,
        effective_at=balance.period.starts_at,
        expires_at=balance.period.ends_at,
    )


def _reach(balances: Sequence[MeterBalance]) -> None:
    """
    Let new balances know of the grants of their pools that reach into them.

    Who shares those grants with them is locked, and resolved anew by whoever has read it before.
    """
    grants = pool_grants(pool_key(balance) for balance in balances)
    if not grants:
        return
    for balance in balances:
        balance.cuts, balance.is_wide = reach_of(balance, grants.get(pool_key(balance), []))
    wide = {pool_key(balance) for balance in balances if balance.is_wide}
    if not wide:
        return
    mates = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).filter(
        tenant_id__in={key[0] for key in wide}, is_wide=True, closed_at__isnull=True
    )
    ids = [mate.pk for mate in mates.order_by("pk") if pool_key(mate) in wide]
    MeterBalance.objects.filter(pk__in=ids).update(epoch=F("epoch") + 1)
    look_later({one.tenant_id: one.period.starts_at for one in balances if one.is_wide and _has_thresholds(one)})


def _has_thresholds(balance: MeterBalance) -> bool:
    period = balance.period
    return bool(
        pools_of_version(terms_id_in(period.kind, period.version_id))[balance.meter_id].by_key[balance.pool].thresholds
    )
