"""Staff pages of usage, and of the grants that cover it."""

from metering.admin import grants, usage

__all__ = ["grants", "usage"]
