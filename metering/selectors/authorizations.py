"""Stored authorizations: by the keys of those who ask for them, and by our ids."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing_site.http.problems import DomainError
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
