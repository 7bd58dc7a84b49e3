"""What a production site may start with. Each case is a process of its own: settings are read once."""

import os
import subprocess
import sys

import pytest

from tests.architecture.sources import ROOT

GOOD = {"SECRET_KEY": "0Jh2u_9sXW4v-production-length-key-7Q3rT8yB1nZ5kL", "SITE_URL": "https://billing.example.com"}


def settings_with(expression: str = "None", **environment: str) -> subprocess.CompletedProcess[str]:
    """Import the settings with only these variables, and print an expression of them."""
    return subprocess.run(
        [sys.executable, "-c", f"from billing_site import settings as s; print({expression})"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "ENV_FILE": "", "DATA_DIR": "/nonexistent", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("key", ["", "change-me", "change-me" * 8, "insecure-key-for-development-only", "short"])
def test_a_missing_short_or_sample_secret_stops_the_start(key):
    refused = settings_with(**{**GOOD, "SECRET_KEY": key})

    assert refused.returncode != 0
    assert "SECRET_KEY is missing, shorter than 32 characters or a sample" in refused.stderr


def test_development_needs_no_secret():
    assert settings_with("s.DEBUG", DEBUG="1").stdout == "True\n"


def test_debug_is_off_unless_asked_for():
    assert settings_with("s.DEBUG", **GOOD).stdout == "False\n"


@pytest.mark.parametrize("url", ["billing.example.com", "ftp://billing.example.com", "https://"])
def test_a_site_url_that_is_none_stops_the_start(url):
    assert "SITE_URL must look like" in settings_with(**{**GOOD, "SITE_URL": url}).stderr


def test_https_turns_on_what_depends_on_it_and_closes_the_local_names():
    asked = "s.SECURE_SSL_REDIRECT, s.SESSION_COOKIE_SECURE, s.SECURE_HSTS_SECONDS, s.ALLOWED_HOSTS"

    assert settings_with(asked, **GOOD).stdout == "True True 31536000 ['billing.example.com']\n"
    assert settings_with(asked, **{**GOOD, "SITE_URL": "http://localhost:9000"}).stdout == (
        "False False 0 ['localhost', '127.0.0.1', '[::1]']\n"
    )


def test_the_addresses_of_a_running_launcher_are_found_in_its_data_directory(tmp_path):
    (tmp_path / "environment").write_text("DATABASE_URL='postgres://tierbook:pw@127.0.0.1:5999/tierbook'\n")
    asked = "s.DATABASES['default']['PORT']"

    assert settings_with(asked, **GOOD, DATA_DIR=str(tmp_path)).stdout == "5999\n"
    given = settings_with(asked, **GOOD, DATA_DIR=str(tmp_path), DATABASE_URL="postgres://a@127.0.0.1:5432/a")
    assert given.stdout == "5432\n"


def test_every_time_out_of_postgresql_is_on():
    options = settings_with("s.DATABASES['default']['OPTIONS']['options']", **GOOD).stdout

    assert options == "-c statement_timeout=30000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=60000\n"
