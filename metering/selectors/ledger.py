"""The ledger as it is read: movements of a tenant, newest first."""

from django.db.models import Q, QuerySet

from metering.models import LedgerEntry
from subscriptions.models import Meter, Tenant


def ledger_entries(*, tenant: Tenant, meter: Meter | None) -> QuerySet[LedgerEntry]:
    """
    Return the tenant's ledger entries, of one meter or of all, with what an answer names of them at hand.

    Unordered: the door pages them by falling id, which is the order of writing within a balance.
    """
    entries = LedgerEntry.objects.filter(tenant=tenant).select_related(
        "balance__meter", "balance__period", "grant__meter"
    )
    # An entry without a balance is its grant's.
    return entries if meter is None else entries.filter(Q(balance__meter=meter) | Q(balance=None, grant__meter=meter))
