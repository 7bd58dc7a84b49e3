"""What publishing is called by people who make prices: for whom, what that does to how many, and who it was."""

from datetime import UTC, datetime

from subscriptions.core.guards import Figures, Limits, percent
from subscriptions.core.money import plain
from subscriptions.models import Publication
from subscriptions.selectors.affected import Affected

COHORTS = {
    Publication.Cohort.NEW.value: "New subscribers only",
    Publication.Cohort.RENEWAL.value: "Also today's subscribers, when they renew",
    Publication.Cohort.NOW.value: "Also today's subscribers, in the middle of their period",
}

# The same within a sentence: "published for …".
FOR_WHOM = {
    Publication.Cohort.NEW.value: "new subscribers",
    Publication.Cohort.RENEWAL.value: "new subscribers, and subscriptions at their next renewal",
    Publication.Cohort.NOW.value: "new subscribers, and all subscriptions at that instant",
}


def moment(instant: datetime) -> str:
    """
    Return an instant as a date and a time of day.

    >>> moment(datetime(2026, 7, 1, 9, 5, tzinfo=UTC))
    '1 July 2026, 09:05 UTC'
    """
    in_utc = instant.astimezone(UTC)
    return f"{in_utc.day} {in_utc:%B %Y, %H:%M} UTC"


def subscriptions(count: int) -> str:
    """
    Return how many subscriptions.

    >>> subscriptions(1), subscriptions(12_000)
    ('1 subscription', '12,000 subscriptions')
    """
    return f"{count:,} subscription{'' if count == 1 else 's'}"


def effects(cohort: str, affected: Affected, *, at: datetime | None) -> list[str]:
    """Say what publishing to a cohort does to whom, a sentence for each group that is not empty; `at` is its date, None for at once."""
    since = "now" if at is None else moment(at)
    said = [f"Whoever subscribes from {since} on gets this version."]
    if cohort == Publication.Cohort.NEW:
        return [*said, "Whoever has subscribed before keeps the version that they have."]
    if cohort == Publication.Cohort.RENEWAL:
        soon = "change when the period that they are in ends"
        later = f"change with the first period that begins from {since} on"
    else:
        soon = f"change {'at once' if at is None else f'at {since}'}, by this version's own terms of change"
        later = "change later, in their own time: they start later, or that time is behind them"
    groups = [
        (affected.at_once, soon),
        (affected.later, later),
        (affected.paused, "paused, change when resumed"),
        (affected.ending, "end before that: nothing changes"),
        (affected.other_currency, "in another currency: nothing changes"),
    ]
    said += [f"{subscriptions(count)} – {what}." for count, what in groups if count]
    if not affected.subscriptions:
        said.append("No subscription of this tier is on another version: nobody's price changes.")
    if affected.on_test_clocks:
        said.append(f"{subscriptions(affected.on_test_clocks)} of these – on a test clock, so no real customer.")
    return said


def limits(found: Limits) -> list[str]:
    """Return a tier's guards as sentences; nothing without one."""
    said = []
    if found.rise_percent_max is not None:
        said.append(f"No customer may pay over {plain(found.rise_percent_max)} % more than now.")
    if found.revenue_fall_percent_max is not None:
        said.append(f"Revenue may not fall by more than {plain(found.revenue_fall_percent_max)} %.")
    return said


def figures(found: Figures) -> str:
    """
    Say what a backtest found.

    >>> from decimal import Decimal
    >>> figures(Figures(largest_rise_percent=Decimal("25"), revenue_change_percent=Decimal("-1.5")))
    'The customer whose bill rises most pays 25 % more; revenue falls by 1.5 %.'
    """
    rise, change = found.largest_rise_percent, found.revenue_change_percent
    if rise is None:
        said = "There is nobody whose bill could be compared"
    elif not rise.is_finite():
        said = "Somebody who pays nothing now would pay something"
    elif rise > 0:
        said = f"The customer whose bill rises most pays {percent(rise)} % more"
    else:
        said = "No bill rises"
    if change is None:
        return f"{said}."
    if not change:
        return f"{said}; revenue stays as it is."
    return f"{said}; revenue {'rises' if change > 0 else 'falls'} by {percent(abs(change))} %."


def person(actor: str) -> str:
    """
    Return who did something, as people call them.

    >>> person("staff:ann"), person("key:tb_ab12"), person("system")
    ('ann', 'the API key tb_ab12', 'system')
    """
    kind, _, name = actor.partition(":")
    return {"staff": name, "key": f"the API key {name}", "shell": f"{name} at the command line"}.get(kind, actor)
