"""
Records usage events: keys, events, ledger and balances in one transaction, each event counted once.

An accepted event is a counted event. There is no state in between, and no second store to reconcile. Redis only chooses the
path: a key that it knows is confirmed by one read of `EventKey`, and what PostgreSQL does not have goes the normal way.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing_site.database import uuid7
from metering.selectors.balances import BalanceView, Standing, balance_views
from metering.selectors.meters import Meters, counting_meters
from metering.selectors.placement import PlacedBalance, forget_placements
from metering.services import event_rows, windows
from metering.services.candidates import Candidate, Group, classify
from metering.services.locked import BalanceRow, LockedBalance, lock_balances
from metering.services.posting import Movement, post
from metering.services.requests import ACCEPTED, UNMATCHED, IngestReport, Outcome, Record
from metering.services.values import ValueMovement, take_in
from subscriptions.core.money import exact

logger = logging.getLogger(__name__)

# How often a group is resolved again because a close, a change or a grant came between reading and locking.
RESOLUTIONS_MAX = 8


class Stale(Exception):
    """What the events were resolved against has changed since it was read: they must be resolved again."""


class StaleBalances(Stale):
    """A balance has changed in kind."""


class StaleMeters(Stale):
    """A meter has been added."""


def record_events(
    requests: Sequence[Record], *, posting_id: UUID | None = None, lock_timeout_ms: int | None = None
) -> list[IngestReport]:
    """
    Store the new events of several requests, each with its own `now`, and post them to the ledger, in one transaction.

    Idempotent on (subject, source, id): a repeat is reported as a duplicate, the same identity with other content as a conflict
    that names the fields. An accepted event is a counted event. Raises nothing for a bad event (the report names it), and a
    database error when nothing was stored.

    `posting_id` is chosen by a caller that may have to ask again after an ambiguous COMMIT: keys that carry it are its own
    writes, and are reported as accepted. With `lock_timeout_ms` the transaction gives up sooner than the connection's setting says.
    """
    posting_id = posting_id or uuid7()
    group = Group(requests)
    batches = event_rows.answer_known(group, posting_id)
    meters = counting_meters()
    for _ in range(RESOLUTIONS_MAX):
        classify(group, meters)
        event_rows.answer_rejected_repeats(group)
        try:
            views = _store(group, meters, posting_id, lock_timeout_ms)
            break
        except Stale as stale:
            group.start_over()
            meters = counting_meters(afresh=isinstance(stale, StaleMeters))
    else:
        raise RuntimeError(f"what a group counts for changed {RESOLUTIONS_MAX} times while it was being resolved")
    group.answer_followers()
    event_rows.explain_conflicts(group)
    event_rows.remember(batches)
    return [_report(group, index, views) for index in range(len(requests))]


def _store(group: Group, meters: Meters, posting_id: UUID, lock_timeout_ms: int | None) -> dict[int, BalanceView]:
    """Write what is to be stored, and return the touched balances as they then stand."""
    candidates = group.storable()
    if not candidates:
        return {}
    views: dict[int, BalanceView] = {}
    with transaction.atomic():
        fresh, sum_of_meter_ids = event_rows.insert(candidates, posting_id, lock_timeout_ms=lock_timeout_ms)
        if sum_of_meter_ids != meters.sum_of_ids:
            raise StaleMeters
        counted = [candidate for candidate in fresh if candidate.counts]
        if counted:
            locked = lock_counted(counted)
            post_counted(counted, locked, posting_id=posting_id, kind="record")
            views = views_of(counted, locked)
    for candidate in fresh:
        _settle(candidate)
    return views


def views_of(counted: Sequence[Candidate], locked: Mapping[int, LockedBalance]) -> dict[int, BalanceView]:
    """Return where the touched balances stand, by id."""
    standings: dict[int, Standing] = {}
    for candidate in counted:
        for count in candidate.counts:
            placed = count.balance
            if placed.id in standings:
                continue
            balance, period = locked[placed.id], placed.period
            standing = Standing(balance.row, placed.tenant, count.meter.code, period.ends_at, period.versions)
            standings[placed.id] = standing
            for grant in balance.grants:
                if grant.covers(candidate.now):
                    standing.add_grant(grant.quantity, balance.remaining[int(grant.id)])
    try:
        return dict(zip(standings, balance_views(list(standings.values())), strict=True))
    except (ArithmeticError, LookupError, ValueError):
        # Books that do not balance cannot be priced. Their usage is recorded all the same; only the answer lacks them.
        return {balance_id: view for balance_id, one in standings.items() for view in _view_if_priceable(one)}


def _view_if_priceable(standing: Standing) -> list[BalanceView]:
    try:
        return balance_views([standing])
    except (ArithmeticError, LookupError, ValueError):
        logger.exception("balance %d cannot be priced", standing.row.pk)
        return []


def lock_counted(counted: Sequence[Candidate]) -> dict[int, LockedBalance]:
    """
    Lock the balances that the events count for.

    Raises StaleBalances when a close, a change or a grant has come between reading and locking.
    """
    return lock_placed({count.balance.id: count.balance for candidate in counted for count in candidate.counts})


def lock_placed(placed: Mapping[int, PlacedBalance], *, also: Iterable[int] = ()) -> dict[int, LockedBalance]:
    """Do the same for balances by their ids, and lock others with them, however they have changed."""
    locked = lock_balances({*placed, *also}, wide=[one.id for one in placed.values() if one.is_wide])
    stale = [
        one.tenant for one in placed.values() if one.id not in locked or not _is_as_placed(locked[one.id].row, one)
    ]
    if stale:
        forget_placements(stale)
        raise StaleBalances
    for one in placed.values():
        balance = locked[one.id]
        balance.watch, balance.watch_is_known = one.watch, True
        balance.has_windows = bool(one.windows)
    return locked


def post_counted(
    counted: Sequence[Candidate], locked: Mapping[int, LockedBalance], *, posting_id: UUID, kind: str
) -> None:
    """Post what events count to their locked balances, and move it into the windows of those that have any."""
    times = {count.balance.id: candidate.now for candidate in counted for count in candidate.counts}
    post(fold(counted), posting_id=posting_id, kind=kind, locked=locked, now_of=times)
    if any(balance.has_windows for balance in locked.values()):
        windows.record(counted)


def _is_as_placed(row: BalanceRow, placed: PlacedBalance) -> bool:
    return (row.epoch, row.period_id) == (placed.epoch, placed.period.id)


def fold(candidates: Sequence[Candidate]) -> list[Movement]:
    """
    Fold the counts of events into one movement per balance, segment and dimension set, oldest segment first.

    The caller holds the locks of the balances, whose values decide what events of meters that do not add up move.
    """
    movements: dict[tuple[int, datetime, str], Movement] = {}
    values: dict[int, ValueMovement] = {}
    with exact():
        for candidate in candidates:
            for count in candidate.counts:
                key = (count.balance.id, count.segment_at, count.dimension_key)
                movement = movements.get(key)
                if movement is None:
                    movement = movements[key] = Movement(*key)
                movement.events += 1
                movement.clamped += count.clamped
                if count.reading is None:
                    movement.quantity += count.quantity
                else:
                    value = values.setdefault(id(movement), ValueMovement(count.meter.aggregation, movement))
                    value.readings.append(count.reading)
    if values:
        take_in(list(values.values()))
    return sorted(movements.values(), key=lambda one: (one.balance_id, one.segment_at, one.dimension_key))


def _settle(candidate: Candidate) -> None:
    """Say of a stored event what it is; its repeats within the group follow it."""
    status = ACCEPTED if candidate.counts else UNMATCHED
    candidate.outcome = Outcome(status, candidate.unmatched_code, candidate.unmatched_detail, candidate.uuid)


def _report(group: Group, index: int, views: dict[int, BalanceView]) -> IngestReport:
    outcomes = group.outcomes(index)
    touched = {
        count.balance.id: None
        for candidate in group.candidates_of(index)
        if candidate.outcome is not None and candidate.outcome.status == ACCEPTED
        for count in candidate.counts
    }
    return IngestReport(outcomes, [views[balance_id] for balance_id in touched if balance_id in views])
