"""nginx, with an example's configuration, before the web servers of a test."""

import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.installation import until

EXAMPLES = Path(__file__).parents[2] / "examples"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="there is no nginx here")

# Where the examples listen.
LISTENS = "127.0.0.1:8080"


@contextmanager
def nginx(directory: Path, example: str, replaced: Mapping[str, str]) -> Iterator[str]:
    """Run an example with the addresses of a test in the place of its own; yield where it listens."""
    port = _free_port()
    server = (EXAMPLES / example).read_text()
    for old, new in {LISTENS: f"127.0.0.1:{port}", **replaced}.items():
        assert old in server
        server = server.replace(old, new)
    paths = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{paths}{server}}}\n"
    )
    with subprocess.Popen(
        [str(NGINX), "-p", str(directory), "-c", str(configuration)], stderr=subprocess.PIPE
    ) as process:
        try:
            until(lambda: _answers(port), what=f"nginx: {directory / 'error.log'}", seconds=10)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
