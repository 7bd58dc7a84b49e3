"""Staff pages of the catalogue: meters, tiers, and their versions from draft to publication."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from billing_site.http import wire
from billing_site.http.problems import DomainError
from billing_site.staff import Moment, ServiceAdmin, ServiceForm, actor_of, explain
from subscriptions.models import Meter, Tier, TierVersion
from subscriptions.selectors.catalog import ANSWERED_MEMBERS, version_document
from subscriptions.selectors.clock import wall_now
from subscriptions.services import catalog

_COUNTING = ("event_type", "aggregation", "value_property", "filters", "dimensions")


class PropertyField(forms.JSONField):
    """A property's path as it is, or a JSON list of weighted ones."""

    def to_python(self, value: Any) -> Any:
        """Take what does not look like JSON for a path."""
        if isinstance(value, str) and value.strip() and value.strip()[0] not in '["{':
            return value.strip()
        return super().to_python(value)


class MeterForm(ServiceForm):
    """How a new meter counts, and how it is called."""

    value_property = PropertyField(
        required=False,
        help_text='Which property is summed, such as total_tokens; or [{"property": "a", "weight": "2"}, …]. Empty for count.',
    )


@admin.register(Meter)
class MeterAdmin(ServiceAdmin):
    """What is counted and how; the counting is fixed once a meter exists."""

    form = MeterForm
    list_display = ["code", "name", "event_type", "aggregation", "unit", "late_policy"]
    search_fields = ["code", "name"]
    fields = ["code", *_COUNTING, *catalog.METER_CHANGEABLE]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Fix, once it exists, what decides its count."""
        return [] if obj is None else ["code", *_COUNTING]

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Create or change the meter."""
        if not change:
            return catalog.create_meter(**form.cleaned_data, actor=actor_of(request))
        changes = {name: form.cleaned_data[name] for name in form.changed_data if name in catalog.METER_CHANGEABLE}
        return catalog.update_meter(meter_id=form.instance.pk, changes=changes, actor=actor_of(request))


@admin.register(Tier)
class TierAdmin(ServiceAdmin):
    """Named offers, with the way to their versions."""

    list_display = ["code", "name", "created_at"]
    search_fields = ["code", "name"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """List a tier's versions, once it can have some."""
        return ["code", *catalog.TIER_CHANGEABLE, *([] if obj is None else ["version_links"])]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Fix the code once the tier exists."""
        return [] if obj is None else ["code", "version_links"]

    @admin.display(description="versions")
    def version_links(self, tier: Tier) -> str:
        """Link to each version, newest first, and to a new one."""
        rows = (
            (
                reverse("admin:subscriptions_tierversion_change", args=[version.pk]),
                version.number,
                "published" if version.is_published else "draft",
            )
            for version in tier.versions.order_by("-number")
        )
        links = format_html_join("", '<a href="{}">Version {}</a> ({})<br>', rows)
        add = reverse("admin:subscriptions_tierversion_add")
        return format_html('{}<a href="{}?tier={}">Add a version</a>', links, add, tier.pk)

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Create or change the tier."""
        if not change:
            return catalog.create_tier(**form.cleaned_data, actor=actor_of(request))
        changes = {name: form.cleaned_data[name] for name in form.changed_data}
        return catalog.update_tier(tier_id=form.instance.pk, changes=changes, actor=actor_of(request))


def document_text(version: TierVersion) -> str:
    """Return a version's document as indented JSON, without the members that are not the editor's to write."""
    document = {name: value for name, value in version_document(version).items() if name not in ANSWERED_MEMBERS}
    return json.dumps(document, indent=2, ensure_ascii=False)


class VersionForm(ServiceForm):
    """A draft as its JSON document. Every fault that the validator finds is shown with its place."""

    fault_field = "document"
    document = forms.CharField(
        required=False,
        strip=False,
        widget=forms.Textarea(
            attrs={"rows": 40, "cols": 120, "spellcheck": "false", "style": "font-family: monospace"}
        ),
        help_text="Fee, charges and features as JSON. Empty in a new version: a copy of the tier's newest one.",
    )
    expected_revision = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            self.initial["document"] = document_text(self.instance)
            self.initial["expected_revision"] = self.instance.revision

    def clean_document(self) -> Any:
        """Read the JSON, numbers exactly as written."""
        text = self.cleaned_data["document"]
        if not text.strip():
            if self.instance.pk is not None:
                raise forms.ValidationError("A draft is not empty.")
            return None
        try:
            return wire.decode(text.encode())
        except DomainError as refusal:
            raise forms.ValidationError(explain(refusal)) from None


class Publishing(forms.Form):
    """Asks from when on a version is live, and remembers what was on the screen."""

    effective_at = Moment(required=False, label="Live from (UTC)", help_text="Empty: from now on.")
    revision = forms.IntegerField(widget=forms.HiddenInput)


@admin.register(TierVersion)
class TierVersionAdmin(ServiceAdmin):
    """Versions from draft to publication; a published one is only shown."""

    form = VersionForm
    list_display = ["__str__", "currency", "fee", "interval", "revision", "published_at"]
    list_select_related = ["tier"]
    ordering = ["-pk"]
    search_fields = ["tier__code"]
    raw_id_fields = ["tier"]
    actions = ["publish"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show the document in a field to edit, or as text when it is final or not the user's to edit."""
        if obj is None:
            return ["tier", "document"]
        shown = ["tier", "number", "revision", "published_at"]
        if self.has_change_permission(request, obj):
            return [*shown, "document", "expected_revision"]
        return [*shown, "shown_document"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Leave only the document to edit."""
        return [] if obj is None else ["tier", "number", "revision", "published_at", "shown_document"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse for a published version."""
        return super().has_change_permission(request, obj) and not (obj is not None and obj.is_published)

    @admin.display(description="document")
    def shown_document(self, version: TierVersion) -> str:
        """Show the document as text."""
        return format_html("<pre>{}</pre>", document_text(version))

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Make a draft, or replace it whole."""
        document = form.cleaned_data["document"]
        if not change:
            return catalog.create_version(tier=form.cleaned_data["tier"], document=document, actor=actor_of(request))
        # Without the revision that was read (a tampered form) nothing matches, and the save is refused.
        expected = form.cleaned_data["expected_revision"] or 0
        return catalog.save_draft(
            version_id=form.instance.pk, document=document, expected_revision=expected, actor=actor_of(request)
        )

    @admin.action(description="Publish", permissions=["operate"])
    def publish(self, request: HttpRequest, queryset: Any) -> TemplateResponse | None:
        """Make one draft final, as it was on the screen."""
        if queryset.count() != 1:
            self.message_user(request, "Publish one version at a time.", messages.ERROR)
            return None
        title = "Publish: it cannot be changed afterwards"
        answers = self.ask(request, queryset, Publishing, title=title, initial={"revision": queryset.get().revision})
        if isinstance(answers, TemplateResponse):
            return answers
        self.run_each(
            request,
            queryset,
            lambda version: catalog.publish(
                version_id=version.pk,
                now=wall_now(),
                actor=actor_of(request),
                effective_at=answers["effective_at"],
                expected_revision=answers["revision"],
            ),
            done="Published",
        )
        return None
