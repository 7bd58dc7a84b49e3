"""Rows of the agreement: tenants and keys, the catalogue and its guards, subscriptions and their periods, and the records kept for everybody."""

from subscriptions.models.agreement import BillingPeriod, FeeItem, ScheduledChange, Subscription, TierChange
from subscriptions.models.catalog import Charge, Feature, Meter, PriceBand, Publication, Tier, TierVersion
from subscriptions.models.guards import Approval, BacktestVerdict, PriceGuard
from subscriptions.models.records import AuditEntry, IdempotencyKey, OutboxMessage
from subscriptions.models.tenants import ApiKey, Tenant, TestClock

__all__ = [
    "ApiKey",
    "Approval",
    "AuditEntry",
    "BacktestVerdict",
    "BillingPeriod",
    "Charge",
    "Feature",
    "FeeItem",
    "IdempotencyKey",
    "Meter",
    "OutboxMessage",
    "PriceBand",
    "PriceGuard",
    "Publication",
    "ScheduledChange",
    "Subscription",
    "Tenant",
    "TestClock",
    "Tier",
    "TierChange",
    "TierVersion",
]
