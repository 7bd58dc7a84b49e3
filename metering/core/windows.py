"""
Rolling windows: how much was used within the last hours or days, by buckets.

A window has 60 buckets by the time at which usage occurred. A bucket counts until its end has left the window, so that a limit is never late
to deny, and at most a sixtieth of the window too strict. Owns no sums (`metering.services.windows` keeps them). Source: semantics, "The gate".
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from metering.core.decision import Limit, LimitKind
from subscriptions.core.money import exact

BUCKETS = 60

_DURATION = re.compile(r"P(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Window:
    """At most so many meter units within any stretch of this length; `text` is the length as the charge says it, "PT5H"."""

    text: str
    seconds: int
    quantity: Decimal

    def limit(self, use: "WindowUse", *, asked: Decimal, now: datetime) -> Limit:
        """
        Return the window as a limit of the gate, for a call that will use `asked`; holds count as usage of now.

        It frees up when enough of its buckets have left for the call to fit; where that fits already, when the first one leaves. Never,
        where the call and the holds alone are beyond it.
        """
        counted = sorted((at, quantity) for at, quantity in use.buckets.items() if at > counts_after(now, self.seconds))
        with exact():
            taken = sum((quantity for _, quantity in counted), use.held)
            missing = taken + asked - self.quantity
            frees_at = None
            for at, quantity in counted:
                missing -= quantity
                if missing <= 0 and quantity:
                    frees_at = at + _width(self.seconds) + timedelta(seconds=self.seconds)
                    break
        return Limit(LimitKind.WINDOW, self.quantity, taken, asked, frees_at, self.text)


@dataclass(frozen=True, slots=True)
class WindowUse:
    """What stands in a window: sums by the first instants of their buckets, and what is held."""

    buckets: Mapping[datetime, Decimal]
    held: Decimal = _ZERO


def window_of(text: str, quantity: Decimal) -> Window:
    """
    Return a window by its ISO 8601 length of days, hours and minutes. Raises ValueError for anything else, and for no time at all.

    >>> window_of("P1DT12H", Decimal(5)).seconds
    129600
    """
    match = _DURATION.fullmatch(text)
    days, hours, minutes = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    seconds = ((days * 24 + hours) * 60 + minutes) * 60
    if not seconds:
        raise ValueError(f"{text!r} is no length of a window")
    return Window(text, seconds, quantity)


def bucket_of(instant: datetime, seconds: int) -> datetime:
    """
    Return the first instant of the bucket in which an instant lies, of a window of this length: whole minutes have whole buckets.

    >>> bucket_of(datetime(2026, 6, 20, 12, 3, 59, tzinfo=UTC), 3600).isoformat()
    '2026-06-20T12:03:00+00:00'
    """
    return instant - (instant - _EPOCH) % _width(seconds)


def counts_after(now: datetime, seconds: int) -> datetime:
    """Return the instant after which buckets begin that still count at `now`."""
    return now - timedelta(seconds=seconds) - _width(seconds)


def lengths(windows: Iterable[Window]) -> tuple[int, ...]:
    """Return the lengths for which buckets are kept, in seconds, each once."""
    return tuple(sorted({window.seconds for window in windows}))


def _width(seconds: int) -> timedelta:
    return timedelta(seconds=seconds // BUCKETS)
