"""
Drawings as SVG, made here, so that a page needs no script to show one.

Owns how figures are drawn: each drawing has a title, a description, axes with labels, lines that differ without colour, and its figures as a
table. Colours stand in studio.css. Calculates coordinates only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from subscriptions.core import words
from subscriptions.core.curves import rounded_up
from subscriptions.core.money import round_half_up
from subscriptions.core.words import Number

Point = tuple[Number, Number] | None
"""Where a line goes; None breaks it."""
Writer = Callable[[Number], str]

# One unit is about a pixel where the drawing is as wide as the narrowest page.
_WIDTH, _HEIGHT = 360, 230
_RIGHT, _TOP, _BOTTOM = 16, 26, 44
_LETTER = 7
_ROW, _BAR_LEFT, _BAR_RIGHT = 24, 150, 56
# The second line is told from the first by its dashes, the third by its dots.
_DASHES = ("none", "7 4", "2 3")
_TICKS = 4
_NOTHING = SafeString("")


@dataclass(frozen=True, slots=True)
class Series:
    """A line and its name."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, and how a number on it is written: shortly beside it, in full in the table."""

    label: str
    short: Writer
    full: Writer


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis,
    y: Axis,
    bounds: tuple[Number, Number] | None = None,
    mark: tuple[Number, str] | None = None,
    listed: Sequence[Number] = (),
) -> SafeString:
    """
    Draw lines over one axis.

    `bounds` cut off what lies above or below them; without, all is shown, and nothing (0) always. `mark` is a place on the x axis to point
    out, and what it is. The table has the rows of `listed`, of those x that any line has.
    """
    across = [Fraction(point[0]) for line in series for point in line.points if point]
    up = [Fraction(number) for number in bounds or ()] or [
        Fraction(point[1]) for line in series for point in line.points if point
    ]
    frame = _Frame.around(across, up, y.short)
    lines = format_html_join(
        "",
        '<path class="line line-{}" d="{}" stroke-dasharray="{}"/>',
        ((number, frame.path(line.points), _dashes(number)) for number, line in enumerate(series)),
    )
    drawing = format_html(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}{}{}{}</svg>',
        _WIDTH,
        _HEIGHT,
        title,
        title,
        f"{y.label} over {x.label}: {', '.join(line.name for line in series)}. The figures stand in a table below.",
        frame.grid(x.short, y.short),
        frame.labels(x.label, y.label),
        lines,
        frame.mark(Fraction(mark[0])) if mark else _NOTHING,
    )
    return _figure(title, drawing, _legend(series, mark[1] if mark else ""), _line_table(series, x, y, listed))


def histogram(bins: Sequence[tuple[str, int]], *, title: str) -> SafeString:
    """Draw how many there are of each kind, as one bar below the other, in the order that is given."""
    most = max((count for _, count in bins), default=0) or 1
    room = _WIDTH - _BAR_LEFT - _BAR_RIGHT
    rows = [
        (
            _BAR_LEFT - 8,
            number * _ROW + 16,
            label,
            _BAR_LEFT,
            number * _ROW + 4,
            _coordinate(Fraction(room * count, most)),
            _ROW - 8,
            _coordinate(_BAR_LEFT + Fraction(room * count, most) + 6),
            number * _ROW + 16,
            f"{count:,}",
        )
        for number, (label, count) in enumerate(bins)
    ]
    bars = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="end">{}</text><rect class="bar" x="{}" y="{}" width="{}" height="{}"/>'
        '<text x="{}" y="{}">{}</text>',
        rows,
    )
    drawing = format_html(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}</svg>',
        _WIDTH,
        max(len(bins), 1) * _ROW,
        title,
        title,
        "One bar for each row of the table below.",
        bars,
    )
    return _figure(title, drawing, _NOTHING, _table(("", "How many"), [(label, f"{count:,}") for label, count in bins]))


@dataclass(frozen=True, slots=True)
class _Frame:
    """The part of the plane that is drawn: round numbers from and to which each axis goes, and the step between its marks."""

    left: Fraction
    right: Fraction
    x_step: Fraction
    low: Fraction
    high: Fraction
    y_step: Fraction
    # Where the plane begins: right of what is written beside the marks.
    margin: int

    @classmethod
    def around(cls, across: Sequence[Fraction], up: Sequence[Fraction], y: Writer) -> "_Frame":
        marks = _rounded(up)
        margin = max(len(y(mark)) for mark in _marks(*marks)) * _LETTER + 8
        return cls(*_rounded(across), *marks, margin)

    def x(self, number: Fraction) -> Fraction:
        return self.margin + (number - self.left) / (self.right - self.left) * (_WIDTH - self.margin - _RIGHT)

    def y(self, number: Fraction) -> Fraction:
        return _TOP + (self.high - number) / (self.high - self.low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(self, points: Sequence[Point]) -> str:
        parts = []
        is_drawing = False
        for point in points:
            if point is None or not self.low <= point[1] <= self.high:
                is_drawing = False
                continue
            place = f"{_coordinate(self.x(Fraction(point[0])))} {_coordinate(self.y(Fraction(point[1])))}"
            parts.append(f"{'L' if is_drawing else 'M'}{place}")
            is_drawing = True
        return "".join(parts)

    def grid(self, x: Writer, y: Writer) -> SafeString:
        bottom, end = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        across = [
            (_coordinate(self.x(number)), bottom, _coordinate(self.x(number)), bottom + 16, x(number))
            for number in _marks(self.left, self.right, self.x_step)
        ]
        up = [
            (
                self.margin,
                _coordinate(self.y(n)),
                end,
                _coordinate(self.y(n)),
                self.margin - 6,
                _coordinate(self.y(n) + 4),
                y(n),
            )
            for n in _marks(self.low, self.high, self.y_step)
        ]
        lines = format_html_join(
            "",
            '<path class="grid" d="M{} {}L{} {}"/><text x="{}" y="{}" text-anchor="end">{}</text>',
            up,
        )
        ticks = format_html_join(
            "", '<path class="grid" d="M{} {}v4"/><text x="{}" y="{}" text-anchor="middle">{}</text>', across
        )
        return lines + ticks

    def labels(self, x: str, y: str) -> SafeString:
        return format_html(
            '<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text><text class="axis" x="0" y="{}">{}</text>',
            (self.margin + _WIDTH - _RIGHT) // 2,
            _HEIGHT - 8,
            x,
            _TOP - 14,
            y,
        )

    def mark(self, number: Fraction) -> SafeString:
        if not self.left <= number <= self.right:
            return _NOTHING
        return format_html(
            '<path class="mark" d="M{} {}V{}" stroke-dasharray="1 3"/>',
            _coordinate(self.x(number)),
            _TOP,
            _HEIGHT - _BOTTOM,
        )


def _rounded(numbers: Sequence[Fraction]) -> tuple[Fraction, Fraction, Fraction]:
    """Return round numbers around these and 0, and the step between the marks from one to the other."""
    least, most = min([Fraction(0), *numbers]), max([Fraction(0), *numbers])
    if least == most:
        most = Fraction(1)
    step = rounded_up((most - least) / _TICKS)
    return least // step * step, -(-most // step) * step, step


def _marks(first: Fraction, last: Fraction, step: Fraction) -> list[Fraction]:
    return [first + step * number for number in range(int((last - first) / step) + 1)]


def _coordinate(number: Number) -> str:
    return f"{round_half_up(Fraction(number), places=1):f}"


def _dashes(number: int) -> str:
    return _DASHES[number % len(_DASHES)]


def _legend(series: Sequence[Series], mark: str) -> SafeString:
    samples = [("line", number, "M0 5H30", _dashes(number), line.name) for number, line in enumerate(series)]
    if mark:
        samples.append(("mark", len(series), "M15 0V10", "1 3", mark))
    items = format_html_join(
        "",
        '<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="{} line-{}" d="{}" stroke-dasharray="{}"/></svg>{}</li>',
        samples,
    )
    return format_html('<ul class="legend">{}</ul>', items)


def _line_table(series: Sequence[Series], x: Axis, y: Axis, listed: Sequence[Number]) -> SafeString:
    values = [{point[0]: point[1] for point in line.points if point} for line in series]
    rows = [
        (x.full(place), *(y.full(line[place]) if place in line else "–" for line in values))
        for place in listed
        if any(place in line for line in values)
    ]
    return _table((x.label, *(line.name for line in series)), rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> SafeString:
    head = format_html_join("", '<th scope="col">{}</th>', ((heading,) for heading in headings))
    body = format_html_join(
        "",
        '<tr><th scope="row">{}</th>{}</tr>',
        ((row[0], format_html_join("", '<td class="amount">{}</td>', ((cell,) for cell in row[1:]))) for row in rows),
    )
    return format_html('<table class="figures"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>', head, body)


def _figure(title: str, drawing: SafeString, legend: SafeString, table: SafeString) -> SafeString:
    return format_html(
        '<figure class="chart"><figcaption>{}</figcaption>{}{}'
        '<details><summary>Figures as a table</summary><div class="scrolls">{}</div></details></figure>',
        title,
        drawing,
        legend,
        table,
    )


def money_axis(label: str, currency: str) -> Axis:
    """Return an axis of amounts."""
    return Axis(label, lambda n: words.short_money(n, currency), lambda n: words.about_money(n, currency))


def units_axis(label: str, unit: str) -> Axis:
    """Return an axis of quantities."""
    return Axis(label, words.short, lambda n: words.units(words.rounded(n, places=2), unit))
