"""`/quotes`: what something would cost, by the functions that bill it. Writes nothing."""

from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing_site.http.problems import FieldError, Invalid
from billing_site.http.queries import NO_PARAMETERS
from billing_site.http.serializers import CodeField, DecimalStringField, StrictSerializer, TextField
from invoices.selectors.quoting import Quote, QuotedLine, QuotedUsage, quote_price, quote_usage
from subscriptions.core.money import MINOR_UNITS, plain
from subscriptions.core.price_documents import PriceError, parse_price
from subscriptions.selectors.catalog import get_tier, get_version, live_version, money_text
from subscriptions.selectors.clock import wall_now

USAGE_MAX = 100
EVENTS_MAX = 10**12


@extend_schema_field({"type": "object", "additionalProperties": True})
class PriceField(serializers.Field):
    """A price document, as a version's charge has it."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the price. Raises ValidationError naming every fault."""
        try:
            return parse_price(data)
        except PriceError as error:
            errors = [
                FieldError(f"price.{fault.path}".rstrip("."), fault.code, fault.message) for fault in error.errors
            ]
            raise Invalid("The price is not valid.", errors=errors) from None

    def to_representation(self, value: Any) -> Any:
        """Return the document unchanged."""
        return value


class UsageInput(StrictSerializer):
    """Usage to be priced."""

    meter = CodeField()
    dimensions = serializers.DictField(child=TextField(max_length=200, allow_blank=True), required=False)
    quantity = DecimalStringField(minimum=0, required=False)
    value = DecimalStringField(minimum=0, required=False, help_text="Another name for the quantity of money meters.")
    events = serializers.IntegerField(min_value=0, max_value=EVENTS_MAX, default=1)


class QuoteInput(StrictSerializer):
    """A price and a quantity, or a tier and usage."""

    price = PriceField(required=False)
    included = DecimalStringField(minimum=0, required=False)
    currency = serializers.ChoiceField(sorted(MINOR_UNITS), default="USD")
    quantity = DecimalStringField(minimum=0, required=False)
    value = DecimalStringField(minimum=0, required=False)
    events = serializers.IntegerField(min_value=0, max_value=EVENTS_MAX, default=1)
    tier = CodeField(required=False)
    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    usage = UsageInput(many=True, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Accept exactly one of the two forms."""
        if ("price" in attrs) == ("tier" in attrs):
            raise serializers.ValidationError("Give either price and quantity, or tier and usage.", code="one_form")
        named = [attrs, *attrs.get("usage", [])] if "price" in attrs else attrs.get("usage", [])
        for one in named:
            if ("quantity" in one) == ("value" in one):
                raise serializers.ValidationError("Give either quantity or value.", code="one_quantity")
        if len(attrs.get("usage", [])) > USAGE_MAX:
            raise serializers.ValidationError(f"At most {USAGE_MAX} kinds of usage.", code="too_many")
        return attrs


class QuotedLineDocument(serializers.Serializer[Any]):
    """A line as an invoice would have it."""

    kind = serializers.CharField()
    description = serializers.CharField()
    quantity = serializers.CharField()
    amount = serializers.CharField()
    amount_precise = serializers.CharField()
    components = serializers.ListField(child=serializers.DictField())


class QuoteDocument(serializers.Serializer[Any]):
    """What it would cost."""

    amount = serializers.CharField()
    amount_precise = serializers.CharField()
    currency = serializers.CharField()
    components = serializers.ListField(child=serializers.DictField())
    lines = QuotedLineDocument(many=True)


class Quotes(APIView):
    """Prices without writing."""

    required_scopes = {"POST": "read"}

    @extend_schema(
        operation_id="quote",
        summary="Price a quantity or a month of usage",
        request=QuoteInput,
        responses=QuoteDocument,
    )
    def post(self, request: Request) -> Response:
        """By a price document, or by a tier's version: the live one if none is named."""
        NO_PARAMETERS.read(request)
        values = QuoteInput.checked(request.data)
        return Response(_document(_by_price(values) if "price" in values else _by_tier(values)))


def _by_price(values: dict[str, Any]) -> Quote:
    return quote_price(
        price=values["price"],
        quantity=values["quantity"] if "quantity" in values else values["value"],
        included=values.get("included", Decimal(0)),
        events=values["events"],
        currency=values["currency"],
    )


def _by_tier(values: dict[str, Any]) -> Quote:
    tier = get_tier(values["tier"])
    version = get_version(tier, values["version"]) if values.get("version") else live_version(tier, at=wall_now())
    if version is None or not version.is_published:
        message = "has no published version to quote by"
        raise Invalid("The tier cannot be quoted.", errors=[FieldError("tier", "no_live_version", message)])
    usage = [
        QuotedUsage(one["meter"], one.get("dimensions", {}), one.get("quantity", one.get("value")), one["events"])
        for one in values.get("usage", [])
    ]
    return quote_usage(version=version, usage=usage)


def _document(quote: Quote) -> dict[str, Any]:
    return {
        "amount": money_text(quote.amount, quote.currency),
        "amount_precise": plain(quote.amount_precise),
        "currency": quote.currency,
        "components": quote.components,
        "lines": [_line_document(line, quote.currency) for line in quote.lines],
    }


def _line_document(line: QuotedLine, currency: str) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "description": line.description,
        "quantity": plain(line.quantity),
        "amount": money_text(line.amount, currency),
        "amount_precise": plain(line.amount_precise),
        "components": line.components,
    }
