"""Staff pages of the catalogue: tiers, and their versions from draft to publication."""

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from billing_site.http import wire
from billing_site.http.problems import DomainError
from billing_site.staff import (
    Moment,
    ServiceAdmin,
    ServiceForm,
    actor_of,
    either,
    explain,
    grouped,
    link,
    number,
    readable,
    shown,
    table,
)
from subscriptions.admin.publications import publication_row
from subscriptions.core.linting import Severity
from subscriptions.core.money import plain
from subscriptions.core.price_documents import price_document
from subscriptions.models import Charge, Publication, Tier, TierVersion
from subscriptions.selectors.catalog import (
    editable_document,
    money_text,
    price_of,
    tiers_with_live_number,
    with_parts,
)
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.findings import findings_of
from subscriptions.services import catalog


@admin.register(Tier)
class TierAdmin(ServiceAdmin):
    """Named offers, with the way to their versions."""

    list_display = ["code", "name", "live", "created_at"]
    search_fields = ["code", "name"]
    help_texts = {
        "code": "The id by which the API names the tier. It stays for ever.",
        "name": "As it stands on invoices.",
    }

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tier]:
        """Read with each tier the number of its live version."""
        # The base asks the manager, which knows of no number.
        return tiers_with_live_number(at=wall_now())

    @admin.display(description="what new subscribers get")
    def live(self, tier: Any) -> str:
        """Name the live version."""
        return "nothing yet" if tier.live_number is None else f"version {tier.live_number}"

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """List a tier's versions, once it can have some."""
        if obj is None:
            return ["code", *catalog.TIER_CHANGEABLE]
        may_add = request.user.has_perm("subscriptions.add_tierversion")
        return ["code", *catalog.TIER_CHANGEABLE, "version_links", *(["next_version"] if may_add else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Fix the code once the tier exists."""
        return [] if obj is None else ["code", "version_links", "next_version"]

    @admin.display(description="versions")
    def version_links(self, tier: Tier) -> str:
        """List each version, newest first."""
        versions = tier.versions.prefetch_related("publications").order_by("-number")
        rows = (
            (
                link(version, f"Version {version.number}"),
                _status(version),
                number(money_text(version.fee, version.currency), version.currency),
                _cadence(version),
                ", ".join(
                    f"{one.effective_at:%Y-%m-%d %H:%M} UTC"
                    for one in version.publications.all()
                    if one.undone_at is None
                )
                or "–",
                studio_link(version),
            )
            for version in versions
        )
        return table(("version", "status", "fee", "every", "live from", "pricing studio"), rows)

    @admin.display(description="next version")
    def next_version(self, tier: Tier) -> str:
        """Lead to a new one."""
        add = reverse("admin:subscriptions_tierversion_add")
        return format_html('<a href="{}?tier={}">Add a version</a>, as a copy of the newest', add, tier.pk)

    def write(self, request: HttpRequest, form: Any, *, change: bool) -> Model:
        """Create or change the tier."""
        if not change:
            return catalog.create_tier(**form.cleaned_data, actor=actor_of(request))
        changes = {name: form.cleaned_data[name] for name in form.changed_data}
        return catalog.update_tier(tier_id=form.instance.pk, changes=changes, actor=actor_of(request))


def studio_link(version: TierVersion) -> str:
    """Lead to the version's page in the pricing studio, where no JSON is seen."""
    words = "Look at it in the pricing studio" if version.is_published else "Edit in the pricing studio"
    return format_html('<a href="{}">{}</a>', reverse("admin:studio_version", args=[version.pk]), words)


def _status(version: TierVersion) -> str:
    return "published" if version.is_published else "draft"


def _loaded(version: TierVersion) -> TierVersion:
    return with_parts(TierVersion.objects.filter(pk=version.pk)).get()


def _cadence(version: TierVersion) -> str:
    return version.interval if version.interval_count == 1 else f"{version.interval_count} {version.interval}s"


def _terms(charge: Charge) -> list[Any]:
    """Return a charge as a row for people: what, for which usage, how much is included, and its price."""
    document = price_document(price_of(charge))
    bands = [
        (f"up to {grouped(str(band['up_to']))}" if band.get("up_to") else "beyond", _band_price(band))
        for band in document.pop("bands", [])
    ]
    model = str(document.pop("model")).replace("_", " ")
    price = format_html_join("", "<div>{}: {}</div>", bands) if bands else readable(document)
    included = "shared" if charge.included is None else number(plain(charge.included))
    return [str(charge.meter or charge.code), readable(charge.dimensions), included, charge.at_limit, model, price]


def _band_price(band: dict[str, Any]) -> str:
    prices = {name: value for name, value in band.items() if name != "up_to" and value not in (None, "0")}
    return readable(prices) if prices else "nothing"


def document_text(version: TierVersion) -> str:
    """Return a version's document as indented JSON, without the members that are not the editor's to write."""
    return json.dumps(editable_document(version), indent=2, ensure_ascii=False)


class VersionForm(ServiceForm):
    """A draft as its JSON document. Every fault that the validator finds is shown with its place."""

    fault_field = "document"
    document = forms.CharField(
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 40, "cols": 60, "spellcheck": "false"}),
        help_text="Fee, charges and features as JSON. Empty in a new version: a copy of the tier's newest one.",
    )
    expected_revision = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            self.initial["document"] = document_text(self.instance)
            self.initial["expected_revision"] = self.instance.revision
        if self.is_stale:
            # What others saved is shown beside what was typed; who saves again has seen it, and answers for it.
            self.data = {**self.data.dict(), "expected_revision": str(self.instance.revision)}  # type: ignore[attr-defined]

    @property
    def is_stale(self) -> bool:
        """Whether somebody else has saved the draft while this one was edited."""
        return isinstance(self.refusal, catalog.StaleRevision)

    def clean(self) -> dict[str, Any] | None:
        """Say what a second save would do."""
        cleaned = super().clean()
        if self.is_stale:
            self.add_error(
                None, "What is stored now stands beside your text. Take over what you need; saving again replaces it."
            )
        return cleaned

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
    """Asks from when on a version is live and for whom, and remembers what was on the screen."""

    cohort = forms.ChoiceField(
        label="For whom",
        choices=[
            (Publication.Cohort.NEW, "who subscribes from then on"),
            (
                Publication.Cohort.RENEWAL,
                "also the tier's subscriptions, with their first period that begins then or later",
            ),
            (
                Publication.Cohort.NOW,
                "also the tier's subscriptions, at that instant, by the version's terms of change",
            ),
        ],
    )
    effective_at = Moment(required=False, label="Live from (UTC)", help_text="Empty: from now on.")
    revision = forms.IntegerField(widget=forms.HiddenInput)


@admin.register(TierVersion)
class TierVersionAdmin(ServiceAdmin):
    """Versions from draft to publication; a published one is only shown."""

    form = VersionForm
    list_display = [
        "__str__",
        shown("status", _status),
        shown("fee", lambda version: number(money_text(version.fee, version.currency), version.currency), order="fee"),
        shown("every", _cadence),
        "revision",
        "published_at",
    ]
    list_select_related = ["tier"]
    list_filter = [either("status", "published_at", empty="draft", filled="published"), "tier"]
    ordering = ["-pk"]
    search_fields = ["tier__code", "tier__name"]
    actions = ["publish"]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """Show the document in a field to edit, or as text when it is final or not the user's to edit."""
        if obj is None:
            return ["tier", "document"]
        fields = ["studio", "tier", "number", "revision", "published_at", "progress", "in_short", "findings"]
        if not self.has_change_permission(request, obj):
            return [*fields, "shown_document"]
        is_stale = isinstance(getattr(request, "refusal", None), catalog.StaleRevision)
        return [*fields, ("document", "stored_document") if is_stale else "document", "expected_revision"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """Leave only the document to edit."""
        shown_only = ["studio", "tier", "number", "revision", "published_at", "progress", "in_short", "findings"]
        return [] if obj is None else [*shown_only, "shown_document", "stored_document"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse for a published version."""
        return super().has_change_permission(request, obj) and not (obj is not None and obj.is_published)

    @admin.display(description="pricing studio")
    def studio(self, version: TierVersion) -> str:
        """Lead to the page that product staff use."""
        return studio_link(version)

    @admin.display(description="publications")
    def progress(self, version: TierVersion) -> str:
        """Show for whom it was published from when on, and how far that is."""
        rows = (publication_row(one) for one in version.publications.order_by("pk"))
        return table(("cohort", "from", "state", "subscriptions"), rows)

    @admin.display(description="in short")
    def in_short(self, version: TierVersion) -> str:
        """Show the fee and the prices as a table."""
        loaded = _loaded(version)
        fee = f"{money_text(loaded.fee, loaded.currency)} {loaded.currency} every {_cadence(loaded)}, in {loaded.fee_timing}"
        headings = ("meter", "only for", "included", "at the limit", "price model", "price beyond it")
        return format_html("<p>Fee: {}</p>{}", fee, table(headings, map(_terms, loaded.charges.all())))

    @admin.display(description="to look at")
    def findings(self, version: TierVersion) -> str:
        """Tell what the linter finds in it as it is stored, and what of that keeps it from being published."""
        rows = [
            ("must be mended" if finding.severity == Severity.BLOCKING else "warning", finding.path, finding.message)
            for finding in findings_of(_loaded(version))
        ]
        return table(("what", "where", "why"), rows) if rows else "Nothing found."

    @admin.display(description="document")
    def shown_document(self, version: TierVersion) -> str:
        """Show the document as text."""
        return format_html("<pre>{}</pre>", document_text(version))

    @admin.display(description="stored now")
    def stored_document(self, version: TierVersion) -> str:
        """Show, beside what an editor has typed, what another has saved."""
        return self.shown_document(version)

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
        """Publish one version, a draft as it was on the screen, to a cohort."""
        if queryset.count() != 1:
            self.message_user(request, "Publish one version at a time.", messages.ERROR)
            return None
        version = queryset.get()
        answers = self.ask(
            request,
            queryset,
            Publishing,
            title="Publish: it cannot be changed afterwards",
            initial={"revision": version.revision},
            detail=format_html("{}{}", self.in_short(version), self.findings(version)),
        )
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
                cohort=answers["cohort"],
                expected_revision=answers["revision"],
            ),
            done="Published",
        )
        return None
