"""Real web processes on the test database: races at the ceiling, killed workers, a flushed Redis. The figures are exact."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection
from django_redis import get_redis_connection

from examples.replay_trace import Api
from subscriptions.services.keys import issue_key
from tests.world import make_world

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).parents[2]
WORKERS = 2


class Web:
    """Two granian workers in processes of their own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
        command = [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1"]
        command += [
            "--port",
            str(self.port),
            "--workers",
            str(WORKERS),
            "--blocking-threads",
            "64",
            "--backlog",
            "1024",
        ]
        command += ["--respawn-failed-workers", "--log-level", "warning", "billing_site.wsgi:application"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"DATABASE_URL": urlunsplit(database)}, start_new_session=True
        )
        _, secret = issue_key(name="test", scopes=["ingest", "read", "manage"], actor="system")
        self.api = Api(f"http://127.0.0.1:{self.port}", secret)
        self._wait_until_served()

    def kill_one_worker(self) -> None:
        """kill -9 one of the workers, in the middle of whatever it is doing."""
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)

    def stop(self) -> None:
        """End all of its processes."""
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _wait_until_served(self) -> None:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        pytest.fail("the web processes did not start")


@pytest.fixture
def web(transactional_db: None) -> Iterator[Web]:
    running = Web()
    yield running
    running.stop()


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
        web.kill_one_worker()
        get_redis_connection("default").flushall()
        answers += [threads.submit(post, part) for part in requests[200:]]
        time.sleep(0.2)
        get_redis_connection("default").flushall()
        web.kill_one_worker()
        assert {one.result(timeout=120) for one in answers} <= {200, 202}
    assert world.position() == ("21000", "10000", "11000")
    # Everything that was acknowledged is a duplicate now, and counts nothing.
    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(post, requests[:50])) == {200}
    assert world.position() == ("21000", "10000", "11000")
