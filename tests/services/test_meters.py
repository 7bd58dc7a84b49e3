"""Meters: how one counts is judged once, stored in one form, and never changes."""

from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from subscriptions.models import AuditEntry, Meter
from subscriptions.services import catalog
from subscriptions.services.meter_documents import InvalidMeter
from tests.world import make_meter

pytestmark = pytest.mark.django_db


def test_how_a_meter_counts_is_stored_in_one_form():
    weighted = [{"property": "input"}, {"property": "output.tokens", "weight": Decimal("4.0"), "money": None}]
    filters = {"region": ["eu", 1, Decimal("1.50"), None], "live": True, "loss": Decimal("-2.50")}
    meter = make_meter(value_property=weighted, filters=filters, dimensions=["model"])
    meter.refresh_from_db()
    assert meter.value_property == [{"property": "input"}, {"property": "output.tokens", "weight": "4"}]
    assert meter.filters == {"region": ["eu", 1, "1.5", None], "live": True, "loss": "-2.5"}
    assert AuditEntry.objects.get().after["value_property"] == meter.value_property


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        ({"aggregation": "average"}, ("aggregation", "unknown_choice")),
        ({"value_property": None}, ("value_property", "required")),
        ({"value_property": []}, ("value_property", "required")),
        ({"value_property": 5}, ("value_property", "not_a_list")),
        ({"value_property": "usage..tokens"}, ("value_property", "not_a_path")),
        ({"value_property": "x" * 201}, ("value_property", "not_a_path")),
        ({"value_property": [{"property": "a", "weight": "0"}]}, ("value_property.0.weight", "not_positive")),
        ({"value_property": [{"property": "a", "wieght": "1"}]}, ("value_property.0.wieght", "unknown_field")),
        ({"value_property": [{"property": "a"}, {"property": "a"}]}, ("value_property.1", "duplicate")),
        (
            {"value_property": [{"property": "a", "money": True}, {"property": "b"}]},
            ("value_property", "money_and_units"),
        ),
        ({"value_property": [{"property": "a", "money": 1}]}, ("value_property.0.money", "not_true_or_false")),
        ({"aggregation": "count"}, ("value_property", "not_allowed")),
        ({"aggregation": "latest", "value_property": None}, ("value_property", "required")),
        ({"aggregation": "unique_count", "value_property": None}, ("value_property", "required")),
        ({"aggregation": "unique_count", "value_property": [{"property": "a"}]}, ("value_property", "not_a_path")),
        ({"filters": ["a"]}, ("filters", "not_an_object")),
        ({"filters": {"a": []}}, ("filters.a", "required")),
        ({"filters": {"a": {"b": 1}}}, ("filters.a", "not_a_value")),
        ({"filters": {"": 1}}, ("filters.", "not_a_path")),
        ({"dimensions": "model"}, ("dimensions", "not_a_list")),
        ({"dimensions": ["model", "model"]}, ("dimensions.1", "duplicate")),
        ({"dimensions": [1]}, ("dimensions.0", "not_a_path")),
        ({"dimensions": [f"d{number}" for number in range(11)]}, ("dimensions", "too_many")),
    ],
    ids=repr,
)
def test_a_fault_of_a_meter_is_named_by_its_path(terms, fault):
    with pytest.raises(InvalidMeter) as refusal:
        make_meter(**terms)
    assert (refusal.value.errors[0].path, refusal.value.errors[0].code) == fault
    assert not Meter.objects.exists()


def test_what_decides_a_count_never_changes():
    meter = make_meter()
    changed = catalog.update_meter(meter_id=meter.pk, changes={"name": "Tokens", "window_days": 40}, actor="staff:ann")
    assert (changed.name, changed.window_days) == ("Tokens", 40)
    with pytest.raises(AssertionError):
        catalog.update_meter(meter_id=meter.pk, changes={"event_type": "other"}, actor="staff:ann")
    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic():
        Meter.objects.filter(pk=meter.pk).update(value_property="other")
