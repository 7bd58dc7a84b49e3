"""A tenant's spend cap: over all meters, by the prices that will bill it, and exact."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

import pytest

from metering.models import TenantSpend
from metering.services import committer
from metering.services.gate import perform
from metering.services.requests import Authorize, Release, Settle
from subscriptions.services.tenants import update_tenant
from tests.world import ACTOR, at, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

NOW = at("2026-06-20 12:00")
IMAGES = {"model": "package", "size": "10", "amount": "1.00"}
_keys = count(1)


def capped(cap="1.00", *, price=None, **terms):
    """Subscribe a tenant to tokens at $0.0002 beyond 10,000, and images at $1 for each ten, with a cap."""
    make_meter()
    make_meter("images", event_type="image", aggregation="count", value_property=None)
    charges = [
        charge(**({"price": price} if price else {}), **terms),
        charge(meter="images", included="0", price=IMAGES),
    ]
    return make_world(version=publish("capped", charges=charges), now=NOW, spend_cap=Decimal(cap))


def asking(world, quantity, meter="tokens"):
    return Authorize(world.tenant.code, meter, Decimal(quantity), f"s{next(_keys)}", {}, 300, datetime.now(tz=UTC))


def ask(world, quantity, meter="tokens"):
    [answer] = perform([asking(world, quantity, meter)])
    return answer


def said(answer):
    limit = answer.decision.binding_limit
    return (
        answer.decision.decision.value,
        str(answer.estimated_amount.normalize()),
        limit and (limit.kind.value, limit.left),
    )


def test_overage_and_holds_of_all_meters_bound_what_is_granted():
    world = capped("1.50")
    world.use(11_000)
    # $0.20 are spent; five images begin a package of $1.
    held = ask(world, 5, "images")
    assert said(held) == ("allow_overage", "1", ("spend_cap", Decimal("1.30")))
    assert said(ask(world, 1501)) == ("deny", "0.3002", ("spend_cap", Decimal("0.30")))
    # Five more fit into the same package.
    assert said(ask(world, 5, "images"))[:2] == ("allow_overage", "0")
    assert said(ask(world, 1500))[:2] == ("allow_overage", "0.3")
    assert said(ask(world, 1))[0] == "deny"
    perform([Release(held.authorization, datetime.now(tz=UTC))])
    assert said(ask(world, 5000))[:2] == ("allow_overage", "1")


def test_usage_that_the_allowance_covers_spends_nothing():
    world = capped("0")
    assert said(ask(world, 10_000))[:2] == ("allow", "0")
    assert said(ask(world, 1))[0] == "deny"


def test_recorded_usage_may_exceed_the_cap_and_then_everything_is_denied():
    world = capped("1.00")
    held = ask(world, 10_000)
    perform([Settle(held.authorization, Decimal(20_000), None, datetime.now(tz=UTC))])
    assert world.balance(meter__code="tokens").overage == 10_000
    denied = ask(world, 1, "images")
    assert (denied.decision.decision, denied.decision.reason) == ("deny", "spend_cap")
    update_tenant(tenant_id=world.tenant.pk, changes={"spend_cap": Decimal(5)}, actor=ACTOR)
    assert said(ask(world, 1, "images")) == ("allow_overage", "1", ("spend_cap", Decimal(3)))
    update_tenant(tenant_id=world.tenant.pk, changes={"spend_cap": None}, actor=ACTOR)
    assert said(ask(world, 1_000_000))[0] == "allow_overage"


def test_graduated_prices_are_estimated_where_the_call_would_lie():
    bands = [{"up_to": "1000", "unit_amount": "0.001"}, {"up_to": None, "unit_amount": "0.01"}]
    world = capped("100", price={"model": "graduated", "bands": bands})
    world.use(10_500)
    # 500 at 0.001, then 500 at 0.01.
    assert said(ask(world, 1000))[1] == "5.5"
    # What is held comes first.
    assert said(ask(world, 100))[1] == "1"


def test_a_cheaper_band_to_come_makes_no_room():
    bands = [{"up_to": "1000", "unit_amount": "0.01"}, {"up_to": None, "unit_amount": "0.001"}]
    world = capped("10", price={"model": "volume", "bands": bands})
    world.use(11_000)
    # All 2,000 at 0.001 cost 2.00, where 1,000 cost 10.00.
    assert said(ask(world, 1000))[:2] == ("allow_overage", "-8")
    assert world.balance(meter__code="tokens").held_amount == 0
    assert said(ask(world, 1, "images"))[0] == "deny"


def test_a_tenant_without_a_cap_has_no_spend_row():
    make_meter()
    world = make_world(version=publish("plain"), now=NOW)
    ask(world, 20_000)
    assert not TenantSpend.objects.exists()


def test_concurrent_calls_over_two_meters_never_exceed_the_cap():
    world = capped("10.00")
    world.use(10_000)
    requests = [asking(world, 1000) if number % 2 else asking(world, 10, "images") for number in range(120)]
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(committer.submit, requests))
    held = sum(answer.estimated_amount for answer in answers if answer.authorization)
    assert held <= 10
    # There was room for a call of $0.20 to the last.
    assert held > Decimal("9.80") or all(answer.authorization for answer in answers[1::2])
    balances = [world.balance(meter__code=code) for code in ("tokens", "images")]
    assert sum(balance.held_amount for balance in balances) == held
