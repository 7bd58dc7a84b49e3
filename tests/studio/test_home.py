"""The studio's first page, and who may come in."""

import pytest
from django.test import Client

from tests.staff import sign_in
from tests.world import make_world

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("role", ["product", "finance", "support", "read-only"])
def test_every_role_sees_the_tiers(role):
    make_world()
    answer = sign_in(role).get("/admin/studio/")

    assert answer.status_code == 200
    assert "version 1" in answer.content.decode()


def test_who_is_not_signed_in_is_asked_to():
    assert Client().get("/admin/studio/").headers["Location"].startswith("/admin/login/")


def test_who_may_not_look_at_prices_is_refused():
    assert sign_in(None).get("/admin/studio/").status_code == 403
