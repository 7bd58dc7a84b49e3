"""Stored authorizations: by the keys of those who ask for them, and by our ids."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing_site.http.problems import DomainError
from billing_site.prepared import run
from metering.models import Authorization


class AuthorizationNotFound(DomainError):
    """No authorization has this id."""

    status = 404
    code = "not_found"
    title = "There is no such authorization"


@dataclass(slots=True)
class Hold:
    """An authorization as a value; the model has a paragraph on each field."""

    id: UUID
    tenant_id: int
    balance_id: int
    key: str
    fingerprint: bytes
    dimension_key: str
    quantity: Decimal
    overage_quantity: Decimal
    amount_precise: Decimal
    decision: str
    authorized_at: datetime
    expires_at: datetime
    status: str
    freed_by: str = ""
    settled_quantity: Decimal | None = None
    settled_event: UUID | None = None
    settled_fingerprint: bytes | None = None
    written_by: UUID | None = None

    def __post_init__(self) -> None:
        # The driver hands out views of its buffers.
        self.fingerprint = bytes(self.fingerprint)
        if self.settled_fingerprint is not None:
            self.settled_fingerprint = bytes(self.settled_fingerprint)

    @property
    def is_held(self) -> bool:
        """Whether it still holds its quantity, perhaps past its time."""
        return self.status == Authorization.Status.HELD


HOLD_COLUMNS = tuple(column.name for column in fields(Hold))


@dataclass(slots=True)
class FoundHold:
    """A hold with the codes by which people know whose it is."""

    hold: Hold
    tenant: str
    meter: str
    event_type: str
    # The test clock's time; None for a tenant that lives in wall time.
    clock_now: datetime | None
    is_advancing: bool

    def now(self, wall: datetime) -> datetime:
        """Return the tenant's time."""
        return wall if self.clock_now is None else self.clock_now


_FIND = f"""
SELECT {", ".join(f"a.{name}" for name in HOLD_COLUMNS)}, t.code, m.code, m.event_type,
       c.now, c.status IS NOT DISTINCT FROM 'advancing'
FROM metering_authorization a JOIN metering_meterbalance b ON b.id = a.balance_id
JOIN subscriptions_meter m ON m.id = b.meter_id JOIN subscriptions_tenant t ON t.id = a.tenant_id
LEFT JOIN subscriptions_testclock c ON c.id = t.test_clock_id
WHERE a.id = ANY(%s::uuid[])
"""


def find_holds(ids: Iterable[UUID]) -> dict[UUID, FoundHold]:
    """Return the authorizations with our ids; one that there is not is missing."""
    rows = run(_FIND, [list(ids)])
    return {row[0]: FoundHold(Hold(*row[:-5]), *row[-5:]) for row in rows}


def get_hold(authorization: UUID) -> FoundHold:
    """Return an authorization. Raises AuthorizationNotFound (404)."""
    found = find_holds([authorization]).get(authorization)
    if found is None:
        raise AuthorizationNotFound(f"There is no authorization {authorization}.")
    return found
