"""Two versions side by side: what changes, in words, all terms of both, and the calculator for the same usage under either."""

from typing import Any

from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_safe

from billing_site.console.studio.calculation import version_name
from billing_site.console.studio.pages import MAY_LOOK, page, permitted
from subscriptions.core.describing import ComparedTerm
from subscriptions.models import TierVersion
from subscriptions.selectors.catalog import live_version, with_parts
from subscriptions.selectors.choosing import versions_to_compare
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.describing import versions_side_by_side

_KEY_DIGITS_MAX = 18


@require_safe
@permitted(MAY_LOOK)
def show(request: HttpRequest) -> TemplateResponse:
    """Compare the versions `left` and `right`; where `right` alone is named, with what is live of its tier; else ask which."""
    now = wall_now()
    left, right = _chosen(request.GET.get("left", "")), _chosen(request.GET.get("right", ""))
    if right and "left" not in request.GET and (live := live_version(right.tier, at=now)):
        left = _chosen(str(live.pk))
    of_tier = left or right
    offered = versions_to_compare(of_tier.tier if of_tier else None, at=now)
    context: dict[str, Any] = {
        "choices": [(label, _options(offered, one)) for label, one in (("left", left), ("right", right))]
    }
    if left and right:
        terms = versions_side_by_side(left, right)
        context |= {
            "left": version_name(left),
            "right": version_name(right),
            "changes": [term.in_words for term in terms if term.is_changed],
            "terms": [(term, _mark(term)) for term in terms],
            "calculate": reverse("admin:studio_calculate", args=[right.pk]),
            "against": left.pk,
        }
    return page(request, "studio/compare.html", title="Compare two versions", **context)


def _chosen(key: str) -> TierVersion | None:
    if not (key.isascii() and key.isdecimal() and len(key) <= _KEY_DIGITS_MAX):
        return None
    return with_parts(TierVersion.objects.filter(pk=key)).first()


def _options(offered: list[TierVersion], chosen: TierVersion | None) -> list[tuple[int, str, bool]]:
    """Return the versions that are offered, and the chosen one whether it is among them or not."""
    all_of_them = offered if chosen is None or chosen in offered else [chosen, *offered]
    return [(one.pk, version_name(one), one == chosen) for one in all_of_them]


def _mark(term: ComparedTerm) -> str:
    if not term.is_changed:
        return ""
    return "new" if term.left is None else "gone" if term.right is None else "changed"


paths: list[URLPattern] = [path("compare/", show, name="studio_compare")]
