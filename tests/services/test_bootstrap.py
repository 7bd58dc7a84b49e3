from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection

from subscriptions.models import ApiKey
from tests.world import make_world

pytestmark = pytest.mark.django_db

KEY = "tb_unattended_4b1f0c9e77aa52d3"


def bootstrap() -> str:
    output = StringIO()
    call_command("bootstrap", stdout=output)
    return output.getvalue()


def test_the_first_admin_and_key_are_generated_and_printed_once():
    output = bootstrap()

    admin = get_user_model().objects.get()
    password = output.partition("Password:")[2].split()[0]
    assert (admin.username, admin.is_superuser, admin.is_staff) == ("admin@localhost", True, True)
    assert len(password) == 20
    assert admin.check_password(password)
    assert output.partition("First API key:")[2].split()[0].startswith(ApiKey.objects.get().prefix)
    assert bootstrap() == ""


def test_an_unattended_install_fixes_all_three_and_prints_no_secret(monkeypatch):
    monkeypatch.setenv("TIERBOOK_BOOTSTRAP_EMAIL", "ops@example.com")
    monkeypatch.setenv("TIERBOOK_BOOTSTRAP_PASSWORD", "correct horse battery")
    monkeypatch.setenv("TIERBOOK_BOOTSTRAP_API_KEY", KEY)

    output = bootstrap()

    assert get_user_model().objects.get(username="ops@example.com").check_password("correct horse battery")
    assert ApiKey.objects.get().prefix == KEY[:11]
    assert "correct horse" not in output
    assert KEY not in output


def test_later_starts_read_none_of_it(monkeypatch):
    bootstrap()
    monkeypatch.setenv("TIERBOOK_BOOTSTRAP_EMAIL", "intruder@example.com")
    monkeypatch.setenv("TIERBOOK_BOOTSTRAP_API_KEY", KEY)

    assert bootstrap() == ""
    assert get_user_model().objects.count() == 1
    assert ApiKey.objects.count() == 1


def test_a_key_that_cannot_be_used_is_named_and_nothing_is_created(monkeypatch):
    monkeypatch.setenv("TIERBOOK_BOOTSTRAP_API_KEY", "short")

    with pytest.raises(CommandError, match="TIERBOOK_BOOTSTRAP_API_KEY cannot be used: secret must be 20 to 200"):
        bootstrap()
    assert not get_user_model().objects.exists()


def test_what_runs_before_the_first_start_makes_the_partition_of_the_first_events():
    call_command("prepare", stdout=StringIO())
    world = make_world()
    world.use(5)

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass::text = %s || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM') FROM metering_usageevent",
            ["metering_usageevent_"],
        )
        assert cursor.fetchall() == [(True,)]
