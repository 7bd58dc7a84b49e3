"""Column types that every app's rows share: codes, money, quantities, due work."""

from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Round

from billing_site.finite import FiniteDecimalField
from subscriptions.core.money import MINOR_UNITS

CODE_PATTERN = r"^[A-Za-z0-9._:@-]{1,100}\Z"


class CodeField(models.CharField):
    """An id that the operator chose: 1 to 100 of the characters that may stand in a path."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("max_length", 100)
        kwargs.setdefault(
            "validators", [RegexValidator(CODE_PATTERN, "Use 1 to 100 letters, digits or any of . _ : @ -")]
        )
        super().__init__(*args, **kwargs)


class MoneyField(FiniteDecimalField):
    """An amount in units of its row's currency, never finer than the currency allows (see `representable`)."""

    def __init__(self, *args, **kwargs):
        kwargs["max_digits"] = 24
        kwargs["decimal_places"] = 6
        super().__init__(*args, **kwargs)


class QuantityField(FiniteDecimalField):
    """A quantity in meter units, or the price of one: 18 integer digits and 12 decimals."""

    def __init__(self, *args, **kwargs):
        kwargs["max_digits"] = 30
        kwargs["decimal_places"] = 12
        super().__init__(*args, **kwargs)


class Due(models.Model):
    """
    Work that a row owes, found by its due time and claimed by a lease. There is no job table.

    `due_at` is tenant time; the lease is the database's own time, so that a test clock never holds a worker's lock.
    """

    # When the work falls due in the tenant's time; empty when nothing is due.
    due_at = models.DateTimeField(null=True, blank=True)
    # Until when (database time) a worker may take the row for its own; set before the work starts.
    leased_until = models.DateTimeField(null=True, blank=True, editable=False)
    # Counted before each try, so that a try that kills its worker counts, too.
    attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    # Set when tries are used up: the row waits for a person, the others go on.
    parked_at = models.DateTimeField(null=True, blank=True)
    parked_reason = models.TextField(blank=True, default="")

    class Meta:
        abstract = True


def due_index(name: str) -> models.Index:
    """Return the index that finds due rows, small because it holds only those that owe work."""
    return models.Index(fields=["due_at"], name=name, condition=models.Q(due_at__isnull=False, parked_at__isnull=True))


def is_code(field: str, *, name: str) -> models.CheckConstraint:
    """Refuse, in the database, an id that could not stand in a path."""
    return models.CheckConstraint(
        condition=models.Q(**{f"{field}__regex": CODE_PATTERN.replace(r"\Z", "$")}), name=name
    )


def one_of(field: str, codes: list[str], *, name: str) -> models.CheckConstraint:
    """Refuse, in the database, a code that the product does not know."""
    return models.CheckConstraint(condition=models.Q(**{f"{field}__in": codes}), name=name)


def representable(field: str, *, name: str, currency: str = "currency") -> models.CheckConstraint:
    """Refuse, in the database, an amount finer than the smallest unit of its currency."""
    by_digits: dict[int, list[str]] = {}
    for code, digits in sorted(MINOR_UNITS.items()):
        if digits != 2:
            by_digits.setdefault(digits, []).append(code)
    whens = [
        models.When(**{f"{currency}__in": codes}, then=models.Value(digits))
        for digits, codes in sorted(by_digits.items())
    ]
    places = models.Case(*whens, default=models.Value(2), output_field=models.IntegerField())
    # Round takes an expression for its precision; its stubs know numbers only.
    rounded = Round(models.F(field), precision=places)  # type: ignore[arg-type]
    return models.CheckConstraint(condition=models.Q(**{field: rounded}), name=name)
