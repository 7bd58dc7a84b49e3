"""The endpoints: one event or hold in a transaction of its own, and a batch by `bulk_create`."""

from collections import Counter
from datetime import timedelta

from django.db import IntegrityError, transaction
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from benchmarks.naive.models import NaiveBalance, NaiveEvent, NaiveHold
from benchmarks.naive.serializers import ALIAS, LeanEventSerializer, NaiveEventSerializer, NaiveHoldSerializer
from subscriptions.api.authentication import KeyHolder
from subscriptions.models import ApiKey, Meter, Tenant
from subscriptions.selectors.clock import wall_now
from subscriptions.selectors.keys import KeyInfo, digest_of


class NaiveAuthentication(BaseAuthentication):
    """The product's keys, looked up for each request."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, KeyInfo]:
        """Return the caller and its key. Raises AuthenticationFailed (401)."""
        token = request.META.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        key = ApiKey.objects.using(ALIAS).filter(digest=digest_of(token), revoked_at__isnull=True).first()
        if key is None:
            raise AuthenticationFailed("The API key is not valid.")
        return KeyHolder(key.prefix), KeyInfo(id=key.pk, prefix=key.prefix, scopes=frozenset(key.scopes))


class NaiveEvents(APIView):
    """Single events."""

    authentication_classes = (NaiveAuthentication,)
    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)
    required_scopes = {"POST": "ingest"}

    def post(self, request: Request) -> Response:
        """Store the event and count it under the balance's lock."""
        serializer = NaiveEventSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        event = NaiveEvent(**serializer.validated_data)
        try:
            with transaction.atomic(using=ALIAS):
                tenant = Tenant.objects.using(ALIAS).get(code=event.subject)
                meter = Meter.objects.using(ALIAS).get(event_type=event.type)
                event.save(using=ALIAS, force_insert=True)
                balance = NaiveBalance.objects.using(ALIAS).select_for_update().get(subject=tenant.code)
                balance.count(event.data[meter.value_property])
                balance.save(using=ALIAS)
        except IntegrityError:
            return Response({"duplicate": True})
        return Response({**serializer.data, "used": balance.used, "overage": balance.overage}, status=202)


class NaiveHolds(APIView):
    """Holds, one lock for each request."""

    authentication_classes = (NaiveAuthentication,)
    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)
    required_scopes = {"POST": "gate"}

    def post(self, request: Request) -> Response:
        """Hold the quantity under the balance's lock; beyond what is included it is allowed, and said."""
        serializer = NaiveHoldSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        asked = serializer.validated_data
        try:
            with transaction.atomic(using=ALIAS):
                tenant = Tenant.objects.using(ALIAS).get(code=asked["tenant"])
                balance = NaiveBalance.objects.using(ALIAS).select_for_update().get(subject=tenant.code)
                left = balance.included - balance.used - balance.held
                expires_at = wall_now() + timedelta(seconds=300)
                hold = NaiveHold.objects.using(ALIAS).create(
                    balance=balance, key=asked["key"], quantity=asked["quantity"], expires_at=expires_at
                )
                balance.held += asked["quantity"]
                balance.save(using=ALIAS)
        except IntegrityError:
            return Response({"duplicate": True})
        decision = "allow" if asked["quantity"] <= left else "allow_overage"
        return Response({"id": hold.pk, "decision": decision, "remaining": max(left, 0)}, status=201)


class NaiveBatch(APIView):
    """Batches, with the serializer of single events."""

    serializer: type[NaiveEventSerializer] = NaiveEventSerializer
    authentication_classes = (NaiveAuthentication,)
    parser_classes = (JSONParser,)
    renderer_classes = (JSONRenderer,)
    required_scopes = {"POST": "ingest"}

    def post(self, request: Request) -> Response:
        """Store the events that are new, and count them: one lock for each subject."""
        serializer = self.serializer(data=request.data, many=True)
        serializer.is_valid(raise_exception=True)
        events = {(one["subject"], one["source"], one["event_id"]): one for one in serializer.validated_data}
        with transaction.atomic(using=ALIAS):
            types = {one["type"] for one in serializer.validated_data}
            meters = {meter.event_type: meter for meter in Meter.objects.using(ALIAS).filter(event_type__in=types)}
            stored = NaiveEvent.objects.using(ALIAS)
            known = stored.filter(
                subject__in={subject for subject, _, _ in events}, event_id__in={event_id for _, _, event_id in events}
            )
            for key in known.values_list("subject", "source", "event_id"):
                events.pop(key, None)
            stored.bulk_create(NaiveEvent(**one) for one in events.values())
            used: Counter[str] = Counter()
            for one in events.values():
                used[one["subject"]] += one["data"][meters[one["type"]].value_property]
            balances = NaiveBalance.objects.using(ALIAS).select_for_update().filter(subject__in=used)
            for balance in balances.order_by("pk"):
                balance.count(used[balance.subject])
                balance.save(using=ALIAS)
        return Response({"accepted": len(events)}, status=202)


class LeanBatch(NaiveBatch):
    """Batches after somebody has found the thousand questions that DRF asks for each."""

    serializer = LeanEventSerializer
