"""The catalogue as text in the browser: out, looked at, and in."""

import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from subscriptions.models import AuditEntry, Meter, Tier
from subscriptions.selectors.catalog_text import catalog_text
from tests.staff import sign_in
from tests.world import make_meter, publish

pytestmark = pytest.mark.django_db

ADDRESS = "/admin/studio/catalog/"
TEXT = "meters:\n  - code: calls\n    name: Calls\n    event_type: call\n    aggregation: count\n"


def look(browser, text=TEXT, **more):
    return browser.post(ADDRESS, {"text": text, "look": "yes", **more})


def seen(answer):
    return re.search(r'name="seen" value="([0-9a-f]+)"', answer.content.decode())[1]


def test_the_download_is_the_text_that_the_command_writes():
    make_meter()
    publish("growth")
    answer = sign_in("read-only").get(f"{ADDRESS}download/")
    assert answer.content.decode() == catalog_text()
    assert answer.headers["Content-Disposition"] == 'attachment; filename="catalogue.yaml"'


def test_first_the_changes_are_told_and_nothing_is_written():
    answer = look(sign_in("product"))
    assert "meter calls: new" in answer.content.decode()
    assert not Meter.objects.exists()


def test_what_was_looked_at_is_imported_under_the_name_of_who_asked():
    browser = sign_in("product")
    # A browser sends line breaks its own way.
    text = TEXT.replace("\n", "\r\n")
    answer = browser.post(ADDRESS, {"text": text, "import": "yes", "seen": seen(look(browser))}, follow=True)
    assert "changes: 1" in answer.content.decode()
    assert Meter.objects.get().code == "calls"
    assert AuditEntry.objects.get(action="create").actor == "staff:ann"


def test_a_text_that_says_what_is_there_changes_nothing():
    make_meter()
    answer = look(sign_in("product"), catalog_text())
    assert "Nothing would change" in answer.content.decode()


@pytest.mark.parametrize("change", ["text", "catalogue", "nothing was seen"])
def test_what_has_not_been_looked_at_is_not_imported(change):
    browser = sign_in("product")
    shown = "" if change == "nothing was seen" else seen(look(browser))
    if change == "catalogue":
        make_meter("calls", name="Calls", event_type="call", aggregation="count", value_property=None)
    text = TEXT.replace("Calls", "Other") if change == "text" else TEXT
    answer = browser.post(ADDRESS, {"text": text, "import": "yes", "seen": shown})
    assert answer.status_code == 412
    assert "look at them again" in answer.content.decode()
    assert not Meter.objects.filter(name="Other").exists()
    assert Meter.objects.exists() == (change == "catalogue")


def test_a_file_is_read_and_shown():
    file = SimpleUploadedFile("catalogue.yaml", TEXT.encode())
    answer = sign_in("product").post(ADDRESS, {"look": "yes", "file": file})
    assert "meter calls: new" in answer.content.decode()
    assert "event_type: call" in answer.content.decode()


@pytest.mark.parametrize("file", [b"\xff\xfe", b""])
def test_a_file_that_is_no_text_is_refused(file):
    answer = sign_in("product").post(ADDRESS, {"look": "yes", "file": SimpleUploadedFile("a.yaml", file)})
    assert answer.status_code == 422


def test_an_empty_form_is_refused():
    assert look(sign_in("product"), " ").status_code == 422


def test_faults_are_named_by_their_place_and_the_text_is_kept():
    answer = look(sign_in("product"), "tiers:\n  - code: growth\n")
    assert answer.status_code == 422
    html = answer.content.decode()
    assert "tiers.0.name" in html
    assert "code: growth" in html
    assert not Tier.objects.exists()


@pytest.mark.parametrize("role", ["finance", "support", "read-only"])
def test_who_may_not_change_prices_may_take_them_out_alone(role):
    browser = sign_in(role)
    assert "Bring it in" not in browser.get(ADDRESS).content.decode()
    assert look(browser).status_code == 403
    assert not Meter.objects.exists()


def test_who_may_not_look_at_prices_is_refused():
    browser = sign_in(None)
    assert [browser.get(address).status_code for address in (ADDRESS, f"{ADDRESS}download/")] == [403, 403]
