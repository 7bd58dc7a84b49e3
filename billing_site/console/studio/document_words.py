"""How the studio says what a document writes as a code, for people who set prices."""

from collections.abc import Mapping, Sequence

from subscriptions.core.prices import OPTIONAL_FIELDS, REQUIRED_FIELDS, PriceModel

# By member of the version document: what may be chosen, and how each choice reads.
CHOICES: Mapping[str, Sequence[tuple[str, str]]] = {
    "interval": (
        ("day", "day"),
        ("week", "week"),
        ("month", "month"),
        ("quarter", "quarter"),
        ("semiannual", "half-year"),
        ("year", "year"),
    ),
    "alignment": (("anniversary", "the day of subscribing"), ("calendar", "the calendar: 1st, Monday")),
    "fee_timing": (("advance", "in advance"), ("arrears", "afterwards")),
    "trial_end": (
        ("convert", "the first paid period begins"),
        ("pause", "the subscription pauses"),
        ("cancel", "the subscription ends"),
    ),
    "trial_overage": (("none", "is not possible"), ("bill", "is billed")),
    "change_fee": (
        ("prorate", "in proportion to the time left"),
        ("full", "in full, nothing given back"),
        ("none", "no fee until the next period"),
    ),
    "change_grain": (("day", "whole days"), ("second", "the exact second")),
    "change_allowance": (
        ("prorated", "in proportion to the time"),
        ("full_new", "becomes the new one at once"),
        ("reset", "starts anew, with a new period"),
    ),
    "change_bill": (("next", "on the next invoice"), ("now", "at once, on an invoice of its own")),
    "at_limit": (
        ("allow", "goes on, billed as below"),
        ("deny", "stops"),
        ("degrade", "goes on degraded, billed as below"),
    ),
    "model": (
        (PriceModel.PER_UNIT, "One price per unit"),
        (PriceModel.GRADUATED, "Bands: each unit at its own band's price"),
        (PriceModel.VOLUME, "Bands: all units at the price of the band reached"),
        (PriceModel.PACKAGE, "Packages of units"),
        (PriceModel.FLAT, "One amount, however much is used"),
        (PriceModel.PERCENTAGE, "A percentage of a value"),
        (PriceModel.GRADUATED_PERCENTAGE, "Bands: a percentage per band of a value"),
        (PriceModel.DYNAMIC, "The cost that events carry, times a factor"),
    ),
    "zero_usage": (("zero", "costs nothing"), ("first_tier_flat", "costs the first band's flat amount")),
    "transform": (("", "as the meter counts"), ("divide", "divided by"), ("multiply", "multiplied by")),
    "round": (
        ("none", "not rounded"),
        ("up", "rounded up to whole ones"),
        ("down", "rounded down to whole ones"),
        ("half_up", "rounded to the nearest whole one"),
    ),
    "once": (("period", "in each period"), ("life", "once only")),
    "measure": (
        ("percent", "percent of the allowance"),
        ("quantity", "units used"),
        ("amount", "of overage, in money"),
    ),
    "matching": (("any", "any"), ("value", "only"), ("none", "events without one")),
    "feature": (("flag", "yes or no"), ("number", "a number"), ("text", "a text")),
}

# What each model of a price means, in a sentence.
MODELS: Mapping[str, str] = {
    PriceModel.PER_UNIT: "Every unit beyond the allowance costs the same.",
    PriceModel.GRADUATED: "The first units cost the first band's price, the next ones the second's, and so on. More usage never costs less.",
    PriceModel.VOLUME: "The band that the total reaches prices all units, the first ones too. Crossing into a cheaper band can cost less.",
    PriceModel.PACKAGE: "Units are sold by the package.",
    PriceModel.FLAT: "The same amount in each period, also without usage.",
    PriceModel.PERCENTAGE: "For meters that sum money: a share of it, and an amount per event. Nothing can be included.",
    PriceModel.GRADUATED_PERCENTAGE: "For meters that sum money: each part of it at the rate of its own band. Nothing can be included.",
    PriceModel.DYNAMIC: "For meters that sum what usage costs you: that cost, times a factor. Nothing can be included.",
}

# Which members a price of each model may have: what the editor offers is what the validator takes.
PRICE_FIELDS: Mapping[str, Sequence[str]] = {
    model.value: (*REQUIRED_FIELDS[model], *OPTIONAL_FIELDS[model]) for model in PriceModel
}

# By code: faults whose sentence for callers of the API says more than who sets prices wants to know.
_FAULTS: Mapping[str, str] = {
    "required": "Fill this in.",
    "unknown_choice": "Choose one of the list.",
    "not_a_decimal": "Write a number, such as 0.0002 or 1,000.",
    "not_a_window": "Say how long: days, hours or minutes.",
    "not_a_value": "Write a whole number, or choose another kind.",
    "last_band_open": "Say where this band ends: only the last band has no end.",
    "duplicate_member": "Two features have the same name.",
}


def fault_in_words(code: str, message: str) -> str:
    """
    Return what is wrong with a field, as a sentence.

    >>> fault_in_words("negative", "must not be negative"), fault_in_words("required", "is required: a decimal number")
    ('Must not be negative.', 'Fill this in.')
    """
    said = _FAULTS.get(code, message)
    return f"{said[:1].upper()}{said[1:]}".rstrip(".") + "."
