"""A version document as terms to calculate with, before it is stored."""

from collections.abc import Mapping
from decimal import Decimal

from subscriptions.core.periods import Alignment, Cadence, Interval
from subscriptions.models import TierVersion
from subscriptions.selectors.catalog import ANSWERED_MEMBERS, UsageCharge, VersionTerms
from subscriptions.services.charge_documents import ChargeDraft
from subscriptions.services.version_documents import read_version


def terms_of_document(document: object, *, version: TierVersion) -> VersionTerms:
    """
    Return the terms that a draft would have if the document were saved into it. Its charges' ids are their places.

    What only we can say of a version may stand in the document, and is passed over. Raises InvalidVersion (422).
    """
    if isinstance(document, Mapping):
        document = {name: value for name, value in document.items() if name not in ANSWERED_MEMBERS}
    draft = read_version(document)
    return VersionTerms(
        id=version.pk,
        tier_code=version.tier.code,
        tier_name=version.tier.name,
        number=version.number,
        currency=draft.currency,
        cadence=Cadence(Interval(draft.interval), draft.interval_count, Alignment(draft.alignment)),
        fee=draft.fee,
        fee_timing=draft.fee_timing,
        fee_every=draft.fee_every,
        grace_hours=draft.grace_hours,
        trial_days=draft.trial_days,
        trial_end=draft.trial_end,
        trial_overage=draft.trial_overage,
        charges=tuple(
            _usage_charge(charge, position) for position, charge in enumerate(draft.charges) if charge.meter is not None
        ),
        change_terms=draft.change_terms,
    )


def _usage_charge(charge: ChargeDraft, position: int) -> UsageCharge:
    assert charge.meter is not None  # licences have none, and are left out
    return UsageCharge(
        id=position,
        position=position,
        meter_id=charge.meter.pk,
        meter_code=charge.meter.code,
        dimensions=tuple(sorted(charge.dimensions.items())),
        included=charge.included,
        trial_included=charge.trial_included,
        at_limit=charge.at_limit,
        overage_quantity_max=charge.overage_quantity_max,
        thresholds=tuple(charge.thresholds),
        limits=tuple((limit["window"], Decimal(limit["quantity"])) for limit in charge.limits),
        rollover_max=charge.rollover_max,
        rollover_periods=charge.rollover_periods,
        price=charge.price,
    )
