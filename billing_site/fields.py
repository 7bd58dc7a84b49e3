"""
How a row's page reads the fields that it only shows: each once.

The theme asks for the same field again and again while it draws it, and some of ours ask the database.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from django.utils.safestring import SafeString
from unfold.fields import UnfoldAdminField, UnfoldAdminReadonlyField
from unfold.forms import AdminForm, Fieldline, Fieldset


class ShownOnce(UnfoldAdminReadonlyField):
    """A field that is only shown, read when it is first drawn."""

    def contents(self) -> SafeString:
        """Return what is shown."""
        return self._read

    @cached_property
    def _read(self) -> SafeString:
        return super().contents()

    def _resolve_field(self) -> bool:
        # Read by the theme to find files and pictures, which no row of ours has.
        return False


class _Line(Fieldline):
    def __iter__(self) -> Iterator[Any]:
        yield from self._fields

    @cached_property
    def _fields(self) -> list[Any]:
        return [
            ShownOnce(self.form, field, is_first=position == 0, model_admin=self.model_admin)
            if field in self.readonly_fields
            else UnfoldAdminField(self.form, field, is_first=position == 0)
            for position, field in enumerate(self.fields)
        ]


class _Lines(Fieldset):
    def __iter__(self) -> Iterator[_Line]:
        for field in self.fields:
            yield _Line(self.form, field, self.readonly_fields, model_admin=self.model_admin)


class StaffForm(AdminForm):
    """A row's page as the theme draws it."""

    def __iter__(self) -> Iterator[_Lines]:
        """Yield each group of fields."""
        for name, options in self.fieldsets:
            yield _Lines(self.form, name, readonly_fields=self.readonly_fields, model_admin=self.model_admin, **options)
