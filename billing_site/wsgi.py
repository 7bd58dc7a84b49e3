"""The web server's entry: `granian --interface wsgi billing_site.wsgi:application`."""

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "billing_site.settings")

django_application = get_wsgi_application()

from metering.api.short_way import ShortWay  # noqa: E402 - needs the apps, which the line above has loaded

application = ShortWay(django_application)

# What has been made by now lives as long as the process, and the collector need not look at it again. A batch makes thousands of objects that
# are gone once it is answered: with the interpreter's threshold of 700 they were looked at many times, for a tenth of all CPU of this process.
GARBAGE_THRESHOLD = 20_000
gc.collect()
gc.freeze()
gc.set_threshold(GARBAGE_THRESHOLD)
