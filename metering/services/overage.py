"""
Books overage: the cumulative price of a balance, minus what is booked.

Late events, early bills and prices that are not straight lines are one case, and booking twice books nothing (semantics, "Overage").
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from django.db import transaction
from django.db.models import Max, Sum

from billing_site.database import uuid7
from metering.core.overage import Booked, Owed, PricedPart, overage_delta
from metering.models import LedgerEntry, MeterBalance, OverageCharge
from metering.selectors.overage import PricedBalance, price_balances


def book(*, balance_id: int, now: datetime) -> list[OverageCharge]:
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
        return book_locked(balance, now=now)


def book_locked(balance: MeterBalance, *, now: datetime, closes: bool = False) -> list[OverageCharge]:
    """
    Book a balance whose lock the caller holds. With `closes`, also what a minimum spend adds: it is billed once, at closing.

    Clears the balance's due time.
    """
    priced = price_balances([balance])[0]
    before = _booked(balance)
    last_entry_id = LedgerEntry.objects.filter(balance=balance).aggregate(last=Max("pk"))["last"] or 0
    new = _overage_charges(priced, before) + (_minimum_charges(priced) if closes else [])
    for charge in new:
        charge.sequence = before.get((charge.charge_id, charge.kind), (Booked(), 0))[1] + 1
        charge.booked_at = now
        charge.last_entry_id = last_entry_id
    OverageCharge.objects.bulk_create(new)
    balance.booked_overage = balance.used - balance.covered
    balance.booked_at = now
    balance.due_at = None
    balance.save(update_fields=["booked_overage", "booked_at", "due_at"])
    return new


_BookedSums = Mapping[tuple[int, str], tuple[Booked, int]]


def _booked(balance: MeterBalance) -> _BookedSums:
    """Return what is booked by charge and kind, with the last sequence number."""
    rows = (
        OverageCharge.objects.filter(balance=balance)
        .values("charge_id", "kind")
        .annotate(quantity_sum=Sum("quantity"), amount_sum=Sum("amount_precise"), last=Max("sequence"))
    )
    return {
        (row["charge_id"], row["kind"]): (Booked(row["quantity_sum"], row["amount_sum"]), row["last"]) for row in rows
    }


def _overage_charges(priced: PricedBalance, before: _BookedSums) -> list[OverageCharge]:
    components: dict[int, list[dict[str, Any]]] = {}
    for part in priced.priced.parts:
        components.setdefault(int(part.charge_id), []).extend(one.document() for one in part.components)
    new = []
    for (charge_id, _), owed in priced.priced.owed().items():
        booked, _ = before.get((int(charge_id), OverageCharge.Kind.OVERAGE.value), (Booked(), 0))
        delta = overage_delta(owed, booked=booked)
        if delta:
            new.append(
                _charge(priced, int(charge_id), OverageCharge.Kind.OVERAGE, owed, delta.quantity, delta.amount,
                        components[int(charge_id)])
            )  # fmt: skip
    return new


def _minimum_charges(priced: PricedBalance) -> list[OverageCharge]:
    return [_minimum_charge(priced, part) for part in priced.priced.parts if part.top_up]


def _minimum_charge(priced: PricedBalance, part: PricedPart) -> OverageCharge:
    owed = Owed(Fraction(0), part.top_up)
    delta = overage_delta(owed, booked=Booked())
    explanation = [{"kind": "minimum", "total": str(delta.amount)}]
    return _charge(
        priced, int(part.charge_id), OverageCharge.Kind.MINIMUM, owed, delta.quantity, delta.amount, explanation
    )


def _charge(
    priced: PricedBalance,
    charge_id: int,
    kind: OverageCharge.Kind,
    owed: Owed,
    quantity: Decimal,
    amount: Decimal,
    components: list[dict[str, Any]],
) -> OverageCharge:
    balance = priced.balance
    return OverageCharge(
        public_id=uuid7(),
        tenant_id=balance.tenant_id,
        period_id=balance.period_id,
        balance=balance,
        charge_id=charge_id,
        kind=kind.value,
        quantity=quantity,
        amount_precise=amount,
        quantity_numerator=owed.quantity.numerator,
        quantity_denominator=owed.quantity.denominator,
        amount_numerator=owed.amount.numerator,
        amount_denominator=owed.amount.denominator,
        currency=priced.currency,
        components=components,
        booked_to=balance.used - balance.covered,
    )
