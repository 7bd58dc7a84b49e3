"""The calculator's figures are those of invoices, for what is stored and what is not, and its curves those of the calculator."""

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoices.models import Invoice
from invoices.selectors.calculating import calculate, curves, dials, key_of
from invoices.selectors.quoting import QuotedUsage, quote_terms, quote_usage
from invoices.services.advancing import advance
from subscriptions.core.price_documents import price_document
from subscriptions.core.prices import RATES_WHOLE_VALUE
from subscriptions.selectors.catalog import get_version, terms_of, version_document
from subscriptions.services.draft_terms import terms_of_document
from tests.properties.test_pricing_laws import prices
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

GRADUATED = {
    "model": "graduated",
    "bands": [
        {"up_to": "10000", "unit_amount": "0"},
        {"up_to": "1000000", "unit_amount": "0.0002"},
        {"unit_amount": "0.00015"},
    ],
}


def of_tokens(quantity, events=1, **dimensions):
    return QuotedUsage("tokens", dimensions, Decimal(quantity), events)


def terms_with(version, **document):
    """Return the terms of a version's document with other members, not stored."""
    return terms_of_document(version_document(get_version(version.tier, version.number)) | document, version=version)


def test_a_document_that_is_stored_nowhere_is_priced():
    make_meter()
    version = publish("growth")
    draft = terms_with(version, fee="0", charges=[charge(price=GRADUATED)])
    quote = quote_terms(terms=draft, usage=[of_tokens(1_234_567)])
    assert (quote.amount, quote.amount_precise) == (Decimal("231.69"), Decimal("231.68505"))
    assert quote_usage(version=version, usage=[of_tokens(1_234_567)]).amount == Decimal("343.91")


def test_a_document_as_it_is_stored_has_the_terms_that_are_stored():
    make_meter(dimensions=["model"])
    own = charge(dimensions={"model": "opus"}, included="100", price={"model": "flat", "amount": "5"})
    version = publish("growth", charges=[charge(), own], trial_days=14, fee_every=12)
    unsaved, stored = terms_with(version), terms_of(version.pk)
    usage = [of_tokens(20_000), of_tokens(150, model="opus")]
    assert quote_terms(terms=unsaved, usage=usage) == quote_terms(terms=stored, usage=usage)
    assert (unsaved.trial_days, unsaved.fee_every, unsaved.cadence) == (14, 12, stored.cadence)


def test_the_calculated_invoice_is_the_invoice():
    make_meter()
    flat = charge(included=None, price={"model": "flat", "amount": "7"})
    make_meter("calls", aggregation="count", value_property=None)
    version = publish("growth", charges=[charge(price=GRADUATED | {"amount_min": "400"}), flat | {"meter": "calls"}])
    world = make_world(version=version, now=at("2026-06-20 00:00"), meter=False)
    world.use(1_244_567, time=at("2026-06-05 00:00"))
    advance(clock_id=world.clock.pk, to=at("2026-07-01 02:00"), actor=ACTOR)
    invoice = Invoice.objects.filter(tenant=world.tenant).latest("pk")
    usage = [of_tokens(1_244_567), QuotedUsage("calls", {}, Decimal(1), 1)]
    quote = calculate(terms_of(version.pk), usage).quote

    billed = {(line.kind, line.amount, line.amount_precise) for line in invoice.lines.all()}
    assert {(line.kind, line.amount, line.amount_precise) for line in quote.lines} == billed
    assert quote.amount == invoice.total


def test_a_flat_price_is_owed_without_usage():
    make_meter()
    version = publish("growth", charges=[charge(price={"model": "flat", "amount": "7"})])
    assert quote_usage(version=version, usage=[]).amount == Decimal("106.00")


def test_events_with_bounds_are_taken_to_be_alike():
    make_meter()
    price = {"model": "percentage", "rate": "10", "minimum_per_event": "2"}
    version = publish("growth", fee="0", charges=[charge(included="0", price=price)])
    amounts = [quote_usage(version=version, usage=[of_tokens(90, events)]).amount for events in (1, 3, 9)]
    assert amounts == [Decimal("9.00"), Decimal("9.00"), Decimal("18.00")]


def test_usage_that_a_version_does_not_price_is_set_apart_not_free():
    make_meter(dimensions=["model"])
    version = publish("growth", charges=[charge(dimensions={"model": "opus"}, included="0")])
    usage = [of_tokens(10, model="haiku"), of_tokens(0, model="sonnet"), QuotedUsage("calls", {}, Decimal(5))]
    calculation = calculate(terms_of(version.pk), usage)
    assert [one.quantity for one in calculation.unpriced] == [10, 5]
    assert calculation.quote.amount == Decimal("99.00")


def test_dials_offer_what_each_charge_prices_and_keep_what_was_entered():
    make_meter(dimensions=["model"])
    opus = charge(dimensions={"model": "opus"}, included=None, price={"model": "per_unit", "unit_amount": "0.01"})
    version = publish("growth", charges=[charge(price=GRADUATED), opus])
    terms = terms_of(version.pk)
    entered = {key_of(terms.charges[1]): (Decimal(77), 3)}
    everything, some = dials(terms, entered)
    assert (everything.end, everything.quantity, some.quantity, some.events) == (2_500_000, 1_250_000, 77, 3)
    assert (some.end, some.step) == (10_000, 10)


def curve_of(price, against=None, quantity="0", included="0", events=1):
    make_meter()
    version = publish("growth", charges=[charge(included=included, price=price)])
    terms = terms_of(version.pk)
    versions = [terms, *([terms_with(version, charges=[charge(included=included, price=against)])] if against else [])]
    [dial] = dials(terms, {("tokens", ()): (Decimal(quantity), events)})
    return curves(dial, versions)


def test_a_curve_turns_at_its_bands_and_says_what_one_more_costs():
    [curve] = curve_of(GRADUATED, included="10000")
    by_units = {point.units: point for point in curve}
    assert by_units[Decimal(0)].total == 0
    assert by_units[Decimal(20_000)].total == 0
    assert by_units[Decimal(1_010_000)].total == 198
    further = {point.marginal for point in curve if point.marginal is not None}
    assert further == {0, Fraction("0.0002"), Fraction("0.00015")}
    assert curve[-1].units >= 1_010_000 * Fraction(5, 4)
    assert curve[-1].per_unit == curve[-1].total / Fraction(curve[-1].units)


def test_a_cliff_is_a_jump_and_no_price_of_one_more():
    volume = {"model": "volume", "bands": [{"up_to": "1000", "unit_amount": "0.5"}, {"unit_amount": "0.1"}]}
    [curve] = curve_of(volume)
    edge = next(point for point in curve if point.units == 1000)
    assert (edge.total, edge.marginal) == (500, None)
    assert {point.marginal for point in curve[:-1]} == {None, Fraction("0.5"), Fraction("0.1")}


def test_two_versions_are_drawn_at_the_same_points():
    ours, theirs = curve_of({"model": "per_unit", "unit_amount": "0.0002"}, GRADUATED, quantity="3000000")
    assert [point.units for point in ours] == [point.units for point in theirs]
    assert ours[-1].units > 3_000_000
    assert Decimal(1_000_000) in {point.units for point in ours}


def test_a_version_that_does_not_price_the_usage_has_no_curve():
    make_meter()
    version = publish("growth", charges=[charge()])
    [dial] = dials(terms_of(version.pk), {})
    assert curves(dial, [terms_with(version, charges=[])]) == [[]]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(price=prices, included=st.sampled_from(["0", "100"]), events=st.integers(1, 5))
def test_every_point_of_a_curve_is_what_the_calculator_says_there(tokens_version, price, included, events):
    one = charge(included="0" if price.model in RATES_WHOLE_VALUE else included, price=price_document(price))
    terms = terms_with(tokens_version, fee="0", charges=[one])
    [dial] = dials(terms, {("tokens", ()): (Decimal(40), events)})
    [curve] = curves(dial, [terms])
    for point in curve[:: max(len(curve) // 5, 1)]:
        in_events = ceil(Fraction(point.units) * events / 40)
        lines = calculate(terms, [QuotedUsage("tokens", {}, point.units, in_events)]).quote.lines
        total = sum((Fraction(line.amount_precise) for line in lines), Fraction(0))
        # A line shows a third, say, to 18 places.
        assert abs(total - point.total) < Fraction(1, 10**15)


@pytest.fixture
def tokens_version():
    make_meter()
    return publish("growth")
