"""The web server's entry: `granian --interface wsgi billing_site.wsgi:application`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "billing_site.settings")

django_application = get_wsgi_application()

from metering.api.short_way import ShortWay  # noqa: E402 - needs the apps, which the line above has loaded

application = ShortWay(django_application)
