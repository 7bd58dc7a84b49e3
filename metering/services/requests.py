"""
What the doors of ingestion and the gate say to their services: events as they were read, holds that are asked for, and what became of each.

Owns these values only. Reading them from a body is a door's work (`metering.api.wire`); deciding and storing is `ingest`'s. They are plain
and mutable, because a batch makes a thousand of them: nobody changes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from metering.core.decision import Decision
from metering.selectors.authorizations import FoundHold
from metering.selectors.balances import BalanceView

ACCEPTED = "accepted"
DUPLICATE = "duplicate"
CONFLICT = "conflict"
REJECTED = "rejected"
UNMATCHED = "unmatched"


@dataclass(slots=True)
class NewEvent:
    """An event whose form is right. Whether it counts, and against what, is not known yet."""

    # The tenant's code as sent; perhaps of no tenant.
    subject: str
    source: str
    id: str
    type: str
    # In UTC, cut to microseconds. None: not sent, so the moment of receipt in the tenant's time counts.
    time: datetime | None
    # Decoded JSON; numbers are int or Decimal, never float.
    data: dict[str, Any]


@dataclass(slots=True)
class Rejected:
    """An event whose form is wrong. It keeps its place among the others, and takes no key."""

    # As sent, where it could be read; else None.
    id: str | None
    code: str
    detail: str
    # Where the fault lies: "subject", "data", empty for the event as a whole.
    path: str = ""


@dataclass(slots=True)
class Record:
    """One request to record events."""

    events: Sequence[NewEvent | Rejected]
    # Wall time of receipt; tenants on a test clock have a time of their own, which the service asks for.
    now: datetime


class Outcome(msgspec.Struct, gc=False):
    """What became of one event."""

    # accepted, duplicate, conflict, rejected or unmatched.
    status: str
    # Why, for all but the first two.
    code: str = ""
    detail: str = ""
    # Our id of the stored event (in a duplicate or conflict, of the first one); None when nothing is stored.
    event_id: UUID | None = None
    # Dotted paths: where a conflict differs, or what a rejection is about.
    fields: Sequence[str] = ()


@dataclass(slots=True)
class IngestReport:
    """What became of a request: one outcome per event, in order, and the pools that it touched as they stand now."""

    outcomes: Sequence[Outcome]
    balances: Sequence[BalanceView]


@dataclass(slots=True)
class Authorize:
    """One request to hold a quantity."""

    # Codes as sent; perhaps of no tenant or meter.
    tenant: str
    meter: str
    # Meter units, more than 0.
    quantity: Decimal
    # The gateway's own, by which a repeat is told.
    key: str
    # Of the call's usage; a declared dimension that is absent is "".
    dimensions: Mapping[str, str]
    ttl_seconds: int
    # Wall time of receipt, as everywhere in requests.
    now: datetime


@dataclass(slots=True)
class Settle:
    """One request to record what an authorized call has used, by its quantity or by its event, and to free the hold."""

    authorization: UUID
    # Meter units, 0 or more; None where an event says what was used.
    quantity: Decimal | None
    # Its subject is empty where it was not sent: it is the authorization's tenant.
    event: NewEvent | None
    now: datetime
    # The tenant's code, once the authorization is found.
    tenant: str = ""


@dataclass(slots=True)
class Release:
    """One request to free a hold of which nothing was used."""

    authorization: UUID
    now: datetime
    tenant: str = ""


@dataclass(slots=True)
class Extend:
    """One request to hold more, or longer."""

    authorization: UUID
    # How much more, in meter units; None for not more.
    quantity: Decimal | None
    # For how long from now on; None for no longer than before.
    ttl_seconds: int | None
    now: datetime
    tenant: str = ""


GateRequest = Authorize | Extend | Settle | Release


@dataclass(slots=True)
class Ended:
    """An authorization that was settled or released, as it stands; with the pools that settling touched."""

    found: FoundHold
    balances: Sequence[BalanceView] = ()


@dataclass(slots=True)
class GateAnswer:
    """What the gate says to a call: the decision, and the hold where there is one."""

    decision: Decision
    # Meter units: of the call, or of the whole hold.
    quantity: Decimal
    # What the call's overage would cost, in the tenant's currency, not rounded.
    estimated_amount: Decimal
    # Wall time: the answer is of what was true then, or later.
    fresh_at: datetime
    # Tenant time.
    now: datetime
    # Our id of the hold; None where nothing is held.
    authorization: UUID | None = None
    # held, settled, released or expired; empty where there is no hold.
    status: str = ""
    # Tenant time.
    expires_at: datetime | None = None
    # Whether this request made the hold; a repeat finds it.
    is_new: bool = False
