"""Holds are exact: no two calls are granted the same room, however many ask at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

import pytest

from metering.models import Authorization
from metering.services import committer
from metering.services.requests import Authorize
from tests.world import charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

_keys = count(1)


def asking(world, quantity, *, key=None, meter="tokens", ttl_seconds=300, **dimensions):
    return Authorize(
        world.tenant.code,
        meter,
        Decimal(quantity),
        key or f"call-{next(_keys)}",
        dimensions,
        ttl_seconds,
        datetime.now(tz=UTC),
    )


def denying(**terms):
    make_meter()
    return make_world(version=publish("strict", charges=[charge(at_limit="deny", **terms)]))


def test_five_hundred_concurrent_calls_are_granted_exactly_what_is_left():
    world = denying(included="13750")
    requests = [asking(world, 100) for _ in range(500)]
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(committer.submit, requests))
    allowed = [answer for answer in answers if answer.decision.decision == "allow"]
    assert len(allowed) == 137
    assert {answer.decision.reason for answer in answers if answer not in allowed} == {"limit_reached"}
    assert world.balance().held == 13_700
    assert Authorization.objects.filter(status="held").count() == 137
