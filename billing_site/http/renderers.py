"""The one renderer of the API for DRF: plain JSON. How values look is `wire`'s."""

from collections.abc import Mapping
from typing import Any

from rest_framework.renderers import BaseRenderer

from billing_site.http import wire


class JSONRenderer(BaseRenderer):
    """Write application/json by the rules of `wire.encode`; the only entry of DEFAULT_RENDERER_CLASSES."""

    media_type = "application/json"
    format = "json"
    charset = None
    render_style = "binary"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """Return the encoded answer; an answer without data has an empty body."""
        return b"" if data is None else wire.encode(data)
