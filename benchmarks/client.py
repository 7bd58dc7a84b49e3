"""
The load client: one process, raw sockets and epoll, so that it takes as little as it can of the cores that it shares with the servers.

Requests are bytes that were built before; of an answer it reads the status and the length. It keeps every connection busy with one request
at a time until all have been sent. Connections are spread evenly over the server's workers: chance would put four of them on one worker in
one measurement out of eight, which would say more about chance than about what is measured.
"""

import multiprocessing
import select
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

GIVE_UP_SECONDS = 120.0
BROKEN = 0  # the status of a request whose connection ended before its answer
MISSING = -2  # what a path without HTTP should have done, and did not
UNANSWERED = -1  # and of those that had none when time was up
_WHICH_WORKER = b"GET /bench/worker HTTP/1.1\r\nHost: localhost\r\n\r\n"
_SURPLUS_MAX = 400  # connections to a worker that has its share already, before the shares are left as they are


@dataclass
class Load:
    """What came of a load."""

    seconds: float
    statuses: Counter[int]
    # Seconds from the first byte sent to the last received, one per answer, in order of size.
    latencies: list[float] = field(default_factory=list)


class Client:
    """The process; `send` is one load."""

    def __init__(self, port: int, *, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, port, workers), daemon=True)
        self._process.start()
        other.close()

    def send(self, requests: Sequence[bytes], *, connections: int) -> Load:
        """Send the requests over so many connections, and wait for all answers."""
        self._pipe.send((requests, connections))
        return self._pipe.recv()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=5)


def request_bytes(method: str, path: str, *, key: str, body: bytes = b"") -> bytes:
    """Return an HTTP request on a connection that is kept."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}"]
    if body:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def _serve(pipe: Connection, port: int, workers: int) -> None:
    with suppress(EOFError, BrokenPipeError):  # the run is over, or was ended
        while True:
            requests, connections = pipe.recv()
            pipe.send(_Run(port, requests).run(connections, workers))


class _Run:
    """One load."""

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._address = ("127.0.0.1", port)
        self._requests = iter(requests)
        self._open = len(requests)
        self._epoll = select.epoll()
        self._lines: dict[int, _Line] = {}
        self._statuses: Counter[int] = Counter()
        self._latencies: list[float] = []

    def run(self, connections: int, workers: int) -> Load:
        lines = [_Line(connected) for connected in self._connections(min(connections, self._open), workers)]
        for line in lines:
            self._take_in(line)
        began = time.perf_counter()
        for line in lines:
            self._next(line)
        while self._open and time.perf_counter() - began < GIVE_UP_SECONDS:
            for descriptor, event in self._epoll.poll(1.0):
                line = self._lines[descriptor]
                if event & select.EPOLLOUT:
                    self._push(line)
                if event & ~select.EPOLLOUT:
                    self._receive(line)
        seconds = time.perf_counter() - began
        for line in self._lines.values():
            line.socket.close()
        self._epoll.close()
        if self._open:
            self._statuses[UNANSWERED] = self._open
        return Load(seconds, self._statuses, sorted(self._latencies))

    def _connections(self, number: int, workers: int) -> list[socket.socket]:
        """Connect so often, evenly to the server's workers."""
        share = -(-number // workers)
        shares: Counter[bytes] = Counter()
        kept: list[socket.socket] = []
        surplus: list[socket.socket] = []
        while len(kept) < number:
            connected = self._connect()
            worker = _worker_of(connected)
            if shares[worker] < share or len(surplus) >= _SURPLUS_MAX:
                shares[worker] += 1
                kept.append(connected)
            else:
                surplus.append(connected)
        for connected in surplus:
            connected.close()
        return kept

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(self._address, timeout=10)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        return connected

    def _take_in(self, line: "_Line") -> None:
        self._lines[line.socket.fileno()] = line
        self._epoll.register(line.socket.fileno(), select.EPOLLIN)

    def _next(self, line: "_Line") -> None:
        request = next(self._requests, None)
        if request is None:
            line.sent_at = 0.0
            return
        line.sent_at = time.perf_counter()
        line.unsent = memoryview(request)
        line.received = b""
        line.length = 0
        self._push(line)

    def _push(self, line: "_Line") -> None:
        try:
            line.unsent = line.unsent[line.socket.send(line.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return  # the other end has closed; reading will say so
        if bool(line.unsent) != line.waits_to_write:
            line.waits_to_write = bool(line.unsent)
            self._epoll.modify(line.socket.fileno(), select.EPOLLIN | (select.EPOLLOUT if line.waits_to_write else 0))

    def _receive(self, line: "_Line") -> None:
        try:
            part = line.socket.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._replace(line)
            return
        line.received += part
        if not line.length:
            end = line.received.find(b"\r\n\r\n")
            if end < 0:
                return
            line.length = end + 4 + _content_length(line.received[:end])
        if len(line.received) < line.length:
            return
        self._latencies.append(time.perf_counter() - line.sent_at)
        self._statuses[int(line.received[9:12])] += 1
        self._open -= 1
        self._next(line)

    def _replace(self, line: "_Line") -> None:
        """Go on over a new connection; the request that had no answer is counted as such."""
        self._epoll.unregister(line.socket.fileno())
        del self._lines[line.socket.fileno()]
        line.socket.close()
        if not line.sent_at:
            return
        self._statuses[BROKEN] += 1
        self._open -= 1
        fresh = _Line(self._connect())
        self._take_in(fresh)
        self._next(fresh)


class _Line:
    """A connection, with its request on the way."""

    __slots__ = ("length", "received", "sent_at", "socket", "unsent", "waits_to_write")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.unsent = memoryview(b"")
        self.waits_to_write = False
        self.received = b""
        self.length = 0  # of the whole answer; 0 until its head has come
        self.sent_at = 0.0


def _worker_of(connected: socket.socket) -> bytes:
    """Ask which worker is at the other end."""
    connected.setblocking(True)
    connected.sendall(_WHICH_WORKER)
    answer, length = b"", 0
    while not length or len(answer) < length:
        part = connected.recv(65_536)
        if not part:
            raise ConnectionError("the web server closed a new connection")
        answer += part
        head, end, _ = answer.partition(b"\r\n\r\n")
        length = len(head) + len(end) + _content_length(head) if end else 0
    connected.setblocking(False)
    return answer[len(head) + len(end) :]


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
