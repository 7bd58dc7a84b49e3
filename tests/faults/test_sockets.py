"""Hostile requests that no test client can send: their bytes go to a real server (rows EV-body-39, EV-body-40, AUTH-16)."""

import gzip
import json
import socket
import time

import pytest

from subscriptions.models import Tier
from subscriptions.services.keys import issue_key
from tests.faults.installation import Installation
from tests.world import make_world

pytestmark = pytest.mark.django_db(transaction=True)


def ask(web: Installation, *parts: bytes, seconds: float = 3) -> tuple[bytes, bool]:
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


# One byte more than a body may have. Nothing follows that the server would have to leave unread.
TOO_MANY_CHUNKS = [b"100000\r\n" + b" " * 0x100000 + b"\r\n"] * 5 + [b"1\r\n \r\n0\r\n\r\n"]


def chunks(*parts: bytes) -> bytes:
    """Return a chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_lengths_that_lie_chunks_and_headers_that_stand_twice(web):
    world = make_world()
    _, secret = issue_key(name="test", scopes=["ingest"], actor="system")
    authorization = f"Authorization: Bearer {secret}\r\n".encode()
    head = b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + authorization
    event = {"id": "x", "subject": world.tenant.code, "type": "llm.completion", "data": {"total_tokens": 1}}
    body = json.dumps(event).encode()

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

    answer, _ = ask(
        web, head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(body[:40], body[40:])
    )
    assert answer.startswith(b"HTTP/1.1 202 "), answer
    answer, _ = ask(web, head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", *TOO_MANY_CHUNKS)
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert world.position() == ("1", "1", "0")


def test_chunked_bodies_are_read_by_every_door_and_none_is_read_without_a_key(web):
    _, secret = issue_key(name="test", scopes=["manage"], actor="system")
    head = b"POST /api/v1/tiers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n"
    key = f"Authorization: Bearer {secret}\r\n\r\n".encode()

    answer, _ = ask(web, head + key + chunks(b'{"code": "growth",', b' "name": "Growth"}'))
    assert answer.startswith(b"HTTP/1.1 201 "), answer
    answer, _ = ask(
        web, head + b"Content-Encoding: gzip\r\n" + key + chunks(gzip.compress(b'{"code": "packed", "name": "P"}'))
    )
    assert answer.startswith(b"HTTP/1.1 201 "), answer
    assert set(Tier.objects.values_list("code", "name")) == {("growth", "Growth"), ("packed", "P")}

    answer, _ = ask(web, head + key + chunks(b'{"code": "half"'))
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    answer, _ = ask(web, head + key + chunks())  # no body
    assert answer.startswith(b"HTTP/1.1 422 "), answer
    answer, _ = ask(web, head + key, *TOO_MANY_CHUNKS)
    assert answer.startswith(b"HTTP/1.1 413 "), answer

    # Its chunks never end: who waits for them before looking at the key never answers.
    began = time.monotonic()
    answer, _ = ask(web, head + b"\r\n" + b"1\r\n{\r\n")
    assert answer.startswith(b"HTTP/1.1 401 "), answer
    assert time.monotonic() - began < 3
    assert Tier.objects.count() == 2
