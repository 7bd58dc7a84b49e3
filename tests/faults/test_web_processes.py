"""Real web processes on the test database: races at the ceiling, killed workers, a flushed Redis. The figures are exact."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django_redis import get_redis_connection

from tests.world import make_world

pytestmark = pytest.mark.django_db(transaction=True)


def event(world, number, tokens):
    return {
        "id": f"race-{number}",
        "subject": world.tenant.code,
        "type": "llm.completion",
        "data": {"total_tokens": tokens},
    }


def test_five_hundred_racing_requests_over_two_processes_cover_exactly_the_allowance(web):
    world = make_world()

    def post(number):
        return web.api.call("POST", "/events", event(world, number, 100)).status

    with ThreadPoolExecutor(500) as threads:
        assert set(threads.map(post, range(500))) == {202}
    assert world.position() == ("50000", "10000", "40000")


def test_killed_workers_and_a_flushed_redis_change_no_figure(web):
    world = make_world()
    sent = [event(world, number, 7) for number in range(3000)]
    requests = [[one] for one in sent[:600]] + [sent[start : start + 100] for start in range(600, 3000, 100)]
    requests += requests[::10]

    def post(part):
        answer = web.api.call("POST", "/events", part[0] if len(part) == 1 else part)
        return answer.status

    with ThreadPoolExecutor(16) as threads:
        answers = [threads.submit(post, part) for part in requests[:200]]
        web.kill_a_child("web")
        get_redis_connection("default").flushall()
        answers += [threads.submit(post, part) for part in requests[200:]]
        time.sleep(0.2)
        get_redis_connection("default").flushall()
        web.kill_a_child("web")
        assert {one.result(timeout=120) for one in answers} <= {200, 202}
    assert world.position() == ("21000", "10000", "11000")
    # Everything that was acknowledged is a duplicate now, and counts nothing.
    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(post, requests[:50])) == {200}
    assert world.position() == ("21000", "10000", "11000")
