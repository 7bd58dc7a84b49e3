"""The statement of a change of tier: what was given back and charged, allowances before and after, and where it is billed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

from billing_site.http.problems import DomainError
from invoices.core.lines import LineValues, instant_words
from invoices.core.statements import AllowanceWords, FeeWords, sentences
from invoices.models import InvoiceLine, InvoiceLineSource
from invoices.selectors.billable import line_of_item
from invoices.selectors.sources import UnbilledFee
from metering.core.measuring import dimension_set
from metering.models import MeterBalance
from metering.selectors.terms import pools_of_version
from subscriptions.core.changes import ChangeAllowance
from subscriptions.core.money import exact, plain
from subscriptions.models import BillingPeriod, FeeItem, Meter, ScheduledChange, Subscription, TierChange, TierVersion
from subscriptions.selectors.agreement import terms_id_in
from subscriptions.selectors.catalog import money_text, terms_of

_ZERO = Decimal(0)


class ChangeNotFound(DomainError):
    """The subscription has no change of this id."""

    status = 404
    code = "not_found"
    title = "There is no such change"


@dataclass(frozen=True, slots=True)
class StatementLine:
    """What a change gives back (negative) or charges, as an invoice line says it, and the line that bills it; None: none does yet."""

    item: FeeItem
    values: LineValues
    billed_by: InvoiceLine | None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a change did, or what one that is scheduled will do if nothing happens before."""

    change: TierChange
    currency: str
    # Negative or zero.
    credit: Decimal
    charge: Decimal
    lines: tuple[StatementLine, ...]
    # {"meter", "dimensions", "before", "after", "used"} for each pool; quantities as texts.
    allowances: tuple[Mapping[str, Any], ...]
    # Sentences for people.
    words: tuple[str, ...]

    @property
    def net(self) -> Decimal:
        """What the change costs, negative where it gives back."""
        with exact():
            return self.credit + self.charge


def find_changes(subscription: Subscription) -> QuerySet[TierChange]:
    """Return the changes that have come into force, unordered, with what a statement names at hand."""
    return subscription.changes.select_related(
        "tenant", "subscription__tenant", "period", "from_version__tier", "to_version__tier"
    )


def find_scheduled(subscription: Subscription) -> QuerySet[ScheduledChange]:
    """Return the changes that were scheduled, whatever became of them, unordered."""
    return subscription.scheduled_changes.select_related("to_version__tier", "publication")


def get_change(subscription: Subscription, public_id: UUID) -> TierChange | ScheduledChange:
    """Return a change by its id: the one that came into force, else the one that is to. Raises ChangeNotFound (404)."""
    found = (
        find_changes(subscription).filter(public_id=public_id).first()
        or find_scheduled(subscription).filter(public_id=public_id).first()
    )
    if found is None:
        raise ChangeNotFound(f"The subscription has no change {public_id}.")
    return found


def statement_of(change: TierChange) -> Statement:
    """Return the statement of a change that has come into force, or is being played."""
    zone = change.subscription.tenant.timezone
    currency = terms_of(change.to_version_id).currency
    lines = _lines(change, zone)
    with exact():
        credit = sum((line.item.amount for line in lines if line.item.amount < 0), _ZERO)
        charge = sum((line.item.amount for line in lines if line.item.amount > 0), _ZERO)
    allowances = tuple(change.allowances or _of_boundary(change))
    words = sentences(
        from_name=_name(change.from_version),
        to_name=_name(change.to_version),
        at=instant_words(change.effective_at, zone),
        fees=[_fee_words(line) for line in lines],
        allowances=[_allowance_words(one) for one in allowances],
    )
    return Statement(change, currency, credit, charge, lines, allowances, tuple(words))


def _lines(change: TierChange, zone: str) -> tuple[StatementLine, ...]:
    wanted = Q(change=change)
    if change.allowance == ChangeAllowance.RESET:
        wanted |= Q(period=change.period, kind=FeeItem.Kind.FEE)  # the new fee, which the period opened with the change
    items = list(FeeItem.objects.filter(wanted).select_related("version__tier", "credits").order_by("pk"))
    sources = InvoiceLineSource.objects.filter(fee_item__in=items, released_at__isnull=True)
    billed = {source.fee_item_id: source.line for source in sources.select_related("line__invoice")}
    return tuple(StatementLine(item, line_of_item(_unbilled(item), zone).values, billed.get(item.pk)) for item in items)


def _unbilled(item: FeeItem) -> UnbilledFee:
    own = [getattr(item, name) for name in UnbilledFee._fields if name != "credits__amount"]
    return UnbilledFee._make([*own, item.credits.amount if item.credits else None])


def _of_boundary(change: TierChange) -> Iterable[dict[str, Any]]:
    """Return what became of the allowances with a new period: those of one version (in a trial, for trials), and then of the other."""
    period = change.period
    # None before the first: a change may come into force with the start.
    last = BillingPeriod.objects.filter(subscription=change.subscription, sequence=period.sequence - 1).first()
    before = pools_of_version(terms_id_in((last or period).kind, change.from_version_id))
    after = pools_of_version(terms_id_in(period.kind, change.to_version_id))
    keys = {(meter, key) for pools in (before, after) for meter, of_meter in pools.items() for key in of_meter.by_key}
    meters = Meter.objects.in_bulk({meter for meter, _ in keys})
    used = {(one.meter_id, one.pool): one.used for one in MeterBalance.objects.filter(period=last)}
    for meter, key in sorted(keys, key=lambda one: (meters[one[0]].code, one[1])):
        included = [
            of_meter.by_key[key].included if (of_meter := pools.get(meter)) and key in of_meter.by_key else _ZERO
            for pools in (before, after)
        ]
        yield {
            "meter": meters[meter].code,
            "dimensions": dict(dimension_set(key)) if key else {},
            "before": plain(included[0]),
            "after": plain(included[1]),
            "used": plain(used.get((meter, key), _ZERO)),
        }


def _name(version: TierVersion) -> str:
    return f"{version.tier.name} (version {version.number})"


def _fee_words(line: StatementLine) -> FeeWords:
    item, billed = line.item, line.billed_by
    return FeeWords(
        tier=item.version.tier.name,
        is_credit=item.amount < 0,
        amount=f"{money_text(abs(item.amount), item.currency)} {item.currency}",
        numerator=item.share_numerator,
        divisor=item.share_divisor,
        grain=item.share_grain,
        invoice=str(billed.invoice) if billed else None,
        line=billed.number if billed else None,
    )


def _allowance_words(one: Mapping[str, Any]) -> AllowanceWords:
    named = ", ".join(f"{name}: {value}" for name, value in one["dimensions"].items())
    meter = f"{one['meter']} ({named})" if named else one["meter"]
    return AllowanceWords(meter, Decimal(one["before"]), Decimal(one["after"]), Decimal(one["used"]))
