"""A tier's guards: what a new price may do to its customers before a second person has to approve it."""

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path

from billing_site.console.studio import words
from billing_site.console.studio.pages import MAY_LOOK, page, permitted
from billing_site.http.problems import Invalid
from billing_site.staff import actor_of
from subscriptions.core.guards import Limits
from subscriptions.core.money import plain
from subscriptions.models import Tier
from subscriptions.selectors.guards import limits_of
from subscriptions.services import guards

MAY_GUARD = "subscriptions.change_priceguard"


class Guards(forms.Form):
    """Both limits, in percent."""

    rise_percent_max = forms.DecimalField(
        required=False,
        label="No customer may pay more than now by over … %",
        help_text="Measured by a backtest: the customer whose bills rise most, over all months compared. Leave it empty for no limit.",
        widget=forms.NumberInput(attrs={"step": "0.01", "min": "0", "inputmode": "decimal"}),
    )
    revenue_fall_percent_max = forms.DecimalField(
        required=False,
        label="Revenue may not fall by more than … %",
        help_text="Measured by a backtest: the bills of all customers together. Leave it empty for no limit.",
        widget=forms.NumberInput(attrs={"step": "0.01", "min": "0", "max": "100", "inputmode": "decimal"}),
    )


@permitted(MAY_LOOK)
def show(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a tier's guards, and set them."""
    tier = get_object_or_404(Tier.objects.select_related("guard"), pk=pk)
    may_guard = request.user.has_perm(MAY_GUARD)
    limits = limits_of(tier)
    form = Guards(initial=_initial(limits))
    if request.method == "POST":
        if not may_guard:
            raise PermissionDenied
        form = Guards(request.POST)
        if form.is_valid() and _set(request, tier, form):
            messages.success(
                request, "The guards are set; they are asked whenever a version of this tier is published."
            )
            return HttpResponseRedirect(request.path)
    return page(
        request,
        "studio/guards.html",
        title=f"Guards of {tier.name}",
        status=422 if form.errors else 200,
        tier=tier,
        form=form,
        limits=words.limits(limits),
        may_guard=may_guard,
    )


def _initial(found: Limits) -> dict[str, str]:
    """Return the limits as people write them: 20, not 20.00."""
    values = ((name, getattr(found, name)) for name in guards.LIMITS)
    return {name: plain(value) for name, value in values if value is not None}


def _set(request: HttpRequest, tier: Tier, form: Guards) -> bool:
    """Set them, or show at its field what is no limit."""
    try:
        guards.set_guards(tier_id=tier.pk, limits=form.cleaned_data, actor=actor_of(request))
    except Invalid as refusal:
        for error in refusal.errors:
            form.add_error(error.path.removeprefix("guards."), error.message)
        return False
    return True


paths: list[URLPattern] = [path("tiers/<int:pk>/guards/", show, name="studio_guards")]
