"""One installation with its demo data, one browser, and the staff that works with them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.launching import ROOT, Launched

PASSWORD = "a-long-password-9"
DESKTOP, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
# Keeps the browser from asking anybody else: it is to load nothing but the product's own pages.
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync"]  # fmt: skip
_EMPLOY = """
from django.contrib.auth.models import Group, User
for name, role in {staff}.items():
    user = User.objects.create_user(name, password={password!r}, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
"""


@pytest.fixture(scope="session")
def installation() -> Iterator[Launched]:
    """Start the product with its demo data, and employ two product managers and somebody who may only read."""
    data_dir = Path(tempfile.mkdtemp(prefix="tierbook-browser-"))
    data_dir.chmod(0o711)
    launched = Launched(data_dir, demo=True)
    try:
        launched.until_served()
        staff = {"paula": "product", "peter": "product", "rita": "read-only"}
        launched.manage("shell", "--no-imports", "--command", _EMPLOY.format(staff=staff, password=PASSWORD))
        yield launched
    finally:
        if launched.process.poll() is None:
            launched.end()
        shutil.rmtree(data_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Chromium, without a window."""
    found = subprocess.run(["sh", str(ROOT / ".ci" / "browser")], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found.stdout.strip().splitlines()[-1], args=_QUIET)


@pytest.fixture
def come_in(installation: Launched, browser: Browser) -> Callable[[str], Page]:
    """Return a function that signs a member of the staff in, and returns the page on which they find themselves."""
    expect.set_options(timeout=10_000)
    foreign: list[str] = []

    def sign_in(name: str) -> Page:
        page = browser.new_context(viewport=DESKTOP, base_url=installation.url).new_page()

        def only_ours(route: Route) -> None:
            if route.request.url.startswith((installation.url, "data:", "blob:")):
                route.continue_()
            else:
                foreign.append(route.request.url)
                route.abort()

        page.route("**/*", only_ours)
        page.goto("/admin/")
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{installation.url}/admin/")
        return page

    yield sign_in
    assert foreign == [], "the pages load nothing from another host"


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Page, str], None]:
    """
    Return a function that keeps a picture of a page, wide and narrow, and sees to it that nothing is cut off.

    In the directory that PICTURES names; docs/pricing-studio.md shows them.
    """
    directory = Path(os.environ.get("PICTURES") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)

    def keep(page: Page, name: str) -> None:
        for kind, size in (("narrow", NARROW), ("wide", DESKTOP)):
            page.set_viewport_size(size)
            page.wait_for_timeout(300)  # the navigation folds away
            width, height = page.evaluate(
                "[document.scrollingElement.scrollWidth, document.scrollingElement.scrollHeight]"
            )
            assert width <= size["width"], f"{name} is {width} wide in a window of {size['width']}"
            # As tall as the page, so that what stays in sight while one scrolls covers nothing.
            page.set_viewport_size({"width": size["width"], "height": max(height, size["height"])})
            page.wait_for_timeout(200)
            page.screenshot(path=directory / f"{name}-{kind}.png")
        page.set_viewport_size(DESKTOP)

    return keep
