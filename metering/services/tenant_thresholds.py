"""A tenant's own thresholds: amounts of its overage over all meters, and percentages of its spend cap. Owns how they are set; what is told of them, `thresholds` decides."""

from django.db import transaction

from billing_site.http.problems import FieldError, Invalid
from metering.models import MeterBalance, ThresholdWatch
from metering.services.thresholds import lock_watches, raise_epochs
from subscriptions.core.documents import Reading
from subscriptions.models import Subscription, Tenant
from subscriptions.services import audit
from subscriptions.services.threshold_documents import read_thresholds

# A percentage is of the tenant's spend cap, and reached by nothing while there is none.
MEASURES = ("percent", "amount")


@transaction.atomic
def set_thresholds(*, tenant: Tenant, thresholds: object, actor: str) -> ThresholdWatch:
    """
    Replace a tenant's own thresholds by this list, such as [{"amount": "50"}, {"amount": "1000", "once": "life"}], from its next movement on.

    Amounts are in the tenant's currency. Without a difference nothing changes. Raises Invalid (422), naming every fault below `thresholds`.
    """
    reading = Reading()
    read = read_thresholds(thresholds, "thresholds", reading, measures=MEASURES)
    if reading.faults:
        raise Invalid(
            "There are thresholds that are not allowed.", errors=[FieldError(*fault) for fault in reading.faults]
        )
    balance_ids = _lock_balances_of(tenant)
    [watch] = lock_watches([tenant.pk])
    before, after = audit.changes({"thresholds": watch.thresholds}, {"thresholds": read})
    if after:
        watch.thresholds = read
        watch.save(update_fields=["thresholds"])
        raise_epochs(balance_ids)
        audit.record(
            actor=actor, action="update", instance=watch, before=before, after={"tenant": tenant.code, **after}
        )
    return watch


def _lock_balances_of(tenant: Tenant) -> list[int]:
    """
    Lock all balances of a tenant, those of closed periods too: late usage may still reach an amount.

    No subscription starts and no period opens meanwhile: a balance that is not among these would be remembered with the thresholds of before.
    """
    Tenant.objects.select_for_update(no_key=True, of=("self",)).get(pk=tenant.pk)
    list(Subscription.objects.select_for_update(no_key=True, of=("self",)).filter(tenant=tenant).order_by("pk"))
    balances = MeterBalance.objects.select_for_update(no_key=True, of=("self",)).filter(tenant=tenant)
    return list(balances.order_by("pk").values_list("pk", flat=True))
