"""A small TCP proxy between the product and a server, which delays, cuts and refuses as a network does."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

COMMIT = b"COMMIT\0"
CHUNK = 65536


class Proxy:
    """
    Passes bytes on, on a port of its own.

    `delay`: seconds by which each answer comes late. `cut_every`: every so many COMMITs the client's connection is cut when the server
    has done it, so that the client cannot know; 0 cuts none. `cuts` counts them.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.delay = 0.0
        self.cut_every = 0
        self.cuts = 0
        self._commits = 0
        self._counting = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuse new connections, and cut those that are open."""
        _cut(self._listener)
        self.cut_all()

    def cut_all(self) -> None:
        """Cut the connections that are open."""
        for one in list(self._open):
            _cut(one)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    _cut(client)
                    continue
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._open.add(one)
                _Passage(self, client, server).start()

    def counts_to_cut(self, chunk: bytes) -> bool:
        """Whether the COMMIT in this chunk, if there is one, is to be cut."""
        if COMMIT not in chunk or not self.cut_every:
            return False
        with self._counting:
            self._commits += 1
            cut = self._commits % self.cut_every == 0
            self.cuts += cut
        return cut

    def forget(self, *ended: socket.socket) -> None:
        """Drop connections that have ended."""
        self._open.difference_update(ended)


class _Passage:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._is_cut = False

    def start(self) -> None:
        for pass_on in (self._there, self._back):
            threading.Thread(target=self._until_ended, args=(pass_on,), daemon=True).start()

    def _until_ended(self, pass_on: Callable[[], None]) -> None:
        with suppress(OSError):
            pass_on()
        for one in (self._client, self._server):
            _cut(one)
        self._proxy.forget(self._client, self._server)

    def _there(self) -> None:
        while chunk := self._client.recv(CHUNK):
            # Before it is sent: its answer must not overtake the decision.
            self._is_cut = self._is_cut or self._proxy.counts_to_cut(chunk)
            self._server.sendall(chunk)

    def _back(self) -> None:
        while chunk := self._server.recv(CHUNK):
            if self._is_cut:
                return  # the server has answered, so it is committed, and nobody learns of it
            if self._proxy.delay:
                time.sleep(self._proxy.delay)
            self._client.sendall(chunk)


def _cut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxy_before(url: str) -> Iterator[tuple[Proxy, str]]:
    """Run a proxy before the server of this address, and yield it with the address that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy((parts.hostname, parts.port))
    try:
        netloc = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        yield proxy, urlunsplit(parts._replace(netloc=netloc))
    finally:
        proxy.close()
