"""The operator's customers: creating one, and changing what may change."""

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from django.db import transaction

from billing_site.http.problems import DomainError, FieldError, Invalid
from subscriptions.core.money import UnknownCurrency, is_representable, minor_units
from subscriptions.models import Subscription, Tenant, TestClock
from subscriptions.services import audit, uniqueness

# What may change later. The id is for ever, and the clock decides in whose time everything else was written.
CHANGEABLE = ("name", "email", "currency", "timezone", "spend_cap", "country", "tax_ids", "metadata")
_RECORDED = ("code", *CHANGEABLE)
_MONEY = {"currency", "spend_cap"}
_COUNTRY_LENGTH = 2


class CurrencyFixed(DomainError):
    """The tenant has subscribed: amounts of two currencies never meet on one account."""

    code = "currency_fixed"
    title = "The currency can no longer change"


@cache
def known_zones() -> frozenset[str]:
    """Return the IANA zones that this machine knows, without its own local names."""
    return frozenset(available_timezones() - {"Factory", "localtime"})


def faults_in(values: Mapping[str, Any]) -> list[FieldError]:
    """
    Name what is wrong with a tenant's currency, spend cap, zone or country; what is absent is not looked at.

    A cap comes with the currency that it is in. For a form that shows faults beside its fields; the services of this module ask it themselves.
    """
    faults = []
    if "currency" in values:
        try:
            minor_units(values["currency"])
        except UnknownCurrency:
            faults.append(FieldError("currency", "unknown_currency", "must be an ISO 4217 code such as USD"))
    cap = values.get("spend_cap")
    if cap is not None and not faults and not (cap >= 0 and is_representable(cap, values["currency"])):
        faults.append(FieldError("spend_cap", "not_an_amount", f"must be an amount of {values['currency']}, 0 or more"))
    if "timezone" in values and values["timezone"] not in known_zones():
        faults.append(FieldError("timezone", "unknown_timezone", "must be an IANA time zone such as Europe/Berlin"))
    country = values.get("country", "")
    if country and not (len(country) == _COUNTRY_LENGTH and country.isascii() and country.isupper()):
        faults.append(FieldError("country", "unknown_country", "must be an ISO 3166 code of two letters such as DE"))
    return faults


@transaction.atomic
def create_tenant(
    *,
    code: str,
    name: str,
    actor: str,
    currency: str = "USD",
    timezone: str = "UTC",
    email: str = "",
    spend_cap: Decimal | None = None,
    country: str = "",
    tax_ids: list[dict[str, str]] | None = None,
    metadata: Mapping[str, Any] | None = None,
    test_clock: str | None = None,
) -> Tenant:
    """
    Make a tenant; `test_clock` is the code of the clock in whose time it lives, for ever.

    `spend_cap` is what the overage of a period may cost at most, in the tenant's currency. Raises AlreadyExists (409) for an id that is
    taken, Invalid (422) for an unknown currency, zone, country or clock, or a cap that is no amount.
    """
    faults = faults_in({"currency": currency, "spend_cap": spend_cap, "timezone": timezone, "country": country})
    clock = TestClock.objects.filter(code=test_clock).first() if test_clock is not None else None
    if test_clock is not None and clock is None:
        faults.append(FieldError("test_clock", "does_not_exist", f"there is no test clock {test_clock}"))
    if faults:
        raise Invalid("The tenant has values that are not allowed.", errors=faults)
    tenant = Tenant(
        code=code,
        name=name,
        email=email,
        spend_cap=spend_cap,
        currency=currency,
        timezone=timezone,
        country=country,
        tax_ids=tax_ids or [],
        metadata=dict(metadata or {}),
        test_clock=clock,
    )
    uniqueness.insert(tenant, code=code)
    audit.record(actor=actor, action="create", instance=tenant, after=_recorded(tenant) | {"test_clock": test_clock})
    return tenant


@transaction.atomic
def update_tenant(*, tenant_id: int, changes: Mapping[str, Any], actor: str, reason: str = "") -> Tenant:
    """
    Change the members of CHANGEABLE that `changes` names, and return the tenant as it now is.

    A new time zone counts from the next period on. Without a difference nothing is written. Raises Invalid (422) for an unknown
    currency, zone or country, CurrencyFixed (409) for another currency once the tenant has subscribed.
    """
    assert set(changes) <= set(CHANGEABLE), f"no members of a tenant: {set(changes) - set(CHANGEABLE)}"
    # The lock that `agreement.start` takes, too: a currency cannot change under a subscription that starts meanwhile.
    tenant = Tenant.objects.select_for_update(no_key=True, of=("self",)).get(pk=tenant_id)
    in_currency = {"currency": tenant.currency, "spend_cap": tenant.spend_cap} if _MONEY & changes.keys() else {}
    if faults := faults_in({**in_currency, **changes}):
        raise Invalid("The tenant has values that are not allowed.", errors=faults)
    before, after = audit.changes(_recorded(tenant), changes)
    if not after:
        return tenant
    if "currency" in after and Subscription.objects.filter(tenant=tenant).exists():
        raise CurrencyFixed(f"{tenant.code} has subscribed in {tenant.currency}, which therefore stays its currency.")
    for name, value in after.items():
        setattr(tenant, name, value)
    tenant.save(update_fields=list(after))
    audit.record(actor=actor, action="update", instance=tenant, before=before, after=after, reason=reason)
    return tenant


def _recorded(tenant: Tenant) -> dict[str, Any]:
    return {name: getattr(tenant, name) for name in _RECORDED}
