"""Drawings: round axes, lines that differ without colour, figures as a table, and nothing of a name that is markup."""

from decimal import Decimal
from fractions import Fraction
from xml.etree import ElementTree

from billing_site.console.studio.charts import Series, histogram, line_chart, money_axis, units_axis

X, Y = units_axis("Tokens", "token"), money_axis("Price", "USD")


def drawn(*series, **options):
    html = str(line_chart(series, title="Price & more", x=X, y=Y, **options))
    return ElementTree.fromstring(html), html


def lines(figure):
    return [path for path in figure.find("svg").iter("path") if "line" in path.get("class", "").split()]


def test_a_drawing_is_well_formed_and_named():
    figure, _ = drawn(Series("<b>ours</b>", [(0, 0), (100, 4)]))
    svg = figure.find("svg")
    assert (svg.get("role"), svg.get("aria-label")) == ("img", "Price & more")
    assert svg.find("title").text == "Price & more"
    assert "<b>ours</b>" in svg.find("desc").text
    texts = [text.text for text in svg.iter("text")]
    assert {"Tokens", "Price", "0", "100", "$0", "$4"} <= set(texts)


def test_a_line_goes_from_corner_to_corner():
    figure, _ = drawn(Series("ours", [(Decimal(0), Fraction(0)), (Decimal(100), Fraction(4))]))
    assert [line.get("d") for line in lines(figure)] == ["M22.0 186.0L344.0 26.0"]


def test_lines_differ_without_colour():
    figure, _ = drawn(Series("ours", [(0, 0), (1, 1)]), Series("theirs", [(0, 1), (1, 0)]))
    assert len({line.get("stroke-dasharray") for line in lines(figure)}) == 2


def test_a_gap_and_what_is_out_of_bounds_break_a_line():
    figure, _ = drawn(Series("ours", [(0, 900), (1, 5), None, (2, 5), (3, 4)]), bounds=(0, 5))
    [line] = lines(figure)
    assert line.get("d").count("M") == 2


def test_amounts_below_nothing_are_drawn():
    figure, _ = drawn(Series("ours", [(0, -3), (1, 2)]))
    assert "−$2" in [text.text for text in figure.find("svg").iter("text")]


def test_nothing_to_draw_is_no_error():
    assert "NaN" not in drawn()[1]
    assert lines(drawn(Series("ours", [(0, 0)]))[0])


def test_the_figures_stand_in_a_table():
    figure, _ = drawn(Series("ours", [(0, 0), (10, Fraction(2, 3))]), Series("theirs", [(0, 1)]), listed=[0, 5, 10])
    rows = [[cell.text for cell in row] for row in figure.iter("tr")]
    assert rows == [["Tokens", "ours", "theirs"], ["0 tokens", "$0.00", "$1.00"], ["10 tokens", "$0.6667", "–"]]


def test_a_place_may_be_pointed_out():
    assert '<path class="mark" d=' in drawn(Series("ours", [(0, 0), (10, 1)]), mark=(5, "used"))[1]
    assert '<path class="mark" d=' not in drawn(Series("ours", [(0, 0), (10, 1)]), mark=(50, "used"))[1]


def test_a_histogram_has_a_bar_and_a_row_for_each_kind():
    figure = ElementTree.fromstring(
        str(histogram([("0 % to <5 %", 40), ("over 5 %", 10), ("none", 0)], title="Tenants"))
    )
    bars = [float(bar.get("width")) for bar in figure.iter("rect")]
    assert bars[0] == 4 * bars[1] > 0 == bars[2]
    rows = [[cell.text for cell in row] for row in figure.iter("tr")]
    assert rows[1:] == [["0 % to <5 %", "40"], ["over 5 %", "10"], ["none", "0"]]


def test_a_histogram_of_nothing_is_no_error():
    ElementTree.fromstring(str(histogram([], title="Tenants")))
