"""Errors become problem documents, whatever raised them."""

import doctest
import importlib
import json
import logging

import psycopg
import psycopg_pool
import pytest
from django.core.exceptions import BadRequest as DjangoBadRequest
from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse, HttpResponseNotAllowed
from django.test import RequestFactory
from rest_framework import exceptions, serializers
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from billing_site.http import middleware
from billing_site.http.problems import DomainError, StorageUnavailable, exception_handler, problem, translate


class PeriodStillOpen(DomainError):
    status = 409
    code = "period_still_open"
    title = "The period is still open"


def handled(exc):
    response = exception_handler(exc, {"view": None})
    assert response["Content-Type"] == "application/problem+json"
    return response, json.loads(response.content)


@pytest.mark.parametrize("name", ["problems", "wire", "authentication", "serializers", "queries"])
def test_examples_in_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(f"billing_site.http.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_a_problem_has_the_members_of_the_contract():
    response = problem(
        422, "validation", "Some values are not valid", "fee: Must.", [("fee", "invalid", "Must.")], {"X": "1"}
    )
    assert response.status_code == 422
    assert response["X"] == "1"
    assert json.loads(response.content) == {
        "type": "urn:tierbook:problem:validation",
        "title": "Some values are not valid",
        "status": 422,
        "detail": "fee: Must.",
        "code": "validation",
        "errors": [{"path": "fee", "code": "invalid", "message": "Must."}],
    }


def test_a_domain_error_speaks_for_itself():
    error = PeriodStillOpen(
        "It ends in an hour.", errors=[("as_of", "early", "Too early.")], headers={"Retry-After": "3600"}
    )
    response, document = handled(error)
    assert (response.status_code, response["Retry-After"]) == (409, "3600")
    assert (document["code"], document["title"], document["detail"]) == (
        "period_still_open",
        "The period is still open",
        "It ends in an hour.",
    )
    assert document["errors"] == [{"path": "as_of", "code": "early", "message": "Too early."}]


@pytest.mark.parametrize(
    ("exc", "status", "code", "headers"),
    [
        (exceptions.NotAuthenticated(), 401, "unauthenticated", {"WWW-Authenticate": "Bearer"}),
        (exceptions.AuthenticationFailed(), 401, "unauthenticated", {"WWW-Authenticate": "Bearer"}),
        (exceptions.PermissionDenied(), 403, "insufficient_scope", {}),
        (DjangoPermissionDenied(), 403, "insufficient_scope", {}),
        (exceptions.NotFound(), 404, "not_found", {}),
        (Http404("secret"), 404, "not_found", {}),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed", {"Allow": ""}),
        (exceptions.NotAcceptable(), 406, "not_acceptable", {}),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type", {}),
        (exceptions.ParseError(), 400, "malformed_json", {}),
        (exceptions.Throttled(wait=2.1), 429, "rate_limited", {"Retry-After": "3"}),
        (exceptions.Throttled(), 429, "rate_limited", {"Retry-After": "1"}),
        (OperationalError("server closed the connection"), 503, "storage_unavailable", {"Retry-After": "1"}),
        (InterfaceError("connection already closed"), 503, "storage_unavailable", {"Retry-After": "1"}),
        (psycopg.errors.LockNotAvailable(), 503, "storage_unavailable", {"Retry-After": "1"}),
        (psycopg_pool.PoolTimeout(), 503, "storage_unavailable", {"Retry-After": "1"}),
        (StorageUnavailable(), 503, "storage_unavailable", {"Retry-After": "1"}),
        (RequestDataTooBig(), 413, "body_too_large", {}),
        (DisallowedHost("evil"), 400, "bad_request", {}),
        (DjangoBadRequest(), 400, "bad_request", {}),
    ],
)
def test_each_kind_of_error_has_its_status_code_and_headers(exc, status, code, headers):
    response, document = handled(exc)
    assert (response.status_code, document["status"], document["code"]) == (status, status, code)
    assert {name: response[name] for name in headers} == headers
    assert "secret" not in response.content.decode()


def test_a_fault_of_ours_is_logged_and_tells_nothing(caplog):
    with caplog.at_level(logging.ERROR):
        response, document = handled(RuntimeError("password=hunter2"))
    assert response.status_code == 500
    assert document["code"] == "internal_error"
    assert "hunter2" not in response.content.decode()
    assert "hunter2" in caplog.text


def test_an_api_exception_of_a_package_keeps_its_status():
    class Teapot(exceptions.APIException):
        status_code = 418
        default_code = "teapot"
        default_detail = "I am a teapot"

    response, document = handled(Teapot())
    assert (response.status_code, document["code"]) == (418, "teapot")


def test_serializer_errors_are_flattened_with_dotted_paths():
    class Price(serializers.Serializer):
        model = serializers.ChoiceField(["flat"])

    class Charge(serializers.Serializer):
        price = Price()
        tags = serializers.ListField(child=serializers.IntegerField(), required=False)

        def validate(self, attrs):
            raise serializers.ValidationError("Both or none.", code="pair")

    class Draft(serializers.Serializer):
        name = serializers.CharField()
        charges = Charge(many=True)

    draft = Draft(
        data={"charges": [{"price": {"model": "flat"}}, {"price": {"model": "x"}, "tags": [1, "y"]}, {"price": 3}]}
    )
    with pytest.raises(serializers.ValidationError) as caught:
        draft.is_valid(raise_exception=True)
    response, document = handled(caught.value)
    assert (response.status_code, document["code"]) == (422, "validation")
    assert [(error["path"], error["code"]) for error in document["errors"]] == [
        ("name", "required"),
        ("charges.0", "pair"),
        ("charges.1.price.model", "invalid_choice"),
        ("charges.1.tags.1", "invalid"),
        ("charges.2.price", "invalid"),
    ]
    assert document["detail"].endswith("(2 more)")


def test_the_code_is_unknown_field_only_when_nothing_else_is_wrong():
    unknown = exceptions.ErrorDetail("?", code="unknown_field")
    other = exceptions.ErrorDetail("?", code="required")
    assert translate(exceptions.ValidationError({"a": [unknown]})).code == "unknown_field"
    assert translate(exceptions.ValidationError({"a": [unknown], "b": [other]})).code == "validation"


def test_a_view_of_drf_answers_405_with_allow_and_406():
    class View(APIView):
        authentication_classes = ()
        permission_classes = ()

        def get(self, request):
            return Response({})

    factory = APIRequestFactory()
    response = View.as_view()(factory.put("/api/v1/things"))
    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD, OPTIONS"
    assert response["Content-Type"] == "application/problem+json"
    response = View.as_view()(factory.get("/api/v1/things", HTTP_ACCEPT="application/xml"))
    assert response.status_code == 406
    assert json.loads(response.content)["code"] == "not_acceptable"
    assert View.as_view()(factory.get("/api/v1/things?format=xml")).status_code == 200


def through_middleware(request, view=lambda request: HttpResponse("ok")):
    return middleware.ProblemMiddleware(view)(request)


def test_the_middleware_lets_good_requests_through():
    request = RequestFactory().get("/api/v1/x", HTTP_AUTHORIZATION="Bearer a")
    assert through_middleware(request).content == b"ok"


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (RequestFactory().get("/api/v1/x?" + "a" * 20_000), 414, "uri_too_long"),
        (RequestFactory().get("/api/v1/x", HTTP_AUTHORIZATION="Bearer a,Bearer b"), 400, "bad_request"),
        (RequestFactory().generic("TRACE", "/api/v1/x"), 405, "method_not_allowed"),
    ],
)
def test_the_middleware_refuses_what_no_view_should_see(request_, status, code):
    response = through_middleware(request_)
    assert (response.status_code, json.loads(response.content)["code"]) == (status, code)


def test_a_method_override_header_is_ignored():
    request = RequestFactory().post("/api/v1/x", HTTP_X_HTTP_METHOD_OVERRIDE="DELETE")
    assert through_middleware(request, lambda request: HttpResponse(request.method)).content == b"POST"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (HttpResponse("<h1>", status=404), "not_found"),
        (HttpResponse("<h1>", status=400), "bad_request"),
        (HttpResponse("<h1>", status=403), "forbidden"),
        (HttpResponse("<h1>", status=502), "internal_error"),
        (HttpResponseNotAllowed(["GET"]), "method_not_allowed"),
    ],
)
def test_error_pages_under_api_become_problems_and_keep_their_headers(answer, code):
    answer["X-Kept"] = "1"
    response = through_middleware(RequestFactory().get("/api/v1/x"), lambda request: answer)
    document = json.loads(response.content)
    assert (response.status_code, document["status"], document["code"]) == (
        answer.status_code,
        answer.status_code,
        code,
    )
    assert response["X-Kept"] == "1"
    assert response["Content-Type"] == "application/problem+json"
    if code == "method_not_allowed":
        assert response["Allow"] == "GET"


def test_error_pages_elsewhere_stay_pages():
    response = through_middleware(RequestFactory().get("/admin/x"), lambda request: HttpResponse("<h1>", status=404))
    assert response.content == b"<h1>"


def test_exceptions_of_plain_views_become_problems_under_api_only():
    site = middleware.ProblemMiddleware(HttpResponse)
    response = site.process_exception(RequestFactory().get("/api/v1/x"), PeriodStillOpen("no"))
    assert response.status_code == 409
    assert site.process_exception(RequestFactory().get("/admin/x"), PeriodStillOpen("no")) is None


def test_the_sites_error_views_answer_problems_under_api_and_pages_elsewhere():
    factory = RequestFactory()
    for view, status, extra in [
        (middleware.handler400, 400, [Exception("<script>")]),
        (middleware.handler403, 403, [Exception("<script>")]),
        (middleware.handler404, 404, [Exception("<script>")]),
        (middleware.handler500, 500, []),
    ]:
        response = view(factory.get("/api/v1/x"), *extra)
        assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
        response = view(factory.get("/x"), *extra)
        assert response.status_code == status
        assert response["Content-Type"].startswith("text/html")
        assert b"<!doctype html>" in response.content
        assert b"script" not in response.content
