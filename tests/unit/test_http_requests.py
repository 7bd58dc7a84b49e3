"""The strict parser, the renderer, query parameters, scopes and bearer keys, without a server."""

import gzip
import io
import json
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, QueryDict
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from billing_site import cache
from billing_site.http import queries
from billing_site.http.authentication import BadKeyLimiter, bearer_token
from billing_site.http.parsers import StrictJSONParser, read_limited
from billing_site.http.permissions import HasScope
from billing_site.http.problems import BodyTooLarge, RateLimited
from billing_site.http.queries import BadQuery, QueryParameters, UnknownParameter
from billing_site.http.renderers import JSONRenderer

factory = APIRequestFactory()


class Keys(BaseAuthentication):
    def authenticate(self, request):
        header = request.META.get("HTTP_AUTHORIZATION")
        return None if header is None else (None, SimpleNamespace(scopes=bearer_token(header).split(".")))

    def authenticate_header(self, request):
        return "Bearer"


class Things(APIView):
    authentication_classes = (Keys,)
    permission_classes = (HasScope,)
    parser_classes = (StrictJSONParser,)
    renderer_classes = (JSONRenderer,)
    required_scopes = {"GET": "read", "POST": "manage"}

    def get(self, request):
        return Response({"amount": Decimal("1E+2")})

    def post(self, request):
        return Response({"seen": request.data}, status=201)


def call(method, body=b"", *, key="read.manage", content_type="application/json", **headers):
    request = factory.generic(method, "/api/v1/things", body, content_type, **headers)
    if key is not None:
        request.META["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    response = Things.as_view()(request)
    response.render() if isinstance(response, Response) else None
    return response.status_code, json.loads(response.content or b"null")


def test_a_body_is_read_exactly_and_an_answer_is_plain():
    assert call("POST", b'{"quantity": 12345678901234567.123456}') == (
        201,
        {"seen": {"quantity": "12345678901234567.123456"}},
    )
    assert call("GET") == (200, {"amount": "100"})
    assert call("HEAD")[0] == 200


def test_a_gzipped_body_is_read():
    assert call("POST", gzip.compress(b'{"a":1}'), HTTP_CONTENT_ENCODING="gzip") == (201, {"seen": {"a": 1}})


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed_json"),
        (b'{"a":1,"a":2}', "application/json", 400, "malformed_json"),
        (b'{"a":"\\u0000"}', "application/json", 422, "validation"),
        (b"[" * 40, "application/json", 400, "too_deep"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "application/xml", 415, "unsupported_media_type"),
        (b"{}", "multipart/form-data; boundary=x", 415, "unsupported_media_type"),
        (b"{}", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"{}", "application/json; charset=foo", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
        (b" " * (5 * 1024 * 1024) + b"{}", "application/json", 413, "body_too_large"),
    ],
)
def test_bad_bodies_are_problems(body, content_type, status, code):
    answered, document = call("POST", body, content_type=content_type)
    assert (answered, document["code"]) == (status, code)


def test_two_content_encodings_are_refused():
    assert call("POST", b"{}", HTTP_CONTENT_ENCODING="gzip, gzip")[0] == 415


def test_a_body_announced_as_too_large_is_not_read():
    class Unreadable(io.BytesIO):
        def read(self, *args):
            raise AssertionError("read")

    for announced in ["5242881", "9" * 5000]:
        with pytest.raises(BodyTooLarge):
            read_limited(Unreadable(), {"CONTENT_LENGTH": announced})


def test_a_body_without_an_announced_length_is_read_up_to_the_limit_only():
    stream = io.BytesIO(b"x" * 1000)
    with pytest.raises(BodyTooLarge):
        read_limited(stream, {}, limit=10)
    assert stream.tell() == 11


@pytest.mark.parametrize(
    ("method", "key", "status", "code"),
    [
        ("GET", None, 401, "unauthenticated"),
        ("PUT", None, 401, "unauthenticated"),
        ("GET", "ingest", 403, "insufficient_scope"),
        ("POST", "read", 403, "insufficient_scope"),
        ("PUT", "read", 405, "method_not_allowed"),
        ("GET", "read\n", 401, "unauthenticated"),
        ("GET", "", 401, "unauthenticated"),
    ],
)
def test_scopes_decide_per_method(method, key, status, code):
    answered, document = call(method, b"{}" if method != "GET" else b"", key=key)
    assert (answered, document["code"]) == (status, code)


def test_the_refusal_names_the_scope_that_is_needed():
    assert "manage" in call("POST", b"{}", key="read")[1]["detail"]


def test_a_view_without_a_scope_serves_nobody():
    view = SimpleNamespace(allowed_methods=["GET"])
    request = SimpleNamespace(auth=SimpleNamespace(scopes=["manage"]), method="GET")
    with pytest.raises(ImproperlyConfigured):
        HasScope().has_permission(request, view)
    view.scope = "manage"
    assert HasScope().has_permission(request, view)


def test_a_bearer_header_gives_its_key():
    assert bearer_token("Bearer tb_live_Az09-._~+/=") == "tb_live_Az09-._~+/="
    assert bearer_token("bearer x") == "x"


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic eDp5", "x", "Bearer a b", "Bearer a\n", "Bearer a\x00", "Bearer é"]
    + ["Bearer a,Bearer b", "Bearer " + "a" * 201, " Bearer a"],
)
def test_other_headers_are_refused(header):
    with pytest.raises(AuthenticationFailed):
        bearer_token(header)


@pytest.fixture
def without_redis(monkeypatch):
    monkeypatch.setattr(cache, "increment", lambda name, *, seconds: None)


def test_without_redis_bad_keys_are_limited_by_the_process(without_redis):
    limiter = BadKeyLimiter(failures_max=3)
    for _ in range(3):
        limiter.failed("192.0.2.1")
    with pytest.raises(RateLimited) as caught:
        limiter.failed("192.0.2.1")
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
    limiter.failed("192.0.2.2")


def test_a_minute_later_failures_count_anew(without_redis, monkeypatch):
    moment = [1000.0]
    monkeypatch.setattr("billing_site.http.authentication.time.monotonic", lambda: moment[0])
    limiter = BadKeyLimiter(failures_max=1)
    limiter.failed("192.0.2.1")
    with pytest.raises(RateLimited):
        limiter.failed("192.0.2.1")
    moment[0] += 60
    limiter.failed("192.0.2.1")


def test_one_network_of_ipv6_is_one_client(without_redis):
    limiter = BadKeyLimiter(failures_max=1)
    limiter.failed("2001:db8::1")
    with pytest.raises(RateLimited):
        limiter.failed("2001:db8::ffff")
    for unknown in [None, "", "x", "1.2.3.4.5"]:
        with pytest.raises(RateLimited):
            limiter.failed(unknown)
            limiter.failed(unknown)


def test_a_flood_of_addresses_is_limited_as_one(without_redis, monkeypatch):
    monkeypatch.setattr("billing_site.http.authentication.ADDRESSES_MAX", 2)
    limiter = BadKeyLimiter(failures_max=1)
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"]:
        limiter.failed(address)
    with pytest.raises(RateLimited):
        limiter.failed("192.0.2.4")


def test_the_higher_of_both_counts_decides(monkeypatch):
    monkeypatch.setattr(cache, "increment", lambda name, *, seconds: (101, 7.2))
    with pytest.raises(RateLimited) as caught:
        BadKeyLimiter().failed("192.0.2.1")
    assert caught.value.headers["Retry-After"] == "8"


def read(parameters, query):
    request = HttpRequest()
    request.GET = QueryDict(query)
    return parameters.read(request)


INVOICES = QueryParameters(
    {
        "tenant": queries.code,
        "status": queries.choice("open", "paid"),
        "from": queries.timestamp,
        "quantity": queries.whole_number(minimum=0, maximum=10),
        "source": queries.text,
    },
    paged=True,
)


def test_declared_parameters_are_converted_and_absent_ones_are_none():
    assert read(INVOICES, "tenant=org_1&from=2026-01-01T00:00:00%2B01:00&quantity=10&limit=5&cursor=x") == {
        "tenant": "org_1",
        "status": None,
        "from": queries.timestamp("2025-12-31T23:00:00Z"),
        "quantity": 10,
        "source": None,
    }
    assert read(INVOICES, "from=2026-01-01T00:00:00+01:00")["from"] == queries.timestamp("2025-12-31T23:00:00Z")


@pytest.mark.parametrize(
    "query", ["unknown=1", "expand=a.b", "ordering=-total", "format=xml", "api_key=sk", "Tenant=a"]
)
def test_unknown_parameters_are_refused(query):
    with pytest.raises(UnknownParameter) as caught:
        read(INVOICES, query)
    assert (caught.value.status, caught.value.code) == (400, "unknown_field")
    assert caught.value.errors[0].path == query.partition("=")[0]


def test_an_unknown_parameter_gets_a_hint():
    with pytest.raises(UnknownParameter) as caught:
        read(INVOICES, "tennant=org_1")
    assert "Did you mean tenant?" in caught.value.errors[0].message


@pytest.mark.parametrize(
    "query",
    ["tenant=a&tenant=b", "limit=1&limit=2", "tenant=", "tenant=a%00", "tenant=a%20b", "status=void", "from=yesterday"]
    + [
        "quantity=11",
        "quantity=-1",
        "quantity=1e3",
        "quantity=%D9%A3",
        "source=%FF",
        "source=a%0Ab",
        "source=" + "a" * 256,
    ],
)
def test_bad_values_are_refused(query):
    with pytest.raises(BadQuery) as caught:
        read(INVOICES, query)
    assert (caught.value.status, caught.value.code) == (400, "validation")
    assert [error.path for error in caught.value.errors] == [query.partition("=")[0]]


def test_a_required_parameter_must_stand_there():
    with pytest.raises(BadQuery):
        read(QueryParameters({"meter": queries.code}, required=("meter",)), "")
    with pytest.raises(UnknownParameter):
        read(QueryParameters(), "limit=5")
