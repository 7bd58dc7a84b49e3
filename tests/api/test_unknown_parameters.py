"""A mistyped query parameter is named by every door, and never passed over: `?dry_run=1` must not carry something out."""

import pytest
from django.urls import reverse

import invoices.api.urls
import metering.api.urls
import subscriptions.api.urls
from tests.api.test_invoices_api import Api

pytestmark = pytest.mark.django_db

IN_PATHS = {
    "invoice": "01900000-0000-7000-8000-000000000000",
    "subscription": "01900000-0000-7000-8000-000000000000",
    "authorization": "01900000-0000-7000-8000-000000000000",
    "event": "01900000-0000-7000-8000-000000000000",
    "grant": "01900000-0000-7000-8000-000000000000",
    "schedule": "01900000-0000-7000-8000-000000000000",
    "change": "01900000-0000-7000-8000-000000000000",
    "backtest": "01900000-0000-7000-8000-000000000000",
    "number": "1",
}
DOORS = [
    (method, pattern)
    for urls in (subscriptions.api.urls, metering.api.urls, invoices.api.urls)
    for pattern in urls.urlpatterns
    for method in pattern.callback.view_class.required_scopes
]


@pytest.mark.parametrize(("method", "pattern"), [pytest.param(*door, id=f"{door[0]} {door[1].name}") for door in DOORS])
def test_no_door_passes_over_a_parameter_that_it_does_not_know(method, pattern):
    names = [*pattern.pattern.converters, *pattern.pattern.regex.groupindex]
    address = reverse(pattern.name, kwargs={name: IN_PATHS.get(name, "x") for name in names})
    response = Api().send(method, f"{address}?dry_run=1")
    assert (response.status_code, response.json()["code"]) == (400, "unknown_field"), response.content
    assert [error["path"] for error in response.json()["errors"]] == ["dry_run"]
