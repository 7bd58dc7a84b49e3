"""The catalogue as text: out and in again is the identity, and what is final is refused."""

import io
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subscriptions.core.yaml_documents import read_yaml, write_yaml
from subscriptions.models import AuditEntry, Meter, Tier, TierVersion
from subscriptions.selectors.catalog_text import catalog_document, catalog_text
from subscriptions.services import catalog
from subscriptions.services.catalog_text import InvalidCatalog, import_catalog
from subscriptions.services.publications import undo_publication
from tests.properties.test_pricing_laws import BY_MODEL, RATES_WHOLE_VALUE
from tests.world import ACTOR, JUNE, PER_TOKEN, charge, make_meter, publish

pytestmark = pytest.mark.django_db

METER = {
    "code": "tokens",
    "name": "Tokens",
    "event_type": "llm.completion",
    "aggregation": "sum",
    "value_property": "n",
}
DRAFT = {"number": 1, "currency": "USD", "fee": "99.00", "charges": [charge()]}
TEXT = write_yaml({"meters": [METER], "tiers": [{"code": "growth", "name": "Growth", "versions": [DRAFT]}]})


def taken(text, **terms):
    return import_catalog(text=text, now=JUNE, actor=ACTOR, **terms)


def faults(text):
    with pytest.raises(InvalidCatalog) as refusal:
        taken(text)
    return [(error.path, error.code) for error in refusal.value.errors]


def changed(change):
    """Return the text of the catalogue as it is, after `change` of its document."""
    document = catalog_document()
    change(document)
    return write_yaml(document)


class _TakeBack(Exception):
    pass


amounts = st.decimals(min_value=0, max_value=1000, places=6)
rating = st.sampled_from(sorted(BY_MODEL)).flatmap(lambda model: st.tuples(st.just(model), BY_MODEL[model]))


@st.composite
def charges(draw, meter):
    model, price = draw(rating)
    included = "0" if model in RATES_WHOLE_VALUE else draw(amounts)
    limits = draw(st.lists(st.just({"quantity": "1000000", "window": "PT5H"}), max_size=1))
    return charge(
        meter=meter,
        price=price,
        included=included,
        at_limit=draw(st.sampled_from(["allow", "deny", "degrade"])),
        trial_included=draw(st.none() | amounts),
        overage_quantity_max=draw(st.none() | amounts),
        limits=limits,
        thresholds=draw(st.sampled_from([[], [{"percent": 80}], [{"amount": "50", "once": "life"}]])),
    )


@st.composite
def versions(draw):
    features = st.booleans() | st.integers(-(10**9), 10**9) | st.sampled_from(["no", "1.5", "2026-01-01", "ja — ☂"])
    return {
        "currency": "USD",
        "interval": draw(st.sampled_from(["day", "month", "year"])),
        "fee": draw(st.decimals(min_value=0, max_value=10_000, places=2)),
        "fee_every": draw(st.integers(1, 12)),
        "trial_days": draw(st.integers(0, 30)),
        "charges": [draw(charges(meter)) for meter in draw(st.sets(st.sampled_from(["calls", "tokens"])))],
        "features": draw(st.dictionaries(st.sampled_from(["sso", "no", "projects"]), features)),
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(versions(), min_size=1, max_size=3),
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20),
)
def test_export_and_import_is_the_identity(db, documents, name):
    try:
        with transaction.atomic():
            make_meter(name=name, filters={"region": ["eu", None, True, 3, Decimal("1.5")]}, dimensions=["model"])
            make_meter("calls", aggregation="count", value_property=None, window_days=7)
            tier = catalog.create_tier(code="growth", name=name, description="For teams.\nAnd more: yes", actor=ACTOR)
            for document in documents:
                catalog.create_version(tier=tier, actor=ACTOR, document=document)
            text = catalog_text()
            assert taken(text) == []
            raise _TakeBack
    except _TakeBack:
        pass
    try:
        with transaction.atomic():
            assert not Meter.objects.exists()
            taken(text)
            assert catalog_text() == text
            raise _TakeBack
    except _TakeBack:
        pass


def test_a_text_makes_what_is_missing_and_says_so():
    assert taken(TEXT) == ["meter tokens: new", "tier growth: new", "tier growth, version 1: new"]
    assert Meter.objects.get().window_days == 35
    assert TierVersion.objects.get().fee == 99
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"create", "draft"}


def test_the_same_text_again_changes_nothing():
    taken(TEXT)
    entries = AuditEntry.objects.count()
    assert taken(TEXT) == []
    assert taken(catalog_text()) == []
    assert (AuditEntry.objects.count(), TierVersion.objects.get().revision) == (entries, 1)


def test_a_dry_run_says_what_would_change_and_changes_nothing():
    assert len(taken(TEXT, dry_run=True)) == 3
    assert not Meter.objects.exists()
    assert not AuditEntry.objects.exists()


def test_a_draft_is_replaced_and_the_change_told_in_words():
    taken(TEXT)

    def cheaper(document):
        [version] = document["tiers"][0]["versions"]
        version["fee"] = "89"
        version["charges"][0]["price"]["unit_amount"] = "0.00018"
        version["features"] = {"sso": True}

    assert taken(changed(cheaper)) == [
        "tier growth, version 1: fee: 99.00 → 89.00",
        "tier growth, version 1: charges.0.price.unit_amount: 0.0002 → 0.00018",
        "tier growth, version 1: features.sso: new, true",
    ]
    assert TierVersion.objects.get().revision == 2


def test_names_are_brought_up_to_date_and_what_is_left_out_stays():
    make_meter(unit="token")
    text = write_yaml({"meters": [{"code": "tokens", "name": "Tokens used"}]})
    assert taken(text) == ["meter tokens: name: tokens → Tokens used"]
    assert Meter.objects.get().unit == "token"
    assert taken("{}") == []


def test_true_is_no_one():
    taken(
        write_yaml(
            {
                "tiers": [
                    {"code": "a", "name": "A", "versions": [{"number": 1, "currency": "USD", "features": {"x": 1}}]}
                ]
            }
        )
    )
    words = taken(changed(lambda document: document["tiers"][0]["versions"][0].update(features={"x": True})))
    assert words == ["tier a, version 1: features.x: 1 → true"]


def test_what_is_published_is_carried_over_with_its_publication():
    make_meter()
    publish()
    text = catalog_text()
    publications = read_yaml(text)["tiers"][0]["versions"][0]["publications"]
    assert publications == [{"cohort": "new", "effective_at": "2016-06-03T00:00:00Z"}]
    text = text.replace("growth", "copy")
    assert taken(text)[-1] == "tier copy, version 1: new, live for new from 2016-06-03T00:00:00Z"
    assert TierVersion.objects.get(tier__code="copy").is_published
    assert taken(text) == []


def test_all_publications_that_stand_are_carried_over():
    make_meter()
    version = publish()
    later = {"now": JUNE, "actor": ACTOR, "version_id": version.pk}
    catalog.publish(**later, cohort="renewal", effective_at=JUNE + timedelta(days=30))
    catalog.publish(**later, cohort="now", effective_at=JUNE + timedelta(days=60))
    undo_publication(version_id=version.pk, now=JUNE, actor=ACTOR, cohort="now")
    text = catalog_text().replace("growth", "copy")
    assert taken(text)[-1] == (
        "tier copy, version 1: new, live for new from 2016-06-03T00:00:00Z, live for renewal from 2026-07-01T00:00:00Z"
    )
    assert taken(text) == []
    twice = changed(lambda document: document["tiers"][0]["versions"][0]["publications"][1].update(cohort="new"))
    assert faults(twice) == [("tiers.0.versions.0.publications.1.cohort", "duplicate")]


def test_a_draft_is_published_by_the_text():
    taken(TEXT)
    publication = {"cohort": "new", "effective_at": "2026-07-01T00:00:00Z"}
    words = taken(changed(lambda document: document["tiers"][0]["versions"][0].update(publications=[publication])))
    assert words == ["tier growth, version 1: publications.0: new, {cohort: new, effective_at: 2026-07-01T00:00:00Z}"]
    assert TierVersion.objects.get().is_published


def test_a_published_version_is_refused_every_change():
    make_meter()
    publish()

    def version(**terms):
        return changed(lambda document: document["tiers"][0]["versions"][0].update(terms))

    with pytest.raises(InvalidCatalog) as refusal:
        taken(version(fee="1"))
    [fault] = refusal.value.errors
    assert (fault.path, fault.code) == ("tiers.0.versions.0", "published")
    assert fault.message.endswith("is published and final; give what should change the next number (fee: 99.00 → 1)")
    assert faults(version(publications=[])) == [("tiers.0.versions.0.publications", "published")]
    assert taken(version(fee="99")) == []  # the same, written otherwise


def test_how_a_meter_counts_is_refused_every_change():
    make_meter()
    counting = {"event_type": "x", "aggregation": "count", "value_property": None, "dimensions": ["a"]}
    text = changed(lambda document: document["meters"][0].update(counting))
    with pytest.raises(InvalidCatalog) as refusal:
        taken(text)
    assert [error.path for error in refusal.value.errors] == [
        "meters.0.event_type",
        "meters.0.aggregation",
        "meters.0.value_property",
        "meters.0.dimensions",
    ]


def test_all_faults_are_named_by_their_place_and_nothing_is_written():
    bad = {"number": 3, "currency": "USD"}
    worse = {"number": 1, "currency": "XXX", "charges": [charge(meter="none", price=PER_TOKEN | {"unit_amount": "-1"})]}
    tiers = [
        {"code": "a", "name": "A", "versions": [worse, bad, 5]},
        {"code": "no code", "name": ""},
        {"code": "b", "name": "B", "version": []},
    ]
    meters = [
        METER,
        METER | {"code": "x", "aggregation": "sums", "precision": 13, "late_policy": "later", "window_days": 0},
    ]
    assert faults(write_yaml({"meters": meters, "tiers": tiers, "tenants": []})) == [
        ("tenants", "unknown_field"),
        ("meters.1.precision", "too_large"),
        ("meters.1.late_policy", "unknown_choice"),
        ("meters.1.window_days", "not_positive"),
        ("meters.1.aggregation", "unknown_choice"),
        ("tiers.0.versions.0.currency", "unknown_currency"),
        ("tiers.0.versions.0.charges.0.meter", "does_not_exist"),
        ("tiers.0.versions.0.charges.0.price.unit_amount", "negative"),
        ("tiers.0.versions.1.number", "not_next"),
        ("tiers.0.versions.2", "not_an_object"),
        ("tiers.1.code", "invalid_code"),
        ("tiers.1.name", "not_text"),
        ("tiers.2.version", "unknown_field"),
    ]
    assert not Meter.objects.exists()
    assert not Tier.objects.exists()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("tiers: [", ("", "not_readable")),
        ("[]", ("", "not_an_object")),
        ("meters: 5", ("meters", "not_a_list")),
        ("tiers:\n  - {code: a, name: A, versions: [{number: 1, currency: USD, fee: 9.5}]}", ("", "not_readable")),
        (
            "tiers:\n  - {code: a, name: A, versions: [{number: 1, currency: USD, publications: [{cohort: all, effective_at: soon}]}]}",
            ("tiers.0.versions.0.publications.0.cohort", "unknown_choice"),
        ),
    ],
)
def test_a_text_that_is_no_catalogue_is_refused(text, fault):
    assert faults(text)[0] == fault


def test_the_linter_stands_before_what_a_text_publishes():
    make_meter()
    backwards = {"model": "volume", "bands": [{"up_to": "10", "unit_amount": "1"}, {"up_to": None, "unit_amount": "0"}]}
    publication = {"cohort": "new", "effective_at": "2026-07-01T00:00:00Z"}
    version = {"number": 1, "publications": [publication], "currency": "USD", "charges": [charge(price=backwards)]}
    text = write_yaml({"tiers": [{"code": "a", "name": "A", "versions": [version]}]})
    assert faults(text) == [("tiers.0.versions.0.charges.0.price.bands.1", "negative_marginal_price")]
    assert not Tier.objects.exists()


def run(*arguments):
    output = io.StringIO()
    call_command("catalog", *arguments, stdout=output)
    return output.getvalue()


def test_the_command_exports_and_imports(tmp_path):
    file = tmp_path / "catalogue.yaml"
    file.write_text(TEXT)
    said = run("import", str(file), "--by", "ann", "--dry-run")
    assert said.splitlines()[-1] == "Nothing was written: this was a dry run."
    assert "tier growth, version 1: new" in run("import", str(file), "--by", "ann")
    assert set(AuditEntry.objects.values_list("actor", flat=True)) == {"shell:ann"}
    assert run("export") == catalog_text()
    file.write_text(run("export"))
    assert run("import", str(file), "--by", "ann") == "Nothing changes.\n"


def test_the_command_says_why_not(tmp_path):
    file = tmp_path / "catalogue.yaml"
    file.write_text("tiers: [{code: a}]")
    with pytest.raises(CommandError, match=r"tiers\.0\.name: must be a text of 1 to 200 characters"):
        run("import", str(file), "--by", "ann")
    with pytest.raises(CommandError, match="cannot be read"):
        run("import", str(tmp_path / "none.yaml"), "--by", "ann")
