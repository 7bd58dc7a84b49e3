"""What the linter sees in usage: dimension values that a version would not price. With it, all that the linter says of a version."""

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice

from django.db.models import Count, Sum

from metering.core.measuring import DimensionSet, dimension_set
from metering.models import SegmentTotal
from subscriptions.core.linting import Finding, Rule
from subscriptions.core.money import plain
from subscriptions.selectors.catalog import UsageCharge, VersionTerms
from subscriptions.selectors.findings import findings_in

LOOKED_AT = timedelta(days=31)
SETS_SHOWN_MAX = 20


def all_findings(terms: VersionTerms, *, now: datetime) -> list[Finding]:
    """Return what the rules find in a version, stored or not: what needs no usage first. `now` is wall time."""
    return [*findings_in(terms), *unpriced_usage(terms, now=now)]


def unpriced_usage(terms: VersionTerms, *, now: datetime) -> list[Finding]:
    """
    Return what was counted lately, of any tenant, and would have no price in this version: the largest first, up to SETS_SHOWN_MAX.

    Looks at the periods that run at `now` (wall time) or ended within LOOKED_AT. Asked only of meters that the version charges for some
    dimension values alone: a charge without any covers all.
    """
    partly = _partly_priced(terms)
    if not partly:
        return []
    sets = (
        SegmentTotal.objects.filter(
            balance__meter__in=partly,
            balance__period__starts_at__lte=now,
            balance__period__ends_at__gt=now - LOOKED_AT,
            quantity__gt=0,
        )
        .values("balance__meter", "dimension_key")
        .annotate(units=Sum("quantity"), tenants=Count("balance__tenant", distinct=True))
        .order_by("-units", "balance__meter", "dimension_key")
    )
    found = (
        _finding(partly[row["balance__meter"]][0], row["dimension_key"], row["units"], row["tenants"])
        for row in sets
        if not _is_covered(dimension_set(row["dimension_key"]), partly[row["balance__meter"]])
    )
    return list(islice(found, SETS_SHOWN_MAX))


def _partly_priced(terms: VersionTerms) -> dict[int, list[UsageCharge]]:
    """Return, by the ids of their meters, the charges of meters that have no charge for all values."""
    by_meter: dict[int, list[UsageCharge]] = {}
    for charge in terms.charges:
        by_meter.setdefault(charge.meter_id, []).append(charge)
    return {meter_id: charges for meter_id, charges in by_meter.items() if all(each.dimensions for each in charges)}


def _is_covered(values: DimensionSet, charges: list[UsageCharge]) -> bool:
    return any(set(values).issuperset(charge.dimensions) for charge in charges)


def _finding(charge: UsageCharge, key: str, units: Decimal, tenants: int) -> Finding:
    values = ", ".join(f"{name} {value}" if value else f"no {name}" for name, value in dimension_set(key))
    of_whom = "1 tenant" if tenants == 1 else f"{tenants:,} tenants"
    message = (
        f"{Decimal(plain(units)):,f} units of the meter {charge.meter_code} with {values} were used by {of_whom} "
        "in the last month, and no charge prices them."
    )
    return Finding(Rule.UNPRICED_USAGE, "charges", message)
