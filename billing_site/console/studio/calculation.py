"""What the calculator shows: dials, an invoice beside another, and three drawings of a price."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any
from urllib.parse import urlencode

from django.template.loader import render_to_string

from billing_site.console.studio.price_curves import dial_name, dial_unit, price_curves
from invoices.selectors.calculating import Calculation, Dial, UsageKey, calculate, dials
from invoices.selectors.quoting import QuotedLine
from subscriptions.core import words
from subscriptions.core.describing import every, usage_name
from subscriptions.core.money import plain
from subscriptions.core.price_words import component_words
from subscriptions.core.prices import RATES_WHOLE_VALUE
from subscriptions.models import TierVersion
from subscriptions.selectors.catalog import VersionTerms, terms_of

_PLACES_SHOWN = 6


def fragment(
    version: TierVersion,
    terms: VersionTerms,
    *,
    usage: Mapping[UsageKey, tuple[Decimal, int]],
    other: TierVersion | None,
    drawn: int,
    choices: Sequence[TierVersion],
) -> str:
    """
    Return the calculator's inside for terms that may not be stored.

    `other` is the version to compare with, `drawn` the place of the dial whose price is drawn, `choices` what else may be compared.
    """
    made = dials(terms, usage)
    dial = made[min(max(drawn, 0), len(made) - 1)] if made else None
    entered = [each.usage for each in made]
    calculation = calculate(terms, entered)
    compared = calculate(terms_of(other.pk), entered) if other else None
    other_name = version_name(other) if other else ""
    context = {
        "dials": [_dial(each, terms.currency) for each in made],
        "drawn": made.index(dial) if dial else None,
        "versions": [(one.pk, _choice_name(one, version), one == other) for one in choices],
        "period": every(terms.cadence.interval, terms.cadence.count),
        "name": version_name(version),
        "used": [_used(each, terms.currency) for each in made if each.quantity],
        "invoice": _invoice(calculation),
        "other_name": other_name,
        "other_invoice": _invoice(compared) if compared else None,
        "difference": _difference(calculation, compared) if compared else "",
        "charts": price_curves(dial, terms, compared.terms if compared else None, other_name) if dial else [],
    }
    return render_to_string("studio/calculator.html", context)


def version_name(version: TierVersion) -> str:
    """Return how a version is called: "Growth version 2 (draft)"."""
    return f"{version.tier.name} version {version.number}{'' if version.is_published else ' (draft)'}"


def _choice_name(one: TierVersion, version: TierVersion) -> str:
    return "this version as it is saved" if one == version else version_name(one)


def _dial(dial: Dial, currency: str) -> dict[str, Any]:
    return {
        "name": dial_name(dial),
        "unit": dial_unit(dial, currency),
        "meter": dial.charge.meter_code,
        "dimensions": urlencode(dial.charge.dimensions),
        "quantity": plain(dial.quantity),
        "events": dial.events if dial.counts_events else None,
        "end": plain(dial.end),
        "step": plain(dial.step),
    }


def _used(dial: Dial, currency: str) -> str:
    amount = words.money(dial.quantity, currency) if dial.is_value else words.units(dial.quantity, dial.meter.unit)
    return f"{amount} of {dial_name(dial)}"


def _invoice(calculation: Calculation) -> dict[str, Any]:
    quote = calculation.quote
    return {
        "lines": [_line(line, calculation) for line in quote.lines],
        "total": words.money(quote.amount, quote.currency),
        "unpriced": [
            f"{words.quantity(one.quantity)} of {usage_name(one.meter, one.dimensions)}" for one in calculation.unpriced
        ],
    }


def _line(line: QuotedLine, calculation: Calculation) -> dict[str, Any]:
    terms = calculation.terms
    charge = next((one for one in terms.charges if one.position == line.charge), None)
    unit = calculation.meters[charge.meter_id].unit if charge else ""
    is_value = charge is not None and charge.price.model in RATES_WHOLE_VALUE
    parts = [
        (
            component_words(component, unit, terms.currency, is_value=is_value),
            words.money(words.rounded(Decimal(str(component["total"])), places=_PLACES_SHOWN), terms.currency),
        )
        for component in line.components
    ]
    description = line.description if charge else f"{line.description}, {_fee_words(terms)}"
    return {"description": description, "amount": words.money(line.amount, terms.currency), "parts": parts}


def _fee_words(terms: VersionTerms) -> str:
    due = "at its end" if terms.fee_timing == "arrears" else "in advance"
    return f"fee {every(terms.cadence.interval, terms.cadence.count * terms.fee_every)}, {due}"


def _difference(calculation: Calculation, compared: Calculation) -> str:
    """Say how the first invoice's total differs from the second's."""
    ours, theirs = calculation.quote, compared.quote
    if ours.currency != theirs.currency:
        return "in another currency, so not compared"
    difference = Fraction(ours.amount) - Fraction(theirs.amount)
    if not difference:
        return "the same"
    share = ""
    if theirs.amount:
        hundredths = abs(difference) * 100 / Fraction(theirs.amount)
        share = f", {words.percent(words.rounded(hundredths, places=1))}"
    return f"{words.money(abs(difference), ours.currency)}{share} {'more' if difference > 0 else 'less'}"
