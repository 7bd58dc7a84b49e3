"""The gate over four real processes: holds are exact while clients race, web processes and Redis are killed, and Redis is emptied."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from metering.models import Authorization
from tests.faults.installation import Installation
from tests.faults.own_servers import OwnServer
from tests.world import World, charge, make_meter, make_world, publish

pytestmark = pytest.mark.django_db(transaction=True)

INCLUDED, USED_BEFORE = 20_000, 6_250  # 13,750 are left: 137 calls of 100
CALLS, QUANTITY, GRANTED = 500, 100, 137


@pytest.fixture
def valkey() -> Iterator[OwnServer]:
    with OwnServer("valkey") as server:
        yield server


@pytest.fixture
def strict() -> World:
    make_meter()
    world = make_world(version=publish("strict", charges=[charge(included=str(INCLUDED), at_limit="deny")]))
    world.use(USED_BEFORE)
    return world


def authorize(web: Installation, world: World, number: int) -> str | None:
    """Ask for a call, again with the same key until it is known what became of it; return our id of the hold."""
    body = {"tenant": world.tenant.code, "meter": "tokens", "quantity": QUANTITY, "key": f"call-{number}"}
    answer = web.api.call("POST", "/authorizations", body | {"ttl_seconds": 3600})
    assert answer.status in (200, 201), answer
    assert answer.body["decision"] in ("allow", "deny")
    return answer.body["id"]


def settle(web: Installation, authorization: str, quantity: int) -> None:
    answer = web.api.call("POST", f"/authorizations/{authorization}/settle", {"quantity": quantity})
    assert (answer.status, answer.body["status"], answer.body["settled_quantity"]) == (200, "settled", str(quantity))


def quantities(granted: list[str]) -> dict[str, int]:
    """Half of the calls use more than was held, half less."""
    return {one: 150 if place % 2 else 40 for place, one in enumerate(granted)}


def assert_exact(world: World, granted: list[str]) -> None:
    assert len(granted) == len(set(granted)) == GRANTED
    assert (world.balance().used, world.balance().held) == (USED_BEFORE, GRANTED * QUANTITY)
    assert Authorization.objects.filter(status="held").count() == GRANTED


def test_five_hundred_racing_calls_over_four_processes_are_granted_exactly_what_is_left(installation, strict):
    installation.start("web", "web 2")
    with ThreadPoolExecutor(CALLS) as threads:
        holds = list(threads.map(lambda number: authorize(installation, strict, number), range(CALLS)))
        granted = [one for one in holds if one]
        assert_exact(strict, granted)
        used = quantities(granted)
        list(threads.map(lambda one: settle(installation, one, used[one]), granted))
        left = INCLUDED - USED_BEFORE - sum(used.values())
        again = list(threads.map(lambda number: authorize(installation, strict, number), range(CALLS, CALLS + 100)))
    assert (strict.balance().used, strict.balance().held) == (INCLUDED - left, left // QUANTITY * QUANTITY)
    assert sum(map(bool, again)) == left // QUANTITY


def test_killed_processes_and_a_lost_redis_grant_nothing_twice_and_lose_nothing(tmp_path, valkey, strict):
    with Installation(tmp_path, redis=valkey.url) as web, ThreadPoolExecutor(32) as threads:
        web.start("web", "web 2")
        asked = [threads.submit(authorize, web, strict, number) for number in range(CALLS // 2)]
        web.kill_a_child("web")
        with redis.Redis.from_url(valkey.url, socket_timeout=5) as client:
            client.flushall()
        asked += [threads.submit(authorize, web, strict, number) for number in range(CALLS // 2, CALLS)]
        time.sleep(0.2)
        valkey.kill()
        web.kill_a_child("web 2")
        granted = [one for one in (hold.result(timeout=120) for hold in asked) if one]
        assert_exact(strict, granted)

        used = quantities(granted)
        settled = [threads.submit(settle, web, one, used[one]) for one in granted[:70]]
        web.kill_a_child("web")
        valkey.start()
        settled += [threads.submit(settle, web, one, used[one]) for one in granted]
        time.sleep(0.1)
        web.kill_a_child("web 2")
        for one in settled:
            one.result(timeout=120)
    assert (strict.balance().used, strict.balance().held) == (USED_BEFORE + sum(used.values()), 0)
