"""Hostile requests that no test client can send: their bytes go to a real server (rows EV-body-39, EV-body-40, AUTH-16)."""

import json
import socket
import time
from collections.abc import Iterator

import pytest

from subscriptions.services.keys import issue_key
from tests.faults.test_web_processes import Web
from tests.world import make_world

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def web(transactional_db: None) -> Iterator[Web]:
    running = Web()
    yield running
    running.stop()


def ask(web: Web, *parts: bytes, seconds: float = 3) -> tuple[bytes, bool]:
    """Send the parts, and return all that comes back, with whether the server closed the connection."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=seconds) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        try:
            while received := connection.recv(65536):
                answer += received
        except TimeoutError:
            return answer, False
        return answer, True


def test_lengths_that_lie_chunks_and_headers_that_stand_twice(web):
    world = make_world()
    _, secret = issue_key(name="test", scopes=["ingest"], actor="system")
    authorization = f"Authorization: Bearer {secret}\r\n".encode()
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + authorization
    event = {"id": "x", "subject": world.tenant.code, "type": "llm.completion", "data": {"total_tokens": 1}}
    body = json.dumps(event).encode()
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:40], body[40:])) + b"0\r\n\r\n"

    # EV-body-39: the rest of the body is not taken for another request: the connection is closed.
    answer, closed = ask(web, head + b"Content-Length: 5\r\n\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"malformed_json" in answer
    assert (answer.count(b"HTTP/1.1 400 "), closed) == (2, True)

    # EV-body-40 asks for 408 when 999,999,999 bytes trickle in. More than 5 MiB is refused before any of it is read, with 413.
    began = time.monotonic()
    answer, _ = ask(web, head + b"Content-Length: 999999999\r\nConnection: close\r\n\r\n", b"x")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - began < 3

    # AUTH-16, with the right key in both places or in one.
    for other in (authorization, b"Authorization: Bearer wrong\r\n"):
        answer, _ = ask(web, head + other + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert answer.startswith(b"HTTP/1.1 400 ")
    assert world.position() == ("0", "0", "0")

    answer, _ = ask(web, head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked)
    assert answer.startswith(b"HTTP/1.1 202 "), answer
    too_many = [b"100000\r\n" + b" " * 0x100000 + b"\r\n"] * 6
    answer, _ = ask(web, head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", *too_many, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert world.position() == ("1", "1", "0")
