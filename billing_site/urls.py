"""The only URL table: each app brings the addresses of its resources, the site its own pages."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import TemplateView
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2, OpenApiYamlRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from billing_site.console import health, metrics

# JSON first: whoever names no type gets what every reader of YAML reads too.
SCHEMA_FORMS = [OpenApiJsonRenderer2, OpenApiJsonRenderer, OpenApiYamlRenderer]

urlpatterns = [
    path("", TemplateView.as_view(template_name="console/home.html"), name="home"),
    path("admin/", admin.site.urls),
    path("api/schema/", SpectacularAPIView.as_view(renderer_classes=SCHEMA_FORMS), name="schema"),
    path("api/docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/v1/", include("subscriptions.api.urls")),
    path("api/v1/", include("metering.api.urls")),
    path("api/v1/", include("invoices.api.urls")),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
]

handler400 = "billing_site.http.middleware.handler400"
handler403 = "billing_site.http.middleware.handler403"
handler404 = "billing_site.http.middleware.handler404"
handler500 = "billing_site.http.middleware.handler500"
