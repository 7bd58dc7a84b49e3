"""The product's settings, with the tables and addresses that only the benchmark has. Everything measured is served under these."""

from typing import Any

from billing_site.settings import *  # noqa: F403
from billing_site.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks.naive"]
ROOT_URLCONF = "benchmarks.site"

# The naive view holds a connection while it waits for a row's lock. It gets what serves it best: one for each thread, kept open, and
# PostgreSQL's own time-outs, which are none.
_naive: dict[str, Any] = {
    key: value for key, value in DATABASES["default"]["OPTIONS"].items() if key not in {"pool", "options"}
}
DATABASES["naive"] = DATABASES["default"] | {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False, "OPTIONS": _naive}
