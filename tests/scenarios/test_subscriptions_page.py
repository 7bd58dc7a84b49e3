"""docs/subscriptions.md: every request of its tables is sent, and every figure is what the product answers."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.story import PER_TOKEN, Story, tokens

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = (Path(__file__).parents[2] / "docs/subscriptions.md").read_text()

_SENT = re.compile(r"`([^`]+)`")


def tables() -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Return each table of the page: the heading that it stands under, its columns, and its rows."""
    for section in re.split(r"^#+ ", PAGE, flags=re.M)[1:]:
        heading, _, text = section.partition("\n")
        for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
            columns, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines())
            yield heading, columns, rows


def rows_of(first_column: str) -> dict[str, list[list[str]]]:
    return {heading: rows for heading, columns, rows in tables() if columns[0] == first_column}


EXAMPLES = rows_of("when")
OFFERS = {row[0].strip("`"): row[1:] for row in rows_of("tier")["How to read the examples"]}
REFUSALS = rows_of("after")["What is refused"]


def offer_all(customer: Story, sent: str) -> None:
    """Offer each tier that is named in what will be sent, as the page's table says it."""
    for tier in sorted(set(re.findall(r'"tier": "(.*?)"', sent))):
        fee, included, terms = OFFERS[tier]
        given = json.loads(terms.strip("`")) if terms else {}
        own = {name: given.pop(name) for name in ("price", "trial_included") if name in given}
        customer.offer(tier, fee, None, charge=tokens(included, **{"price": PER_TOKEN, **own}), **given)


def send(customer: Story, sent: str) -> None:
    """Send what a table has between backticks."""
    word, _, rest = sent.partition(" ")
    if word == "use":
        quantity, _, on = rest.partition(" at ")
        customer.use(int(quantity), on=on or None)
        return
    body: dict[str, Any] = json.loads(rest)
    match word:
        case "subscribe":
            customer.subscribe(**body)
        case "tenant":
            customer.move_to(body["timezone"])
        case "publish":
            customer.publish(**body)
        case _:
            customer.do(word, **body)


def bill(invoice: dict[str, Any]) -> str:
    """Write an invoice as the tables do."""
    return f"{invoice['reason']} {invoice['total']} ({', '.join(line['amount'] for line in invoice['lines'])})"


def begin(tell: Callable[..., Story], begins: str, sent: str) -> Story:
    """Begin a story with every tier that is named in what will be sent; in the zone of which it begins with."""
    zone = re.match(r'`tenant {"timezone": "(.*?)"}`', sent)
    customer = tell(begins, zone=zone[1] if zone else "UTC")
    offer_all(customer, sent)
    return customer


@pytest.mark.parametrize("heading", EXAMPLES)
def test_every_example_is_what_happens(tell, heading):
    rows = EXAMPLES[heading]
    customer = begin(tell, rows[0][0], "".join(row[1] for row in rows))
    billed = 0
    for when, what, included, used, bills in rows:
        if when != rows[0][0]:
            customer.on(when)
        for sent in _SENT.findall(what):
            send(customer, sent)
        balance, invoices = customer.balance(), customer.invoices()
        came, billed = invoices[billed:], len(invoices)
        assert [
            balance.get("included", ""),
            balance.get("used", ""),
            "; ".join(map(bill, came)),
        ] == [included, used, bills], when


def test_what_is_refused(tell):
    answers = []
    for number, (after, asked, _) in enumerate(REFUSALS):
        customer = tell("2026-06-01", customer=f"customer-{number}")
        if not number:
            offer_all(customer, f'"tier": "growth" {REFUSALS}')
        customer.subscribe("growth")
        customer.on("2026-06-15 10:00")
        for sent in _SENT.findall(after):
            send(customer, sent)
        word, _, body = asked.strip("`").partition(" ")
        answers.append(customer.refused(word, **json.loads(body)))
    assert answers == [answer for _, _, answer in REFUSALS]


def test_the_statement_is_the_one_that_the_page_shows(tell):
    customer = begin(tell, "2026-06-01", '"tier": "growth" "tier": "scale"')
    customer.subscribe("growth")
    customer.use(12_000)
    customer.on("2026-06-15")
    said = [line.removeprefix("> ") for line in PAGE.splitlines() if line.startswith("> ")]
    assert customer.change("scale")["words"] == said


def test_every_transition_of_the_api_has_its_example():
    from invoices.api.urls import urlpatterns

    verbs = {
        str(one.pattern).rpartition("/")[2] for one in urlpatterns if str(one.pattern).startswith("subscriptions/<")
    }
    sent = {each.partition(" ")[0] for rows in EXAMPLES.values() for row in rows for each in _SENT.findall(row[1])}
    assert verbs - {"changes", "<uuid:subscription>", "<uuid:change>"} <= sent
