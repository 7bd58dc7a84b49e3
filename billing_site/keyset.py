"""
Lists of the admin that go on from a row instead of counting through all before it, so that a page of many rows costs what a page of few does.

Owns no page: `staff.py` gives its pages these lists.
"""

from typing import Any

from django.contrib.admin.views.main import ORDER_VAR
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from unfold.views import ChangeList

# Counting more would read the table for a number that nobody looks at; older rows are found by searching.
ROWS_COUNTED_MAX = 10_000
# In the address of a list: the key of the row after, or before, which it goes on.
OLDER_THAN, NEWER_THAN = "older_than", "newer_than"

# A partitioned table has no rows of its own: its partitions' are added up. A table that was never analysed says -1.
_ESTIMATE = """
    SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint
    FROM pg_class
    WHERE relkind = 'r' AND (oid = %s::regclass OR oid IN (SELECT relid FROM pg_partition_tree(%s::regclass)))
"""


class LargeTablePaginator(Paginator):
    """Counts, and pages through, at most ROWS_COUNTED_MAX rows."""

    @cached_property
    def count(self) -> int:
        """Return the number of rows, cut at the limit."""
        rows: Any = self.object_list
        # Whichever come first: their order would be found out for nothing.
        return rows.order_by()[:ROWS_COUNTED_MAX].count()


class KeysetPaginator(LargeTablePaginator):
    """The same count, beside links to what is newer and older."""

    template_name = "admin/keyset_pages.html"


class KeysetChangeList(ChangeList):
    """
    A list by its key, newest first, whose pages go on from the last row of the page before.

    A column that is sorted by gives pages by number, within the rows that are counted.
    """

    newest: str | None = None
    newer: str | None = None
    older: str | None = None

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        self._places = {name: request.GET[name] for name in (OLDER_THAN, NEWER_THAN) if name in request.GET}
        super().__init__(request, *args, **kwargs)

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str] | None = None) -> QuerySet[Any]:
        """Keep the place out of what the list is filtered by: another search or filter begins at the start."""
        for name in self._places:
            self.params.pop(name, None)
            self.filter_params.pop(name, None)
        return super().get_queryset(request, exclude_parameters)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """Sort by no column where the page offers none: it would read the whole table."""
        if self.sortable_by is not None and not self.sortable_by:
            self.params.pop(ORDER_VAR, None)
        return super().get_ordering(request, queryset)

    def get_results(self, request: HttpRequest) -> None:
        """Read one page, and whether there is another on either side."""
        if ORDER_VAR in self.params:
            super().get_results(request)
        else:
            self._read_page()
            self.paginator = KeysetPaginator(self.queryset, self.list_per_page)
            self.result_count = self.paginator.count
            self.show_full_result_count = self.can_show_all = self.multi_page = False
            self.show_admin_actions = True
        # The same number: where they differ, the theme offers to show all.
        self.full_result_count = self.result_count

    def _read_page(self) -> None:
        size = self.list_per_page
        above, below = self._place(NEWER_THAN), self._place(OLDER_THAN)
        # One more than is shown says whether there is another page. Above the newest row the list begins again.
        if above is not None and (found := list(self.queryset.filter(pk__gt=above).order_by("pk")[: size + 1])):
            rows = found[:size][::-1]
            has_newer, has_older = len(found) > size, True
        else:
            start = self.queryset if below is None else self.queryset.filter(pk__lt=below)
            found = list(start[: size + 1])
            rows = found[:size]
            has_newer, has_older = below is not None, len(found) > size
        self.result_list = rows
        if has_newer:
            self.newest = self.get_query_string()
        if rows and has_newer:
            self.newer = self.get_query_string({NEWER_THAN: rows[0].pk})
        if rows and has_older:
            self.older = self.get_query_string({OLDER_THAN: rows[-1].pk})

    @cached_property
    def counted(self) -> str:
        """Return how many rows there are, in words: exactly up to the limit, estimated beyond it where nothing is chosen."""
        if self.result_count < ROWS_COUNTED_MAX:
            return f"{self.result_count:,}"
        if self.has_active_filters or self.query:
            return f"more than {ROWS_COUNTED_MAX:,}"
        return f"about {max(estimated_rows(self.opts.db_table), ROWS_COUNTED_MAX):,}"

    def _place(self, name: str) -> Any:
        """Return the key that the address names; None for what is no key."""
        try:
            return self.opts.pk.to_python(self._places[name])
        except (KeyError, ValidationError):
            return None


def estimated_rows(table: str) -> int:
    """Return how many rows the database believes that a table has, to two digits. It reads none of them."""
    with connection.cursor() as cursor:
        cursor.execute(_ESTIMATE, [table, table])
        (rows,) = cursor.fetchone()
    return round(rows, 2 - len(str(rows)))
