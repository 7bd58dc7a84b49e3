"""Web processes are killed, ended and replaced while usage comes in."""

import os
import signal
import time

import pytest

from tests.faults.acklog import AckLog
from tests.faults.installation import Installation, database_url, until
from tests.processes import is_running
from tests.world import make_world

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

# Of the two workers one goes on meanwhile. granian ends altogether when a worker dies within 5.5 s of its birth.
BETWEEN_KILLS = 7


def load(web: Installation) -> AckLog:
    return AckLog(web.url, web.key, [make_world().tenant.code for _ in range(4)])


def assert_right(log: AckLog) -> None:
    log.check(database_url())
    log.repeat()
    log.check(database_url())


def test_kill_9_of_web_workers_loses_and_doubles_nothing(web, record_property):
    with load(web) as log:
        for place in range(4):
            time.sleep(BETWEEN_KILLS)
            web.kill(web.processes("web")[1 + place % 2])
            record_property("recovery_seconds", log.recovery(time.monotonic()))
        time.sleep(BETWEEN_KILLS)
    assert_right(log)
    record_property("throughput", log.summary())


def test_kill_9_of_a_whole_web_server_and_a_new_start_lose_and_double_nothing(web, record_property):
    with load(web) as log:
        for _ in range(3):
            time.sleep(2)
            for process_id in web.processes("web"):
                web.kill(process_id)
            killed_at = time.monotonic()
            web.restart("web")
            record_property("recovery_seconds", log.recovery(killed_at))
    assert_right(log)
    record_property("throughput", log.summary())


def test_a_web_server_that_is_ended_finishes_what_it_has_accepted(web, record_property):
    """SIGTERM, and a start anew: a gap in which connections are refused, which no client can take for an answer."""
    with load(web) as log:
        for _ in range(3):
            time.sleep(2)
            web.restart("web")
            log.recovery(time.monotonic())
    assert_right(log)
    record_property("recovery_seconds", log.longest_silence())
    assert set(log.outcomes()) <= {200, 202, "refused", "cut"}
    record_property("runs", 3)
    record_property("throughput", log.summary())


def test_a_deploy_beside_the_old_server_fails_no_request_that_is_sent_a_second_time(web, record_property):
    """A second server on the same port, then SIGTERM for the first, in turns."""
    servers = ["web", "web 2"]
    with load(web) as log:
        for _ in range(4):
            old, new = servers
            web.start(new)
            time.sleep(1)
            web.stop(old)
            servers.reverse()
        time.sleep(1)
    assert_right(log)
    assert log.most_sendings() <= 2
    record_property("runs", 4)
    record_property("recovery_seconds", log.longest_silence())
    record_property("throughput", log.summary())


def test_a_deploy_by_sighup_fails_no_request_that_is_sent_a_second_time(tmp_path, record_property):
    """The server starts new workers with the new code, and ends each old one a while later: longer than a start takes."""
    with Installation(tmp_path, GRANIAN_RESPAWN_INTERVAL="20") as web:
        web.start("web")
        with load(web) as log:
            old = web.processes("web")[1:]
            os.kill(web.processes("web")[0], signal.SIGHUP)
            until(lambda: not any(map(is_running, old)), what="the end of the old workers", seconds=120)
            time.sleep(1)
        assert_right(log)
    assert log.most_sendings() <= 2
    record_property("runs", len(old))
    record_property("recovery_seconds", log.longest_silence())
    record_property("throughput", log.summary())
