"""
How a test clock's page tells what was run and what falls due next: in sentences, by days, with ways to the rows.

Owns the words for each kind of due work. A kind that has none is told by its name.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import AbstractUser, AnonymousUser
from django.db.models import Model
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing_site.staff import link
from invoices.models import ClockEntry, Invoice
from invoices.selectors.timeline import RowName, invoices_of_periods, rows_named
from invoices.services.due import PARKED, UpcomingItem
from invoices.services.journal import JournalEntry
from metering.models import Authorization, GrantSchedule, MeterBalance
from subscriptions.core.periods import local_day
from subscriptions.models import BillingPeriod, Tenant

User = AbstractUser | AnonymousUser


@dataclass(frozen=True, slots=True)
class Words:
    """
    What is said of one kind of due work: when it was done, before it is, and as one of several. {tenant} is whose it is.

    `invoices`: the invoices of its period that it may have made.
    """

    done: str
    ahead: str
    counted: str
    invoices: frozenset[str] = frozenset()


WORDS = {
    "open_period": Words("A period of {tenant} opened", "The next period of {tenant} opens", "period opened"),
    "change_tier": Words("{tenant} changed its tier", "{tenant} changes its tier", "tier changed"),
    "book_overage": Words(
        "What {tenant} used beyond its allowance was priced",
        "What {tenant} used beyond its allowance is priced",
        "overage priced",
    ),
    "close_period": Words(
        "The period of {tenant} closed",
        "The period of {tenant} closes",
        "period closed",
        invoices=frozenset({Invoice.Reason.PERIOD, Invoice.Reason.FINAL}),
    ),
    "bill_late_usage": Words(
        "Usage of {tenant} that came late was looked for",
        "Usage of {tenant} that came late is looked for",
        "look for late usage",
        invoices=frozenset({Invoice.Reason.LATE}),
    ),
    "make_grants": Words("{tenant} got its recurring credit", "{tenant} gets its recurring credit", "credit granted"),
    "look_at_thresholds": Words(
        "The thresholds of {tenant} were checked", "The thresholds of {tenant} are checked", "check of thresholds"
    ),
    "expire_hold": Words("A hold of {tenant} expired", "A hold of {tenant} expires", "hold expired"),
    PARKED: Words(
        "Work for {tenant} failed again and again, and waits for a person",
        "Work for {tenant} waits for a person",
        "failure that waits for a person",
    ),
}


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a timeline: when in UTC, a sentence, and the rows that it is about."""

    at: datetime
    sentence: SafeString
    about: Sequence[SafeString]
    is_failure: bool


Days = list[tuple[date, list[Happening]]]


def tell(past: Sequence[ClockEntry], future: Sequence[UpcomingItem], *, user: User) -> tuple[Days, Days]:
    """Return both halves of a timeline by UTC days, each in the order given, in a fixed number of queries. Links lead where the user may go."""
    rows = rows_named([*((one.row_type, one.row_id) for one in past), *((one.row_type, one.row_id) for one in future)])
    closed = [int(one.row_id) for one in past if one.row_type == BillingPeriod._meta.label_lower]
    teller = _Teller(rows, invoices_of_periods(closed) if closed else {}, user)
    return _by_days(map(teller.happened, past)), _by_days(map(teller.will_happen, future))


def summary(journal: Iterable[JournalEntry]) -> str:
    """Return what was run in a few words: "2 × period opened, 1 × period closed"."""
    counts = Counter(_words(entry.what).counted for entry in journal)
    return ", ".join(f"{count} × {words}" for words, count in counts.items()) or "nothing was due"


def linked(row: Model, text: str, *, user: User) -> SafeString:
    """Return a link to the row's page, or the text alone where there is no page that the user may see."""
    may_see = user.has_perm(f"{row._meta.app_label}.view_{row._meta.model_name}")
    return link(row, text) if may_see and admin.site.is_registered(type(row)) else format_html("{}", text)


class _Teller:
    def __init__(self, rows: dict[RowName, Any], invoices: dict[int, list[Invoice]], user: User) -> None:
        self._rows, self._invoices, self._user = rows, invoices, user

    def happened(self, entry: ClockEntry) -> Happening:
        words = _words(entry.what)
        row = self._rows[entry.row_type, entry.row_id]
        made = [one for one in self._invoices.get(row.pk, []) if one.reason in words.invoices]
        about = [self._link(row, _name(row)), *(self._link(one, f"invoice {one.printed_number}") for one in made)]
        return Happening(entry.at.astimezone(UTC), self._told(words.done, row.tenant), about, entry.what == PARKED)

    def will_happen(self, item: UpcomingItem) -> Happening:
        row = self._rows[item.row_type, item.row_id]
        told = self._told(_words(item.what).ahead, row.tenant)
        return Happening(item.at.astimezone(UTC), told, [self._link(row, _name(row))], is_failure=False)

    def _told(self, sentence: str, tenant: Tenant) -> SafeString:
        return format_html(sentence, tenant=self._link(tenant, tenant.code))

    def _link(self, row: Model, text: str) -> SafeString:
        return linked(row, text, user=self._user)


def _words(what: str) -> Words:
    name = what.replace("_", " ")
    return WORDS.get(what) or Words(f"{{tenant}}: {name}", f"{{tenant}}: {name}", name)


def _name(row: Any) -> str:
    """Return how a row is called in a line that names its tenant already."""
    match row:
        case BillingPeriod():
            zone = row.tenant.timezone
            first, last = (
                date_format(local_day(instant, zone), "DATE_FORMAT") for instant in (row.starts_at, row.ends_at)
            )
            return f"period {row.sequence}, {first} – {last}"
        case MeterBalance() | GrantSchedule():
            return row.meter.code
        case Authorization():
            return f"{row.balance.meter.code}, {row.key}"
    return str(row._meta.verbose_name)


def _by_days(happenings: Iterable[Happening]) -> Days:
    return [(day, list(of_day)) for day, of_day in groupby(happenings, key=lambda one: one.at.date())]
