"""What an answer looks like: JSON. DRF's own rules for whoever asks for something else."""

from collections.abc import Iterable
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class JsonNegotiation(DefaultContentNegotiation):
    """Take the only renderer for whoever takes anything or JSON; `Accept` headers are parsed for the others alone."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[Any, str]:
        """Return the renderer and the media type of the answer. Raises NotAcceptable (406)."""
        renderer, *others = renderers
        accepted = request.META.get("HTTP_ACCEPT", "*/*")
        if not others and format_suffix is None and accepted in ("*/*", renderer.media_type):
            return renderer, renderer.media_type
        return super().select_renderer(request, [renderer, *others], format_suffix)
