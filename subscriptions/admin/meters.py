"""Staff pages of meters: what is counted and how, in lines that people type."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from billing_site.staff import ServiceAdmin, ServiceForm, actor_of, readable, shown
from subscriptions.models import Meter
from subscriptions.services import catalog


class TypedField(forms.JSONField):
    """A value of the document that people type as text; JSON, where what is meant has no such text."""

    def to_python(self, value: Any) -> Any:
        """Read the text, or JSON where it begins like some."""
        if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{"):
            return super().to_python(value)
        lines = [line.strip() for line in value.splitlines() if line.strip()]
        return self.read(lines) if lines else None

    def prepare_value(self, value: Any) -> Any:
        """Show what was typed as it was."""
        return value if value is None or isinstance(value, str) else super().prepare_value(value)

    def read(self, lines: list[str]) -> Any:
        """Return the value that the lines say; there is at least one."""
        raise NotImplementedError


def _parted(line: str) -> tuple[str, str]:
    name, colon, said = (part.strip() for part in line.partition(":"))
    if not (name and colon and said):
        raise forms.ValidationError(f"Write a name, a colon and a value; there is only “{line}”.")
    return name, said


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


class PropertyField(TypedField):
    """A property's path, or a line for each of several with its weight."""

    def read(self, lines: list[str]) -> Any:
        """Take one line without a weight for the path."""
        if len(lines) == 1 and ":" not in lines[0]:
            return lines[0]
        return [{"property": name, "weight": weight} for name, weight in map(_parted, lines)]


class FiltersField(TypedField):
    """A line for each property, with the values of which an event has to have one."""

    def read(self, lines: list[str]) -> Any:
        """Take one value for itself, and several for a choice."""
        said = {name: _names(values) for name, values in map(_parted, lines)}
        if len(said) < len(lines):
            raise forms.ValidationError("A property stands twice; write all of its values in one line.")
        return {name: values[0] if len(values) == 1 else values for name, values in said.items()}


class DimensionsField(TypedField):
    """Names, with commas or on lines."""

    def read(self, lines: list[str]) -> Any:
        """Return the names in their order."""
        return _names(",".join(lines))


def _lines(count: int) -> forms.Textarea:
    return forms.Textarea(attrs={"rows": count, "spellcheck": "false"})


class MeterForm(ServiceForm):
    """How a new meter counts, and how it is called."""

    value_property = PropertyField(
        required=False,
        label="What is summed",
        widget=_lines(2),
        help_text="The property of an event, such as total_tokens. Of several, a line for each with its weight: output_tokens: 4. "
        "Empty where events are counted.",
    )
    filters = FiltersField(
        required=False,
        label="Only events with",
        widget=_lines(2),
        help_text="A line for each property, such as region: eu, or model: opus, sonnet for either. Empty: all events of the type.",
    )
    dimensions = DimensionsField(
        required=False,
        label="Kept apart by",
        widget=_lines(1),
        help_text="The properties by which usage may be priced, such as model, direction.",
    )


_COUNTING = ("event_type", "aggregation", "value_property", "filters", "dimensions")
# The same of a meter that there is: in words, because it is not typed again.
_FIXED = (
    "event_type",
    "aggregation",
    shown("what is summed", lambda meter: readable(meter.value_property)),
    shown("only events with", lambda meter: _filters_in_words(meter.filters)),
    shown("kept apart by", lambda meter: ", ".join(meter.dimensions) or "–"),
)


def _filters_in_words(filters: Mapping[str, Any]) -> str:
    """
    Return a meter's filters as they are typed.

    >>> _filters_in_words({"region": "eu", "model": ["opus", "sonnet"]})
    'region: eu; model: opus, sonnet'
    """
    said = ((name, [values] if isinstance(values, str) else values) for name, values in filters.items())
    return "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in said) or "–"


@admin.register(Meter)
class MeterAdmin(ServiceAdmin):
    """What is counted and how; the counting is fixed once a meter exists."""

    form = MeterForm
    list_display = ["code", "name", "event_type", "aggregation", "unit", "late_policy"]
    search_fields = ["code", "name", "event_type"]
    help_texts = {
        "code": "The id by which prices and the API name the meter. It stays for ever, like how the meter counts.",
        "event_type": "Events of this type are counted, such as llm.completion.",
        "aggregation": "sum and count add up; max, latest and unique_count are one value per period and dimension set.",
        "unit": "How one unit is called on invoices, such as token.",
        "precision": "Decimals to which a prorated allowance is rounded.",
        "late_policy": "What becomes of usage that arrives when its period has closed.",
        "window_days": "How many days back an event may lie.",
    }

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Ask how it counts once, and say it from then on."""
        return ["code", *(_COUNTING if obj is None else _FIXED), *catalog.METER_CHANGEABLE]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Fix, once it exists, what decides its count."""
        return [] if obj is None else ["code", *_FIXED]

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Create or change the meter."""
        if not change:
            return catalog.create_meter(**form.cleaned_data, actor=actor_of(request))
        changes = {name: form.cleaned_data[name] for name in form.changed_data if name in catalog.METER_CHANGEABLE}
        return catalog.update_meter(meter_id=form.instance.pk, changes=changes, actor=actor_of(request))
