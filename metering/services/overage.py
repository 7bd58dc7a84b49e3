"""
Books overage: the cumulative price of balances, minus what is booked.

Late events, early bills and prices that are not straight lines are one case, and booking twice books nothing (semantics, "Overage").
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max, Sum

from billing_site.database import among, uuid7
from metering.core.overage import Booked, ChargeId, OverageDelta, Owed, PricedPart, overage_delta
from metering.models import MeterBalance, OverageCharge
from metering.selectors.overage import PricedBalance, price_balances
from metering.selectors.terms import bills_overage
from metering.services.arrays import plain_array
from metering.services.rows import insert_rows, update_rows


class Booking(NamedTuple):
    """A new row of OverageCharge, by its columns."""

    public_id: UUID
    tenant_id: int
    period_id: int
    balance_id: int
    charge_id: int
    kind: str
    sequence: int
    quantity: Decimal
    amount_precise: Decimal
    quantity_numerator: int
    quantity_denominator: int
    amount_numerator: int
    amount_denominator: int
    currency: str
    components: list[dict[str, Any]]
    booked_to: Decimal
    last_entry_id: int
    booked_at: datetime


_LAST_ENTRIES = """
SELECT b.id, (SELECT max(id) FROM metering_ledgerentry WHERE balance_id = b.id) FROM unnest(%s::bigint[]) AS b (id)
"""


def book(*, balance_id: int, now: datetime) -> list[Booking]:
    """
    Book what the balance's overage has come to since the last booking, and return the new charges.

    `now` is the tenant's. Takes the balance's lock; books nothing when nothing changed.
    """
    with transaction.atomic():
        balance = (
            MeterBalance.objects.select_for_update(no_key=True, of=("self",))
            .select_related("period")
            .get(pk=balance_id)
        )
        return book_locked([balance], now=now)


def book_locked(balances: Sequence[MeterBalance], *, now: datetime) -> list[Booking]:
    """
    Book balances whose locks the caller holds, and clear their due times, with a fixed number of statements.

    Their periods must be at hand. Returns the new charges.
    """
    new = charge_locked(balances, now=now)
    update_rows(
        MeterBalance,
        ("id", "booked_overage", "booked_at", "due_at"),
        [(balance.pk, balance.booked_overage, now, None) for balance in balances],
    )
    return new


def charge_locked(balances: Sequence[MeterBalance], *, now: datetime, closes: bool = False) -> list[Booking]:
    """
    Write what the balances' overage has come to since the last booking, and note it on the balances, which the caller saves.

    That of a trial is not written, unless its version bills it. With `closes`, also what a minimum spend adds: it is billed once, at closing.
    """
    if not balances:
        return []
    before = _booked(balances)
    booked_of: dict[int, list[int]] = {}
    for balance_id, charge_id, kind in before:
        if kind == OverageCharge.Kind.OVERAGE:
            booked_of.setdefault(balance_id, []).append(charge_id)
    owing: list[tuple[PricedBalance, list[_Due]]] = []
    for priced in price_balances(balances):
        balance = priced.balance
        if dues := _overage_due(priced, before, booked_of.get(balance.pk, ())) + (
            _minimums_due(priced) if closes else []
        ):
            owing.append((priced, dues))
        balance.booked_overage = balance.used - balance.covered
        balance.booked_at, balance.due_at = now, None
    if not owing:
        return []
    last_entries = _last_entries([priced.balance for priced, _ in owing])
    new: list[Booking] = []
    for priced, dues in owing:
        for due in dues:
            _, last_sequence = before.get((priced.balance.pk, due.charge_id, due.kind), (Booked(), 0))
            last_entry_id = last_entries[priced.balance.pk]
            new.append(_booking(priced, due, last_sequence + 1, last_entry_id=last_entry_id, now=now))
    insert_rows(OverageCharge, Booking._fields, new)
    return new


_Key = tuple[int, int, str]
"""Balance, charge and kind: what is booked cumulatively."""
_BookedSums = Mapping[_Key, tuple[Booked, int]]


@dataclass(frozen=True, slots=True)
class _Due:
    """What is to be booked of a charge, and what the charge has come to with it."""

    charge_id: int
    kind: str
    owed: Owed
    delta: OverageDelta
    components: list[dict[str, Any]]


def _booked(balances: Sequence[MeterBalance]) -> _BookedSums:
    """Return what is booked by balance, charge and kind, with the last sequence number."""
    rows = (
        OverageCharge.objects.filter(
            among("period_id", {balance.period_id for balance in balances}),
            among("balance_id", (balance.pk for balance in balances)),
        )
        .values_list("balance_id", "charge_id", "kind")
        .annotate(Sum("quantity"), Sum("amount_precise"), Max("sequence"))
    )
    return {
        (balance_id, charge_id, kind): (Booked(quantity, amount), last)
        for balance_id, charge_id, kind, quantity, amount, last in rows
    }


def _last_entries(balances: Sequence[MeterBalance]) -> dict[int, int]:
    """Return each balance's newest ledger entry; 0 where it has none."""
    with connection.cursor() as cursor:
        cursor.execute(_LAST_ENTRIES, [plain_array(balance.pk for balance in balances)])
        return {balance_id: last or 0 for balance_id, last in cursor}


def _overage_due(priced: PricedBalance, before: _BookedSums, charges: Iterable[int]) -> list[_Due]:
    """Return what is to be booked of a balance, of whose `charges` something is booked."""
    due = []
    kind = OverageCharge.Kind.OVERAGE.value
    owing = {
        charge_id: owed for (charge_id, terms_id), owed in priced.priced.owed().items() if bills_overage(int(terms_id))
    }
    # A version that was replaced at the instant at which it came into force prices nothing: what was booked of it is taken back.
    owing |= {charge_id: Owed(Fraction(0), Fraction(0)) for charge_id in charges if charge_id not in owing}
    for charge_id, owed in owing.items():
        booked, _ = before.get((priced.balance.pk, int(charge_id), kind), (Booked(), 0))
        if delta := overage_delta(owed, booked=booked):
            due.append(_Due(int(charge_id), kind, owed, delta, _explanation(priced, charge_id)))
    return due


def _explanation(priced: PricedBalance, charge_id: ChargeId) -> list[dict[str, Any]]:
    parts = (part for part in priced.priced.parts if part.charge_id == charge_id)
    return [component.document() for part in parts for component in part.components]


def _minimums_due(priced: PricedBalance) -> list[_Due]:
    return [_minimum_due(part) for part in priced.priced.parts if part.top_up]


def _minimum_due(part: PricedPart) -> _Due:
    owed = Owed(Fraction(0), part.top_up)
    delta = overage_delta(owed, booked=Booked())
    explanation = [{"kind": "minimum", "total": str(delta.amount)}]
    return _Due(int(part.charge_id), OverageCharge.Kind.MINIMUM.value, owed, delta, explanation)


def _booking(priced: PricedBalance, due: _Due, sequence: int, *, last_entry_id: int, now: datetime) -> Booking:
    balance, owed = priced.balance, due.owed
    return Booking(
        public_id=uuid7(),
        tenant_id=balance.tenant_id,
        period_id=balance.period_id,
        balance_id=balance.pk,
        charge_id=due.charge_id,
        kind=due.kind,
        sequence=sequence,
        quantity=due.delta.quantity,
        amount_precise=due.delta.amount,
        quantity_numerator=owed.quantity.numerator,
        quantity_denominator=owed.quantity.denominator,
        amount_numerator=owed.amount.numerator,
        amount_denominator=owed.amount.denominator,
        currency=priced.currency,
        components=due.components,
        booked_to=balance.used - balance.covered,
        last_entry_id=last_entry_id,
        booked_at=now,
    )
