"""
Rows of usage: events, the ledger they were posted to, balances, and the overage that was priced.

The hot tables' foreign keys carry no database constraint: a row-level foreign key costs a share lock per row, and the audit
checks them instead. Their rows are written by raw SQL in `metering.services`; the models are for reading, the admin and locks.
"""

from metering.models.authorizations import Authorization, TenantSpend, WindowBucket
from metering.models.balances import LatestReading, MeterBalance, SeenValue, SegmentTotal
from metering.models.events import EventCount, EventKey, UsageEvent
from metering.models.grants import CreditGrant, GrantSchedule
from metering.models.ledger import LedgerEntry, Posting
from metering.models.overage import OverageCharge
from metering.models.thresholds import ThresholdCrossing, ThresholdWatch

__all__ = [
    "Authorization",
    "CreditGrant",
    "EventCount",
    "EventKey",
    "GrantSchedule",
    "LatestReading",
    "LedgerEntry",
    "MeterBalance",
    "OverageCharge",
    "Posting",
    "SeenValue",
    "SegmentTotal",
    "TenantSpend",
    "ThresholdCrossing",
    "ThresholdWatch",
    "UsageEvent",
    "WindowBucket",
]
