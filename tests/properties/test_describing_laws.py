"""Two prices have the same words exactly when they are the same price."""

from hypothesis import given, settings

from subscriptions.core.describing import compared, described
from subscriptions.core.price_documents import price_document
from subscriptions.core.price_words import price_terms
from subscriptions.core.prices import Price
from tests.properties.test_pricing_laws import LAW, prices


def words_of(price: Price) -> list[tuple[str, str]]:
    return list(price_terms(price, "Tokens", "token", "USD"))


@settings(LAW, max_examples=300)
@given(left=prices, right=prices)
def test_prices_that_differ_have_words_that_differ(left: Price, right: Price) -> None:
    assert (words_of(left) == words_of(right)) == (left == right)


@LAW
@given(price=prices)
def test_no_term_of_a_price_hides_another(price: Price) -> None:
    labels = [label for label, _ in words_of(price)]
    assert len(labels) == len(set(labels))


@LAW
@given(left=prices, right=prices)
def test_a_comparison_has_every_term_of_both_once(left: Price, right: Price) -> None:
    before, after = (
        described({"currency": "USD", "charges": [{"meter": "tokens", "price": price_document(price)}]}, {})
        for price in (left, right)
    )
    terms = compared(before, after)
    assert {term.label for term in terms} == {term.label for term in [*before, *after]}
    assert [(term.label, term.right) for term in terms if term.right is not None] == [
        (term.label, term.value) for term in after
    ]
    assert {(term.label, term.left) for term in terms if term.left is not None} == {
        (term.label, term.value) for term in before
    }
