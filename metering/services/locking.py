"""Locks balances together with those that share grants with them, for callers that have read nothing of them before."""

from collections.abc import Iterable

from django.db import transaction

from metering.models import MeterBalance
from metering.services.locked import LockedBalance, lock_balances

TRIES_MAX = 8


class _Moved(Exception):
    """A close, a grant or a void came between reading and locking."""


def lock_pools(balance_ids: Iterable[int]) -> dict[int, LockedBalance]:
    """
    Lock these balances, and of the wide ones all unclosed wide ones of their pools, in id order; return them with their grants.

    The caller holds no balance's lock yet.
    """
    ids = sorted(set(balance_ids))
    for _ in range(TRIES_MAX):
        seen = {
            pk: (epoch, is_wide)
            for pk, epoch, is_wide in MeterBalance.objects.filter(pk__in=ids).values_list("pk", "epoch", "is_wide")
        }
        try:
            # The savepoint gives the locks of a failed try back.
            with transaction.atomic():
                locked = lock_balances(ids, wide=[pk for pk, (_, is_wide) in seen.items() if is_wide])
                if any(locked[pk].row.epoch != epoch for pk, (epoch, _) in seen.items()):
                    raise _Moved
            return locked
        except _Moved:
            continue
    raise RuntimeError(f"the balances {ids} changed {TRIES_MAX} times while they were being locked")
