"""What else people do in the studio: two at once on one draft, without a mouse, and the catalogue as text."""

import re

from playwright.sync_api import Page, expect

TIER = "Starter (demo)"


def new_draft(page: Page, tier: str = TIER) -> str:
    """Make a draft of a tier, and return its address."""
    page.goto("/admin/studio/")
    page.get_by_role("button", name=f"New draft of {tier}").click()
    expect(page.get_by_role("button", name="Save", exact=True)).to_be_visible()
    return page.url


def test_a_stale_form_is_answered_with_both_versions_and_nothing_is_lost(come_in, picture):
    paula, peter = come_in("paula"), come_in("peter")
    address = new_draft(paula)
    peter.goto(address)
    peter.get_by_role("textbox", name="Fee USD").fill("31")
    peter.get_by_role("button", name="Save", exact=True).click()
    expect(peter.locator("#state")).to_contain_text("Saved")

    paula.get_by_role("textbox", name="Fee USD").fill("35")
    paula.get_by_role("button", name="Save", exact=True).click()
    expect(paula.get_by_text("$31.00 every month").first).to_be_visible()
    expect(paula.get_by_role("textbox", name="Fee USD")).to_have_value("35")
    picture(paula, "stale")

    peter.reload()
    expect(peter.get_by_role("textbox", name="Fee USD")).to_have_value("31.00")


def test_a_fault_stands_beside_its_field_and_is_not_saved(come_in, picture):
    paula = come_in("paula")
    address = new_draft(paula)
    fee = paula.get_by_role("textbox", name="Fee USD").input_value()
    paula.get_by_role("textbox", name="Fee USD").fill("-5")
    expect(paula.get_by_text("Must not be negative.").first).to_be_visible()
    picture(paula, "fault")
    paula.get_by_role("button", name="Save", exact=True).click()
    expect(paula.get_by_role("heading", name="To be mended")).to_be_visible()
    paula.goto(address)
    expect(paula.get_by_role("textbox", name="Fee USD")).to_have_value(fee)


def test_a_price_is_made_and_saved_by_keyboard_alone(come_in):
    paula = come_in("paula")
    paula.goto("/admin/studio/")
    paula.keyboard.press("Tab")
    expect(paula.get_by_role("link", name="Skip to the content")).to_be_focused()
    press_until(paula, f"New draft of {TIER}")
    paula.keyboard.press("Enter")
    expect(paula.get_by_role("button", name="Save", exact=True)).to_be_visible()
    paula.get_by_role("link", name="Skip to the content").focus()
    press_until(paula, "Fee")
    paula.keyboard.press("Control+A")
    paula.keyboard.type("33")
    press_until(paula, "Save")
    paula.keyboard.press("Enter")
    expect(paula.locator("#state")).to_contain_text("Saved")
    expect(paula.get_by_role("textbox", name="Fee USD")).to_have_value("33.00")


def press_until(page: Page, name: str) -> None:
    """Press Tab until what has the focus begins with a name."""
    for _ in range(200):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(document.activeElement.closest('label') ?? document.activeElement).textContent.replace(/\\s+/g, ' ').trim()"
        )
        if focused.startswith(name):
            return
    raise AssertionError(f"{name} is not reached by keyboard")


def test_the_catalogue_goes_out_as_text_and_comes_back_as_it_was(come_in, picture):
    paula = come_in("paula")
    paula.goto("/admin/studio/catalog/")
    with paula.expect_download() as download:
        paula.get_by_role("link", name="Download the catalogue").click()
    text = download.value.path().read_text()
    assert "demo-growth" in text

    paula.get_by_label("Text").fill(text)
    paula.get_by_role("button", name="Show what would change").click()
    expect(paula.get_by_text("Nothing would change")).to_be_visible()

    look_at_import(paula, text.replace("Scale (demo)", "Scale of all"), changes="Scale of all")
    picture(paula, "catalog")
    paula.get_by_role("button", name="Import: make these changes").click()
    paula.goto("/admin/studio/")
    expect(paula.get_by_role("heading", name="Scale of all")).to_be_visible()

    paula.goto("/admin/studio/catalog/")
    look_at_import(paula, text, changes="Scale (demo)")
    paula.get_by_role("button", name="Import: make these changes").click()
    paula.goto("/admin/studio/")
    expect(paula.get_by_role("heading", name="Scale (demo)")).to_be_visible()


def look_at_import(page: Page, text: str, *, changes: str) -> None:
    """Have the studio say what a text would change."""
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Show what would change").click()
    expect(page.locator("ul.changes")).to_contain_text(changes)


def test_who_may_only_read_looks_and_changes_nothing(come_in, picture):
    rita = come_in("rita")
    rita.goto("/admin/studio/")
    expect(rita.get_by_role("heading", name="Growth (demo)")).to_be_visible()
    assert rita.get_by_role("button", name="New draft").count() == 0
    rita.locator("section.offer").first.get_by_role("link", name="Version").first.click()
    expect(rita.get_by_role("heading", name="What it says")).to_be_visible()
    assert rita.get_by_role("button", name="Copy").count() == 0
    assert rita.get_by_role("link", name=re.compile("^(Backtest|Publish)( |$)")).count() == 0
    picture(rita, "read-only")
