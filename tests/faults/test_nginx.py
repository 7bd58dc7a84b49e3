"""examples/nginx-gate.conf: Debian's nginx lets a call through to a model only if the gate does. Skipped where there is no nginx."""

import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.faults.installation import Installation, until
from tests.world import World, charge, make_meter, make_world, publish

EXAMPLE = Path(__file__).parents[2] / "examples" / "nginx-gate.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(NGINX is None, reason="there is no nginx here"),
]


class Model(BaseHTTPRequestHandler):
    """Says by which decision it was asked."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.headers.get("X-Tierbook-Decision", "none").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def nginx(directory: Path, *, web: Installation, model: int) -> Iterator[str]:
    """Run the example with the addresses of this test; yield where it listens."""
    port = free_port()
    server = EXAMPLE.read_text()
    replaced = {
        "127.0.0.1:8000": f"127.0.0.1:{web.port}",
        "127.0.0.1:9000": f"127.0.0.1:{model}",
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "proxy_set_header Host tierbook;": "proxy_set_header Host 127.0.0.1;",
        "tb_replace_me": web.key,
    }
    for old, new in replaced.items():
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
            until(lambda: answers(port), what=f"nginx: {directory / 'error.log'}", seconds=10)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def call(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Post a call to the model; return status, the gate's headers, and what the model says."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{url}/v1/complete", b'{"prompt": "hello"}', named)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, dict(refusal.headers), ""


@pytest.fixture
def model() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def strict() -> World:
    make_meter()
    return make_world(version=publish("strict", charges=[charge(included="1000", at_limit="deny")]))


def test_a_call_reaches_the_model_only_if_the_gate_lets_it(web, strict, model, tmp_path):
    with nginx(tmp_path, web=web, model=model) as url:
        strict.use(600)
        tenant = strict.tenant.code
        status, headers, said = call(url, X_Tenant=tenant, X_Max_Tokens="400")
        assert (status, said, headers["X-Tierbook-Decision"], headers["X-Tierbook-Remaining"]) == (
            200,
            "allow",
            "allow",
            "0",
        )
        status, headers, _ = call(url, X_Tenant=tenant, X_Max_Tokens="401")
        assert (status, headers["X-Tierbook-Decision"]) == (429, "deny")
        assert int(headers["Retry-After"]) > 0
        # Without a quantity one unit is asked for; nonsense is not passed on.
        assert call(url, X_Tenant=tenant)[0] == 200
        assert call(url, X_Tenant=tenant, X_Max_Tokens="1&quantity=5000")[0] == 200
        assert call(url, X_Tenant="../../tenants")[0] == 400
        assert call(url)[0] == 400
        assert call(url, X_Tenant="nobody")[0] == 503
        web.stop("web")
        assert call(url, X_Tenant=tenant)[0] == 503
