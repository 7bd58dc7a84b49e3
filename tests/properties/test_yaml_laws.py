"""Documents as YAML come back as they were, and what YAML would take for something else is refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from subscriptions.core.differences import differences
from subscriptions.core.yaml_documents import NotReadable, read_yaml, write_yaml
from tests.properties.test_pricing_laws import LAW

words = st.sampled_from(
    ["no", "on", "~", "null", "1:30", "010", "1e3", ".5", "0.0002", "2026-06-01", "=", "<<", "- a", "#x", "a: b", ""]
)
texts = st.text(max_size=30) | words
numbers = st.integers(min_value=-(10**18), max_value=10**18)
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(documents)
@example({"\x85": None})
@example(["a\n\u2028 b\r", {"a\nb": "\x85"}])
@LAW
def test_what_was_written_is_read_as_it_was(document):
    read = read_yaml(write_yaml(document))
    assert read == document
    assert list(differences(document, read)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fee: 99.00", 'Line 1: write "99.00" in quotes: as it stands it is a binary float, which loses digits.'),
        (
            "a: 1\nrate: 1.5e-3",
            'Line 2: write "1.5e-3" in quotes: as it stands it is a binary float, which loses digits.',
        ),
        ("a: .inf", 'Line 1: write ".inf" in quotes: as it stands it is a binary float, which loses digits.'),
        ("code: 010", 'Line 1: write "010" in quotes.'),
        ("code: 1:30", 'Line 1: write "1:30" in quotes.'),
        ("code: 1_000", 'Line 1: write "1_000" in quotes.'),
        ("a: 1\na: 2", "Line 2: a comes twice here."),
        ("a: &x [1]\nb: *x", "Line 2: a reference to another part of the text is not read."),
        ("a: [", "Line 1: "),
        ("a: !!python/object:os.system {}", "Line 1: "),
        ("a: \x00", "The text has characters that YAML does not allow."),
        ("[" * 5000, "The text nests too deeply."),
    ],
)
def test_what_yaml_would_read_otherwise_is_refused(text, message):
    with pytest.raises(NotReadable) as refusal:
        read_yaml(text)
    assert str(refusal.value).startswith(message)


def test_a_date_without_quotes_is_its_text():
    assert read_yaml("effective_at: 2026-06-01T00:00:00Z") == {"effective_at": "2026-06-01T00:00:00Z"}
