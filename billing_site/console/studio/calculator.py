"""The calculator beside a draft: usage in, the invoice that the draft would make and the curve of its price out, as a fragment of a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST

from billing_site.console.studio.calculation import fragment
from billing_site.console.studio.pages import MAY_LOOK, permitted
from billing_site.http import wire
from billing_site.http.parsers import read_limited
from billing_site.http.problems import DomainError, Invalid
from invoices.selectors.calculating import UsageKey
from subscriptions.core.documents import ANY_NUMBER, NumberRule, Reading
from subscriptions.models import TierVersion
from subscriptions.selectors.catalog import live_version, terms_of
from subscriptions.selectors.choosing import versions_to_compare
from subscriptions.selectors.clock import wall_now
from subscriptions.services.draft_terms import terms_of_document
from subscriptions.services.reading import listed

USAGE_MAX = 200
FAULTS_SHOWN = 3
_EVENTS = NumberRule(whole=True, at_most=Decimal(10**12))


@dataclass(frozen=True, slots=True)
class Question:
    """What a browser asks: a document or what is stored, usage, and what to compare with and to draw."""

    document: object
    usage: Mapping[UsageKey, tuple[Decimal, int]]
    against: int | None
    # Whether to compare with the live version, because nothing was said.
    against_live: bool
    # The charge whose price is drawn, by its place among those that can be entered.
    drawn: int


@require_POST
@permitted(MAY_LOOK)
def answer(request: HttpRequest, pk: int) -> JsonResponse:
    """Return the fragment; what cannot be calculated is said in it, with the status of the refusal."""
    version = get_object_or_404(TierVersion.objects.select_related("tier"), pk=pk)
    now = wall_now()
    try:
        question = _read(wire.decode(read_limited(request, request.META)))
        document = question.document
        terms = terms_of(version.pk) if document is None else terms_of_document(document, version=version)
        other = _against(version, question, now)
        choices = versions_to_compare(version.tier, at=now)
        html = fragment(version, terms, usage=question.usage, other=other, drawn=question.drawn, choices=choices)
        return JsonResponse({"html": html})
    except DomainError as refusal:
        html = render_to_string("studio/calculator_refusal.html", {"refusal": refusal})
        return JsonResponse({"html": html}, status=refusal.status)


def _against(version: TierVersion, question: Question, now: datetime) -> TierVersion | None:
    """Return the version to compare with: the one asked for, else the tier's live one; never a version with itself as it is stored."""
    if question.against_live:
        live = live_version(version.tier, at=now)
        return live if live and live.pk != version.pk else None
    if question.against is None:
        return None
    other = TierVersion.objects.select_related("tier").filter(pk=question.against).first()
    if other is None:
        raise Invalid(
            "There is no such version to compare with.", errors=[("against", "does_not_exist", "is no version")]
        )
    return other


def _read(body: object) -> Question:
    reading = Reading()
    given = reading.members(body, path="", known=("document", "usage", "against", "drawn")) or {}
    usage = _usage(given.get("usage", []), reading)
    against, drawn = given.get("against"), given.get("drawn", 0)
    for name, value in (("against", against), ("drawn", drawn)):
        if value is not None and (type(value) is not int or abs(value) >= 2**63):
            reading.fault(name, "not_whole", "must be a whole number")
    if reading.faults:
        named = (f"{fault.path.rpartition('.')[2]} {fault.message}" for fault in reading.faults[:FAULTS_SHOWN])
        raise Invalid(f"What was sent cannot be read: {'; '.join(named)}.", errors=reading.faults)
    is_silent = not (isinstance(body, Mapping) and "against" in body)
    return Question(given.get("document"), usage, against, is_silent, drawn)


def _usage(entries: object, reading: Reading) -> dict[UsageKey, tuple[Decimal, int]]:
    usage: dict[UsageKey, tuple[Decimal, int]] = {}
    for index, entry in enumerate(listed(entries, "usage", reading, at_most=USAGE_MAX)):
        where = f"usage.{index}"
        one = reading.members(entry, path=where, known=("meter", "dimensions", "quantity", "events")) or {}
        quantity = reading.number(one.get("quantity", 0), f"{where}.quantity", ANY_NUMBER)
        events = reading.number(one.get("events", 1), f"{where}.events", _EVENTS)
        dimensions = one.get("dimensions", {})
        if not isinstance(dimensions, Mapping):
            reading.fault(f"{where}.dimensions", "not_an_object", "must be an object of names and values")
        elif quantity is not None and events is not None:
            key = str(one.get("meter")), tuple(sorted((str(name), str(value)) for name, value in dimensions.items()))
            usage[key] = quantity, int(events)
    return usage


paths: list[URLPattern] = [path("versions/<int:pk>/calculate/", answer, name="studio_calculate")]
