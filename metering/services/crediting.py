"""Grants and the ledger together: what credits a grant, what makes it larger or smaller, and what takes out the rest of it."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from billing_site.database import uuid7
from metering.models import CreditGrant, LedgerEntry, Posting


def write_grants(grants: Sequence[CreditGrant], *, posting_kind: str) -> None:
    """Write new grants, with the ledger entries that credit them."""
    CreditGrant.objects.bulk_create(grants)
    credited = [(grant, grant.quantity, grant.effective_at) for grant in grants]
    _enter(LedgerEntry.Kind.GRANT, credited, posting_kind=posting_kind)


def enter_rescaling(grants: Sequence[tuple[CreditGrant, Decimal]], *, segment_at: datetime) -> None:
    """
    Enter by how much a change of tier makes allowances larger, or smaller where it is negative.

    Their own quantity is the caller's to write: see `recutting.recut` for those that shrink.
    """
    moved = [(grant, difference, segment_at) for grant, difference in grants]
    _enter(LedgerEntry.Kind.RESCALE, moved, posting_kind="change")


def _enter(
    kind: LedgerEntry.Kind, moved: Sequence[tuple[CreditGrant, Decimal, datetime]], *, posting_kind: str
) -> None:
    posting = Posting.objects.create(id=uuid7(), kind=posting_kind)
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            posting=posting,
            tenant_id=grant.tenant_id,
            balance_id=grant.balance_id,
            grant=grant,
            kind=kind,
            segment_at=segment_at,
            quantity=quantity,
        )
        for grant, quantity, segment_at in moved
    )


def take_out(grants: Sequence[CreditGrant], *, posting: Posting) -> None:
    """
    Post what is left of grants of a pool whose time is over: as voided where that ended it, else as expired.

    The caller holds the locks under which nothing can burn them any more.
    """
    entries = []
    for grant in grants:
        kind = LedgerEntry.Kind.VOID if grant.was_voided else LedgerEntry.Kind.EXPIRE
        left = grant.remaining
        if left:
            entries.append(
                LedgerEntry(
                    posting=posting,
                    tenant_id=grant.tenant_id,
                    grant=grant,
                    kind=kind,
                    segment_at=grant.effective_at,
                    quantity=left,
                )
            )
        gone = {"voided": grant.voided + left} if grant.was_voided else {"expired": grant.expired + left}
        CreditGrant.objects.filter(pk=grant.pk).update(settled=grant.quantity, **gone)
    LedgerEntry.objects.bulk_create(entries)
