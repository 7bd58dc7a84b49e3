"""`/subscriptions/{id}/change` and `/changes`: another tier, what it costs, and what became of it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.authentication import actor_of
from billing_site.http.queries import NO_PARAMETERS
from billing_site.http.schema import IDEMPOTENCY_KEY
from billing_site.http.serializers import CodeField, StrictSerializer, TimestampField
from billing_site.http.wire import timestamp
from invoices.api.repeatable import answer_anew, answer_once
from invoices.api.subscriptions import find_subscription, find_version
from invoices.selectors.statements import Statement, find_changes, find_scheduled, get_change, statement_of
from invoices.services import changing
from subscriptions.core.changes import ChangeAllowance, ChangeBill, ChangeFee
from subscriptions.core.proration import Grain
from subscriptions.models import ScheduledChange, TierChange, TierVersion
from subscriptions.selectors.catalog import money_text
from subscriptions.selectors.clock import now_for

CHOICES = ("fee", "grain", "allowance", "bill")


class WhenField(TimestampField):
    """When a change comes into force: "now", "period_end", or an instant that is to come."""

    def to_internal_value(self, data: Any) -> str | datetime:  # type: ignore[override]
        """Return the word, or the instant in UTC."""
        return data if data in (changing.NOW, changing.PERIOD_END) else super().to_internal_value(data)


def _choice(codes: Any, help_text: str) -> serializers.ChoiceField:
    text = f"{help_text} The target version's own choice if absent."
    return serializers.ChoiceField([code.value for code in codes], required=False, help_text=text)


class ChangeInput(StrictSerializer):
    """The tier to change to, and how."""

    tier = CodeField()
    version = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, allow_null=True, help_text="The live one if absent."
    )
    when = WhenField(help_text='"now", "period_end", or an instant that is to come.')
    fee = _choice(ChangeFee, "What becomes of the fees.")
    grain = _choice(Grain, "Whether time is divided by local days or exactly.")
    allowance = _choice(ChangeAllowance, "What becomes of the period's allowances.")
    bill = _choice(ChangeBill, "Whether it is billed on the next invoice, or at once.")
    preview = serializers.BooleanField(default=False, help_text="Answer the same, and change nothing.")


class StatementLineDocument(serializers.Serializer[Any]):
    """What a change gives back or charges."""

    kind = serializers.CharField(help_text="credit (negative), charge, or fee: the new one, in full.")
    description = serializers.CharField()
    amount = serializers.CharField()
    numerator = serializers.IntegerField(help_text="So many days or seconds of the whole.")
    divisor = serializers.IntegerField()
    grain = serializers.CharField(help_text="day or second; empty for a whole fee.")
    tier_version = serializers.DictField()
    invoice = serializers.DictField(allow_null=True, help_text="The invoice and the line that bill it; null: none yet.")


class AllowanceDocument(serializers.Serializer[Any]):
    """What became of the allowance of a pool."""

    meter = serializers.CharField()
    dimensions = serializers.DictField()
    before = serializers.CharField()
    after = serializers.CharField()
    used = serializers.CharField()


class ChangeDocument(serializers.Serializer[Any]):
    """A change's statement."""

    id = serializers.UUIDField(allow_null=True)
    status = serializers.ChoiceField(["preview", *ScheduledChange.Status.values])
    from_version = serializers.DictField()
    to_version = serializers.DictField()
    effective_at = TimestampField(
        help_text="Of one that is scheduled, when it comes into force if nothing happens before."
    )
    fee = serializers.CharField()
    grain = serializers.CharField()
    allowance = serializers.CharField()
    bill = serializers.CharField()
    currency = serializers.CharField()
    credit = serializers.CharField(help_text="Negative or zero.")
    charge = serializers.CharField()
    net = serializers.CharField()
    lines = StatementLineDocument(many=True)
    allowances = AllowanceDocument(many=True)
    words = serializers.ListField(child=serializers.CharField(), help_text="The same in sentences.")


class ChangeListDocument(serializers.Serializer[Any]):
    """The changes of a subscription, those that are to come among them."""

    results = serializers.ListField(child=serializers.DictField())


class Change(APIView):
    """Changes a subscription's tier."""

    required_scopes = {"POST": "manage"}

    @extend_schema(
        operation_id="change_subscription",
        summary="Change a subscription's tier",
        request=ChangeInput,
        parameters=[IDEMPOTENCY_KEY],
        responses=ChangeDocument,
    )
    def post(self, request: Request, subscription: UUID) -> Response:
        """Now, with the next period or at a date; with `preview` the same answer, and nothing changed."""
        NO_PARAMETERS.read(request)
        values = ChangeInput.checked(request.data)
        if values["preview"]:
            return answer_anew(request, lambda: _preview(subscription, values, actor_of(request)))
        return answer_once(request, lambda: (200, _change(subscription, values, actor_of(request))))


class Changes(APIView):
    """The changes of a subscription."""

    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="list_changes", summary="List a subscription's changes", responses=ChangeListDocument)
    def get(self, request: Request, subscription: UUID) -> Response:
        """What is to come first, in the order in which it was asked for; then what came into force, the newest first."""
        NO_PARAMETERS.read(request)
        row = find_subscription(subscription)
        waiting = find_scheduled(row).filter(status=ScheduledChange.Status.SCHEDULED).order_by("wanted_at", "pk")
        done = find_changes(row).order_by("-effective_at", "-pk")
        results = [*(_scheduled_row(one) for one in waiting), *(_done_row(one) for one in done)]
        return Response({"results": results})


class ChangeStatement(APIView):
    """The statement of a change."""

    required_scopes = {"GET": "read"}

    @extend_schema(operation_id="get_change", summary="Show the statement of a change", responses=ChangeDocument)
    def get(self, request: Request, subscription: UUID, change: UUID) -> Response:
        """What was given back and charged, allowances before and after, and the invoice lines that bill it."""
        NO_PARAMETERS.read(request)
        row = find_subscription(subscription)
        found = get_change(row, change)
        if isinstance(found, TierChange):
            return Response(_document(statement_of(found), status="done"))
        if found.status != ScheduledChange.Status.SCHEDULED:
            return Response(_scheduled_row(found))
        document = changing.preview_scheduled(change=found, now=now_for(row.tenant), read=_read(found.status))
        return Response(document)


def _change(subscription: UUID, values: dict[str, Any], actor: str) -> dict[str, Any]:
    row = find_subscription(subscription)
    now = now_for(row.tenant)
    scheduled, document = changing.change_tier(
        subscription_id=row.pk, asked=_asked(values, now), now=now, actor=actor, read=_read("done")
    )
    return document if scheduled is None else document | {"status": scheduled.status}


def _preview(subscription: UUID, values: dict[str, Any], actor: str) -> dict[str, Any]:
    row = find_subscription(subscription)
    now = now_for(row.tenant)
    return changing.preview_change(
        subscription_id=row.pk, asked=_asked(values, now), now=now, actor=actor, read=_read("preview")
    )


def _asked(values: dict[str, Any], now: datetime) -> changing.Asked:
    choices: dict[str, str] = {name: values[name] for name in CHOICES if name in values}
    version = find_version(values, at=now)
    return changing.Asked(to_version=version, when=values["when"], choices=choices)


def _read(status: str) -> Any:
    return lambda change: _document(statement_of(change), status=status)


def _document(statement: Statement, *, status: str) -> dict[str, Any]:
    change, currency = statement.change, statement.currency
    return {
        "id": None if status == "preview" else str(change.public_id),
        "status": status,
        "from_version": _version(change.from_version),
        "to_version": _version(change.to_version),
        "effective_at": timestamp(change.effective_at),
        **{name: getattr(change, name) for name in CHOICES},
        "currency": currency,
        **{name: money_text(getattr(statement, name), currency) for name in ("credit", "charge", "net")},
        "lines": [
            {
                "kind": line.item.kind,
                "description": line.values.description,
                "amount": money_text(line.item.amount, currency),
                "numerator": line.item.share_numerator,
                "divisor": line.item.share_divisor,
                "grain": line.item.share_grain,
                "tier_version": _version(line.item.version),
                "invoice": None
                if line.billed_by is None
                else {
                    "id": str(line.billed_by.invoice.public_id),
                    "number": line.billed_by.invoice.printed_number,
                    "line": line.billed_by.number,
                },
            }
            for line in statement.lines
        ],
        "allowances": [dict(one) for one in statement.allowances],
        "words": list(statement.words),
    }


def _scheduled_row(change: ScheduledChange) -> dict[str, Any]:
    return {
        "id": str(change.public_id),
        "status": change.status,
        "to_version": _version(change.to_version),
        "when": changing.PERIOD_END if change.at_boundary else timestamp(change.wanted_at),
        **{name: getattr(change, name) for name in CHOICES},
        "anchor_at": None if change.anchor_at is None else timestamp(change.anchor_at),
    }


def _done_row(change: TierChange) -> dict[str, Any]:
    return {
        "id": str(change.public_id),
        "status": ScheduledChange.Status.DONE.value,
        "from_version": _version(change.from_version),
        "to_version": _version(change.to_version),
        "effective_at": timestamp(change.effective_at),
        **{name: getattr(change, name) for name in CHOICES},
        "allowances": change.allowances,
    }


def _version(version: TierVersion) -> dict[str, Any]:
    return {"tier": version.tier.code, "number": version.number}
