"""
What the examples for nginx promise, with Debian's nginx; skipped where there is none.

A call reaches a model only if the gate lets it, and a deploy of two servers fails no request.
"""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.faults.acklog import AckLog
from tests.faults.installation import Installation, database_url
from tests.faults.nginx import needs_nginx, nginx
from tests.world import World, charge, make_meter, make_world, publish

pytestmark = [pytest.mark.django_db(transaction=True), needs_nginx]


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
    replaced = {
        "127.0.0.1:8000": f"127.0.0.1:{web.port}",
        "127.0.0.1:9000": f"127.0.0.1:{model}",
        "proxy_set_header Host tierbook;": "proxy_set_header Host 127.0.0.1;",
        "tb_replace_me": web.key,
    }
    with nginx(tmp_path, "nginx-gate.conf", replaced) as url:
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


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.long)])
def test_a_deploy_of_two_servers_behind_it_fails_no_request(web, tmp_path, rounds, record_property):
    """SIGTERM for one server under load, its start anew, then the other one: each request is sent once by its client, and answered."""
    second = tmp_path / "second"
    second.mkdir()
    with Installation(second, key=web.key) as other:
        other.start("web")
        replaced = {"127.0.0.1:8000": f"127.0.0.1:{web.port}", "127.0.0.1:8001": f"127.0.0.1:{other.port}"}
        with nginx(tmp_path, "nginx-deploy.conf", replaced) as url:
            with AckLog(url, web.key, [make_world().tenant.code for _ in range(4)]) as log:
                for server in [web, other] * rounds:
                    time.sleep(1)
                    server.restart("web")
                time.sleep(1)
            log.check(database_url())
    assert set(log.outcomes()) <= {200, 202}
    assert log.most_sendings() == 1
    record_property("runs", 2 * rounds)
    record_property("recovery_seconds", log.longest_silence())
    record_property("throughput", log.summary())
