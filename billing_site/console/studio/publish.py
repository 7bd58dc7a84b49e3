"""Publishing a version: from when on and for whom, what that does to whom, and what has to be done or agreed to before."""

from collections.abc import Container
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from billing_site.console.studio import words
from billing_site.console.studio.pages import MAY_EDIT, MAY_LOOK, page, permitted
from billing_site.http.problems import DomainError
from billing_site.staff import Moment, actor_of, explain
from subscriptions.models import Publication, TierVersion
from subscriptions.selectors.affected import affected_by, next_renewals
from subscriptions.selectors.catalog import live_version, with_parts
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.describing import version_changes_in_words
from subscriptions.selectors.findings import findings_of
from subscriptions.selectors.guards import clearance_of, figures_of
from subscriptions.services import approvals, catalog

MAY_APPROVE = "subscriptions.add_approval"
# How many of those that change at renewal are named.
NAMED_MAX = 10
NOTE_LENGTH_MAX = 1000


class Publishing(forms.Form):
    """From when on, for whom, and why; and which revision was on the screen."""

    effective_at = Moment(
        required=False, label="From when on (UTC)", help_text="Leave it empty to publish it from now on."
    )
    cohort = forms.ChoiceField(
        label="For whom", choices=list(words.COHORTS.items()), widget=forms.RadioSelect, initial=Publication.Cohort.NEW
    )
    reason = forms.CharField(
        required=False,
        max_length=NOTE_LENGTH_MAX,
        label="Why",
        help_text="For whoever asks later; it stays with the publication.",
        widget=forms.Textarea(attrs={"rows": 2}),
    )
    revision = forms.IntegerField(widget=forms.HiddenInput)


class Approving(forms.Form):
    """Agreement to what was on the screen."""

    note = forms.CharField(required=False, max_length=NOTE_LENGTH_MAX, widget=forms.Textarea(attrs={"rows": 2}))
    revision = forms.IntegerField(widget=forms.HiddenInput)


@permitted(MAY_LOOK)
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """Show what publishing would do, for a date; publish, when that is asked for."""
    version = get_object_or_404(with_parts(TierVersion.objects.all()), pk=pk)
    now = wall_now()
    if request.method != "POST":
        return _shown(request, version, Publishing(), now=now)
    form = Publishing(request.POST)
    if not form.is_valid():
        return _shown(request, version, form, now=now, status=422)
    if "publish" not in request.POST:
        return _shown(request, version, form, now=now)
    if not request.user.has_perm(MAY_EDIT):
        raise PermissionDenied
    answers = form.cleaned_data
    asked = {name: answers[name] for name in ("effective_at", "cohort", "reason")}
    try:
        catalog.publish(
            version_id=version.pk,
            now=now,
            actor=actor_of(request),
            expected_revision=answers["revision"],
            **asked,
        )
    except DomainError as refusal:
        return _shown(request, version, form, now=now, status=refusal.status, refusal=refusal.detail)
    published = version.publications.get(cohort=answers["cohort"], undone_at__isnull=True)
    return HttpResponseRedirect(reverse("admin:studio_publication", args=[published.pk]))


@permitted(MAY_APPROVE)
@require_POST
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Agree to a version as it was on the screen, and lead back to the page on which it is published."""
    version = get_object_or_404(TierVersion, pk=pk)
    form = Approving(request.POST)
    if not form.is_valid():
        messages.error(request, "Not approved: the note is too long, or this page was not sent whole.")
    else:
        answers = form.cleaned_data
        asked = {"version_id": version.pk, "expected_revision": answers["revision"], "note": answers["note"]}
        try:
            approvals.approve(**asked, now=wall_now(), actor=actor_of(request))
        except DomainError as refusal:
            messages.error(request, f"Not approved. {explain(refusal)}")
        else:
            messages.success(request, "You have approved this version as it is now.")
    return HttpResponseRedirect(reverse("admin:studio_publish", args=[version.pk]))


def _shown(
    request: HttpRequest,
    version: TierVersion,
    form: Publishing,
    *,
    now: datetime,
    status: int = 200,
    refusal: str = "",
) -> TemplateResponse:
    answers = form.cleaned_data if form.is_bound else {}
    asked = answers.get("effective_at")
    standing = {one.cohort for one in version.publications.all() if one.undone_at is None}
    free = [one for one in words.COHORTS if one not in standing]
    cohort = answers.get("cohort") or (free or [Publication.Cohort.NEW.value])[0]
    live = live_version(version.tier, at=now)
    return page(
        request,
        "studio/publish.html",
        title=f"Publish {version.tier.name}, version {version.number}",
        status=status,
        version=version,
        form=form,
        refusal=refusal,
        choices=_choices(version, asked, now=now, chosen=cohort, standing=standing),
        named=_named(version, asked, now=now, cohort=cohort),
        is_past=asked is not None and asked < now,
        live=live,
        changes=_changes(version, live),
        findings=findings_of(version),
        publications=[
            (one, words.COHORTS[one.cohort], words.moment(one.effective_at)) for one in version.publications.all()
        ],
        **_clearance(request, version),
    )


def _planned(version: TierVersion, cohort: str, asked: datetime | None, *, now: datetime) -> Publication:
    """Return the publication that this would be, for the selectors to count by; nothing is stored."""
    return Publication(version=version, cohort=cohort, effective_at=asked or now, created_at=now)


def _choices(
    version: TierVersion, asked: datetime | None, *, now: datetime, chosen: str, standing: Container[str]
) -> list[dict[str, Any]]:
    """Return each cohort with what publishing to it would do, and whether it has the version already."""
    date = asked if asked is not None and asked > now else None
    return [
        {
            "value": cohort,
            "label": label,
            "is_chosen": cohort == chosen,
            "is_published": cohort in standing,
            "effects": words.effects(cohort, affected_by(_planned(version, cohort, asked, now=now), now=now), at=date),
        }
        for cohort, label in words.COHORTS.items()
    ]


def _named(version: TierVersion, asked: datetime | None, *, now: datetime, cohort: str) -> list[tuple[str, str]]:
    """Return some of the customers that change at their next renewal, and when that is."""
    if cohort != Publication.Cohort.RENEWAL:
        return []
    found = next_renewals(_planned(version, cohort, asked, now=now), now=now, limit=NAMED_MAX)
    return [(f"{one.subscription.tenant.name} ({one.subscription.tenant.code})", words.moment(one.at)) for one in found]


def _changes(version: TierVersion, live: TierVersion | None) -> list[str]:
    """Return in words what differs from what new subscribers get now."""
    if live is None or live.pk == version.pk:
        return []
    return version_changes_in_words(with_parts(TierVersion.objects.filter(pk=live.pk)).get(), version)


def _source(source: str) -> str:
    """Return what found a verdict, with the way to it: a backtest is named by its id, which tells people nothing."""
    kind, _, key = source.partition(" ")
    if kind != "backtest":
        return source
    return format_html('<a href="{}">a backtest</a>', reverse("admin:studio_backtest", args=[key]))


def _clearance(request: HttpRequest, version: TierVersion) -> dict[str, Any]:
    """Return what guards and approvals say, in words, and whether this person may approve."""
    clearance = clearance_of(version)
    actor = actor_of(request)
    return {
        "clearance": clearance,
        "limits": words.limits(clearance.limits),
        "verdicts": [
            {"words": words.figures(figures_of(one)), "source": _source(one.source), "at": words.moment(one.found_at)}
            for one in clearance.verdicts
        ],
        "approvals": [
            {
                "who": words.person(one.approved_by),
                "at": words.moment(one.approved_at),
                "note": one.note,
                "is_valid": one in clearance.valid_approvals,
            }
            for one in clearance.approvals
        ],
        "is_approved": clearance.is_approved_for(actor),
        "has_approved": clearance.has_approval_of(actor),
        "saved_by": words.person(version.saved_by),
        "is_own": not clearance.may_be_approved_by(actor),
        "may_approve": request.user.has_perm(MAY_APPROVE),
    }


paths: list[URLPattern] = [
    path("versions/<int:pk>/publish/", show, name="studio_publish"),
    path("versions/<int:pk>/approve/", approve, name="studio_approve"),
]
