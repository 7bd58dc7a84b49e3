"""The product's URL table, and beside it what it is compared with on the same server."""

import os

from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from benchmarks.naive.views import LeanBatch, NaiveBatch, NaiveEvents, NaiveHolds
from billing_site import urls
from metering.api.authorizations import Authorizations
from metering.api.events import Events


class Hello(APIView):
    """The least that DRF can do: no key, no database, a constant answer by DRF's own renderer."""

    authentication_classes = ()
    permission_classes = ()
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = DefaultContentNegotiation

    def get(self, request: Request) -> Response:
        """Say hello."""
        return Response({"hello": "world"})


def worker(request: HttpRequest) -> HttpResponse:
    """Say which worker answers, so that the client can spread its connections evenly."""
    return HttpResponse(str(os.getpid()))


urlpatterns = [
    path("bench/worker", worker),
    path("bench/hello", Hello.as_view()),
    # The product's own views, under addresses that a shim before Django does not know.
    path("api/v1/bench/events", Events.as_view()),
    path("api/v1/bench/authorizations", Authorizations.as_view()),
    path("bench/naive/events", NaiveEvents.as_view()),
    path("bench/naive/holds", NaiveHolds.as_view()),
    path("bench/naive/batch", NaiveBatch.as_view()),
    path("bench/naive/lean-batch", LeanBatch.as_view()),
    *urls.urlpatterns,
]

handler400, handler403, handler404, handler500 = urls.handler400, urls.handler403, urls.handler404, urls.handler500
