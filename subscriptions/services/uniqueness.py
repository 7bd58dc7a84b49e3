"""Ids that the operator chooses are taken once: the database decides, and its refusal gets a name here."""

from django.db import IntegrityError, models, transaction
from psycopg.errors import UniqueViolation

from billing_site.http.problems import DomainError


class AlreadyExists(DomainError):
    """An object with this id exists. It is left as it is, whatever the request says."""

    code = "already_exists"
    title = "There is one with this id already"


def insert(instance: models.Model, *, code: str) -> None:
    """
    Insert a new row whose `code` must be free.

    Two callers at once: one inserts, the other is told. Raises AlreadyExists (409); the surrounding transaction goes on.
    """
    try:
        with transaction.atomic():
            instance.save(force_insert=True)
    except IntegrityError as error:
        if not isinstance(error.__cause__, UniqueViolation):
            raise
        raise AlreadyExists(f"There is a {instance._meta.verbose_name} {code} already.") from error
