"""While a hundred events come in every second, a change of tier holds for the next request, and no event is lost or counts twice."""

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from threading import Event, Thread
from time import monotonic, sleep

import pytest
from django.db import connection

from invoices.services.subscribing import start_subscription
from metering.models import EventKey, MeterBalance, UsageEvent
from metering.selectors.overage import price_balances
from metering.selectors.placement import forget_placements
from subscriptions.models import TierChange
from subscriptions.selectors.clock import wall_now
from subscriptions.services import tenants
from tests import oracle
from tests.api.test_invoices_api import Api
from tests.world import ACTOR, charge, make_meter, publish

pytestmark = pytest.mark.django_db(transaction=True)

SENDERS, PER_SECOND = 5, 100
PRICES = {"growth": "0.0002", "scale": "0.0001"}


@pytest.fixture
def tenant():
    """A tenant in wall time, whose placement the process remembers, on a tier that denies what is beyond 1,000 tokens."""
    forget_placements()
    make_meter()
    versions = {
        code: publish(
            code,
            interval="day",
            interval_count=30,
            charges=[
                charge(
                    included=included,
                    at_limit="deny",
                    price={"model": "per_unit", "unit_amount": PRICES[code]},
                )
            ],
        )
        for code, included in {"growth": "1000", "scale": "1000000"}.items()
    }
    owner = tenants.create_tenant(code="busy", name="Busy", actor=ACTOR)
    started = wall_now() - timedelta(days=10)
    owner.subscription = start_subscription(
        tenant=owner, version=versions["growth"], starts_at=started, anchor_at=started, now=wall_now(), actor=ACTOR
    )
    return owner


class Stream:
    """Threads that post events over HTTP, each at its share of the rate, until told to stop."""

    def __init__(self, tenant):
        self._tenant, self._ends, self.answers = tenant, Event(), []
        self._threads = [Thread(target=self._send, args=(number, Api("ingest"))) for number in range(SENDERS)]

    def __enter__(self):
        self.started = monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ends.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _send(self, number, api):
        place, next_at = 0, monotonic()
        while not self._ends.is_set():
            place += 1
            event = {
                "id": f"{number}-{place}",
                "type": "llm.completion",
                "subject": self._tenant.code,
                "data": {"total_tokens": 10},
            }
            self.answers.append(api.post("/events", event).json())
            next_at += SENDERS / PER_SECOND
            sleep(max(next_at - monotonic(), 0))
        connection.close()


def test_a_change_holds_for_the_next_call_while_events_come_in(tenant):
    api = Api()
    path = f"/subscriptions/{tenant.subscription.public_id}/change"

    def ask():
        call = {"tenant": tenant.code, "meter": "tokens", "quantity": "1", "hold": False}
        return api.post("/authorizations", call).json()["decision"]

    decisions = []
    with Stream(tenant) as stream:
        while ask() == "allow":  # until the allowance is used up
            assert monotonic() - stream.started < 30
        for number, to in enumerate(["scale", "growth"] * 4):
            answer = api.post(
                path, {"tier": to, "when": "now", "allowance": "full_new", "fee": "none"}, key=str(number)
            )
            assert answer.status_code == 200, answer.json()
            decisions.append((to, ask()))
            sleep(0.1)
    assert decisions == [("scale", "allow"), ("growth", "deny")] * 4
    assert {answer["accepted"] for answer in stream.answers} == {1}
    events = list(UsageEvent.objects.filter(subject=tenant.code))
    balance = MeterBalance.objects.select_related("period", "meter", "tenant").get(tenant=tenant)
    assert len(events) == len(stream.answers) == EventKey.objects.filter(subject=tenant.code).count()
    assert balance.used == 10 * len(events)
    assert balance.overage == 10 * len(events) - 1000
    changes = TierChange.objects.order_by("pk").values_list("effective_at", "to_version__tier__code")
    in_force = [(balance.period.starts_at, "growth"), *changes]
    owed = oracle.bill(
        [oracle.Event(event.occurred_at, Decimal(10)) for event in events],
        [oracle.Grant("allowance", 1000, balance.period.starts_at)],
        [
            oracle.Version(code, since, [oracle.Charge("", {"model": "per_unit", "unit_amount": PRICES[code]})])
            for since, code in in_force
        ],
    )
    [found] = price_balances([balance])
    assert found.priced.amount == sum(owed.amounts.values(), Fraction(0))
