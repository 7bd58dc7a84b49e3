"""`make run` as its user sees it: what it prints, what it serves, how it ends."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.launching import Launched
from tests.processes import command_of, is_running

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data_dir():
    path = Path(tempfile.mkdtemp(prefix="tierbook-launcher-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def launch(data_dir):
    runs = []

    def start():
        runs.append(Launched(data_dir))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.end()


def test_a_page_is_served_and_a_second_start_keeps_what_the_first_made(launch, data_dir):
    first = launch().until_served()
    with urlopen(f"http://127.0.0.1:{first.port}/") as page:
        assert b"<h1>Tierbook</h1>" in page.read()
    processes = first.descendants()
    assert first.end(signal.SIGINT) == 0

    second = launch().until_served()
    check = subprocess.run(
        [sys.executable, "manage.py", "migrate", "--check"],
        cwd=ROOT,
        env={"DATA_DIR": str(data_dir), "ENV_FILE": "", "PATH": os.environ["PATH"]},
    )
    assert second.end(signal.SIGTERM) == 0

    assert re.search(r"Password: +\S{20}\n", first.printed)
    assert f"http://localhost:{first.port}/admin/" in first.printed
    assert "Password" not in second.printed
    assert "API key" not in second.printed
    assert check.returncode == 0, "manage.py did not find the running servers"
    assert len(processes) > 6
    assert not any(map(is_running, processes))


def test_a_process_that_ends_takes_the_installation_with_it_and_is_named(launch):
    run = launch().until_served()
    processes = run.descendants()
    os.kill(
        next(one for one in processes if b"celery" in command_of(one) and b"worker" in command_of(one)), signal.SIGKILL
    )

    assert run.ended() == 1
    assert "worker ended (signal SIGKILL)" in run.printed
    assert not any(map(is_running, processes))


def test_everything_ends_with_a_killed_launcher(launch):
    run = launch().until_served()
    processes = run.descendants()
    run.end(signal.SIGKILL)

    give_up_at = time.monotonic() + 20
    while any(map(is_running, processes)):
        assert time.monotonic() < give_up_at, [command_of(one) for one in processes if is_running(one)]
        time.sleep(0.1)


def test_a_port_that_is_taken_is_named_before_anything_starts(launch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {**os.environ, "PORT": str(port), "ENV_FILE": ""}
        completed = subprocess.run(
            [sys.executable, "-m", "billing_site.launcher"], cwd=ROOT, env=environment, capture_output=True, text=True
        )

    assert completed.returncode == 1
    assert (
        f"127.0.0.1:{port} cannot be used (Address already in use). Choose another: PORT={port + 1}" in completed.stderr
    )
