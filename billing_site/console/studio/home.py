"""The studio's first page: each tier with what is live, what is being made, and what is to come."""

from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from billing_site.console.studio import words
from billing_site.console.studio.pages import MAY_DRAFT, MAY_LOOK, page, permitted
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.offers import OFFERS_MAX, Offer, fee_in_words, offers


@permitted(MAY_LOOK)
def show(request: HttpRequest) -> TemplateResponse:
    """List the tiers."""
    found = offers(at=wall_now(), after=request.GET.get("after", ""))
    return page(
        request,
        "studio/home.html",
        title="Pricing studio",
        offers=[_row(offer) for offer in found],
        # Where the next page begins; a last page that is full has an empty one behind it.
        next_after=found[-1].tier.code if len(found) == OFFERS_MAX else "",
        may_draft=request.user.has_perm(MAY_DRAFT),
        may_add_tier=request.user.has_perm("subscriptions.add_tier"),
    )


def _row(offer: Offer) -> dict[str, Any]:
    return {
        "tier": offer.tier,
        "live": offer.live,
        "live_fee": fee_in_words(offer.live) if offer.live else "",
        "drafts": [{"version": draft, "fee": fee_in_words(draft)} for draft in offer.drafts],
        "coming": [{"publication": one, "for_whom": words.FOR_WHOM[one.cohort]} for one in offer.coming],
    }


paths: list[URLPattern] = [path("", show, name="studio")]
