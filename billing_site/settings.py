"""
Settings, all from the environment; `.env.example` lists every variable with its meaning and default.

A file `.env` beside `manage.py` fills in what the environment does not say. While `make run` runs, its launcher leaves
the addresses of its servers in the data directory, so that `python manage.py …` finds them without being told.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

import environ
import structlog
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
if env_file := env.str("ENV_FILE", default=str(BASE_DIR / ".env")):
    environ.Env.read_env(env_file)
DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / ".data")))
if "DATABASE_URL" not in os.environ:
    environ.Env.read_env(DATA_DIR / "environment")

# --- Safety ---------------------------------------------------------------------------------------------------------

DEBUG = env.bool("DEBUG", default=False)

SECRET_KEY = env.str("SECRET_KEY", default="insecure-key-for-development-only" if DEBUG else "")
if not DEBUG and (len(SECRET_KEY) < 32 or SECRET_KEY.startswith(("change-me", "insecure"))):
    raise ImproperlyConfigured(
        "SECRET_KEY is missing, shorter than 32 characters or a sample: Tierbook does not start with it. "
        'Make one with: python -c "import secrets; print(secrets.token_urlsafe(50))" (or set DEBUG=1 for development).'
    )

SITE_URL = env.str("SITE_URL", default="http://localhost:8000").rstrip("/")
_site = urlsplit(SITE_URL)
if _site.scheme not in {"http", "https"} or not _site.hostname:
    raise ImproperlyConfigured(f"SITE_URL must look like https://billing.example.com, not {SITE_URL!r}.")
_https = _site.scheme == "https"
_local_names = [] if _https else ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=list(dict.fromkeys([_site.hostname, *_local_names])))
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[SITE_URL])

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SECURE_SSL_REDIRECT = _https
# Probes ask over plain HTTP from inside, past the proxy that ends TLS.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=365 * 24 * 3600) if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https
if env.bool("BEHIND_PROXY", default=False):
    # Only for a proxy that sets this header itself: a client's own would be believed.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# --- Application ----------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",  # the admin's look: its templates stand before the admin's own
    "billing_site.console.staff_site.StaffSiteConfig",  # django.contrib.admin
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "billing_site",  # has no model: management commands only
    "subscriptions.apps.SubscriptionsConfig",
    "metering.apps.MeteringConfig",
    "invoices.apps.InvoicesConfig",
]

MIDDLEWARE = [
    "billing_site.http.middleware.ProblemMiddleware",  # first: refusals by the others pass through it
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "billing_site.http.middleware.PageSessions",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "billing_site.http.middleware.PageUsers",
    "billing_site.http.middleware.PageMessages",
    "billing_site.http.middleware.PagePolicies",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "billing_site.urls"
WSGI_APPLICATION = "billing_site.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# The admin's theme (django-unfold). Its colours stand in the style sheet, and not here: written here they would be an inline style.
UNFOLD = {
    "SITE_TITLE": "Tierbook",
    "SITE_HEADER": "Tierbook",
    "SITE_ICON": lambda request: static("console/tierbook.svg"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("console/tierbook.svg")},
    ],
    "STYLES": [lambda request: static("console/admin.css")],
    "SCRIPTS": [lambda request: static("console/admin.js")],
    "SIDEBAR": {"navigation": "billing_site.console.navigation.navigation"},
}

LOGIN_REDIRECT_URL = "admin:index"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"  # everything stored is UTC; a tenant's own zone is on the tenant
FORMAT_MODULE_PATH = ["billing_site.console.formats"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# WhiteNoise serves straight from the packages: collecting files takes longer than the rest of a first start.
STATIC_URL = "static/"
STATIC_ROOT = env.str("STATIC_ROOT", default=None)
WHITENOISE_USE_FINDERS = True

vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default=f"billing@{_site.hostname}")

# --- PostgreSQL: the only truth -------------------------------------------------------------------------------------

DATABASES = {"default": env.db_url("DATABASE_URL", default="postgres://tierbook@127.0.0.1:5432/tierbook")}
# PostgreSQL has all of its time-outs off. Without them one forgotten transaction holds a tenant's balance for ever.
_statement_timeout = env.int("DATABASE_STATEMENT_TIMEOUT", default=30)  # seconds; 0: none, for a long migration
_timeouts = {
    "statement_timeout": _statement_timeout * 1000,
    "lock_timeout": 5_000,
    "idle_in_transaction_session_timeout": 60_000,
}
DATABASES["default"] |= {
    "ENGINE": "billing_site.postgresql",
    "CONN_MAX_AGE": 0,
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": {
        **DATABASES["default"].get("OPTIONS", {}),
        # A full pool is answered with 503 after two seconds, never with a hang.
        "pool": {"min_size": 1, "max_size": env.int("DATABASE_POOL_SIZE", default=8), "timeout": 2},
        "connect_timeout": 3,
        # Django's default forbids preparing, even where it is asked for (billing_site.prepared); its own cursors never ask.
        "prepare_threshold": 5,
        "application_name": "tierbook",
        "options": " ".join(f"-c {name}={milliseconds}" for name, milliseconds in _timeouts.items()),
    },
}

# The role under which backtests and audits read, where it is set: one that cannot write (billing_site.database.read_only).
DATABASE_READER_ROLE = env.str("DATABASE_READER_ROLE", default="")

# --- Redis: an accelerator; its absence means slower, never wrong ---------------------------------------------------

REDIS_URL = env.str("REDIS_URL", default="redis://127.0.0.1:6379/0")
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "tierbook",
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 0.2, "SOCKET_TIMEOUT": 0.2, "IGNORE_EXCEPTIONS": True},
    }
}

# --- Celery: a doorbell, not a ledger -------------------------------------------------------------------------------

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default=REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a worker outlives any pause of the broker
if CELERY_BROKER_URL.startswith(("redis", "valkey")):
    # An unacknowledged task comes again after this many seconds: above the hard time limit, so that a running one
    # is not started twice. What is lost meanwhile is found by the sweeper.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 900, "socket_keepalive": True}
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_SOFT_TIME_LIMIT = 540
CELERY_TASK_TIME_LIMIT = 600
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "invoices.book_overage": {"queue": "overage"},
    "invoices.run_due": {"queue": "closing"},
}

# --- HTTP -----------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "EXCEPTION_HANDLER": "billing_site.http.problems.exception_handler",
    "DEFAULT_RENDERER_CLASSES": ["billing_site.http.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["billing_site.http.parsers.StrictJSONParser"],
    "DEFAULT_AUTHENTICATION_CLASSES": ["subscriptions.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["billing_site.http.permissions.HasScope"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "billing_site.http.negotiation.JsonNegotiation",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "COERCE_DECIMAL_TO_STRING": True,
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
    "NUM_PROXIES": int("SECURE_PROXY_SSL_HEADER" in vars()),  # whose X-Forwarded-For is believed
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Tierbook",
    "DESCRIPTION": "Usage in, explained invoices out.",
    "VERSION": "1",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "COMPONENT_SPLIT_REQUEST": True,
    # Fields that are called the same in several documents, with other values: each set has a name of its own.
    "ENUM_NAME_OVERRIDES": {
        "EventStatusEnum": ["counted", "unmatched", "reversed"],
        "BacktestStatusEnum": ["running", "done", "failed", "cancelled"],
        "EventProblemStatusEnum": ["conflict", "rejected", "unmatched"],
        "AuthorizationStatusEnum": ["held", "settled", "released", "expired"],
        "DecisionEnum": ["allow", "allow_overage", "degrade", "deny"],
        "GrantedDecisionEnum": ["allow", "allow_overage", "degrade"],
        "EventCountKindEnum": ["record", "replay", "reversal"],
        "GivenGrantKindEnum": ["promotional", "purchased"],
        "LimitKindEnum": ["allowance", "overage_quantity_max", "window", "spend_cap"],
    },
    # The pages load nothing from another host.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

# --- Prices ---------------------------------------------------------------------------------------------------------

# Whether somebody else than who saved a version, and than who publishes it, has to approve every version.
PUBLISHING_NEEDS_APPROVAL = env.bool("PUBLISHING_NEEDS_APPROVAL", default=False)

# --- Logs: one line per happening, JSON where a machine reads them --------------------------------------------------

_for_machines = env.bool("LOG_JSON", default=not DEBUG)
_level = env.str("LOG_LEVEL", default="INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "structlog.stdlib.ProcessorFormatter",
            "foreign_pre_chain": [
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                *([structlog.processors.format_exc_info] if _for_machines else []),
            ],
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer() if _for_machines else structlog.dev.ConsoleRenderer(colors=False),
            ],
        },
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "level": _level}},
    "root": {"handlers": ["console"], "level": _level},
    # Django's own set-up sends requests' errors by mail to ADMINS and drops its lines when DEBUG is off.
    "loggers": {"django": {"handlers": [], "propagate": True, "level": "INFO"}},
}
