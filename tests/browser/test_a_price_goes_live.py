"""
From an idea to an invoice: what somebody who knows pricing, and no terminal, does in the studio.

The story of docs/pricing-studio.md, told to the product as `make run` starts it, with a browser and two people.
"""

import re
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Locator, Page, expect

TIER = "Growth (demo)"


def offer(page: Page, tier: str) -> Locator:
    """Return a tier's part of the first page."""
    return page.locator("section.offer").filter(has=page.get_by_role("heading", name=tier))


def to_studio(page: Page) -> None:
    page.get_by_role("link", name="Pricing studio").first.click()
    expect(page.get_by_role("heading", name=TIER)).to_be_visible()


def to_draft(page: Page, number: int) -> None:
    """Go to a draft of the tier from the studio's first page."""
    to_studio(page)
    offer(page, TIER).get_by_role("link", name=f"Version {number}", exact=True).click()


def to_version(page: Page, number: int) -> None:
    """Go to where a version is published, by the tier's list of versions."""
    to_studio(page)
    offer(page, TIER).get_by_role("link", name="All versions").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=f"Version {number}", exact=True))
    row.get_by_role("link", name="in the pricing studio").click()
    page.locator(".doors").get_by_role("link", name="Publish").click()


def coming_tenth(now: datetime) -> datetime:
    """Return the next 10th of a month that is more than a day off, at midnight: between the days on which the tier's customers renew."""
    tenth = (now + timedelta(days=1)).replace(day=10, hour=0, minute=0, second=0, microsecond=0)
    return tenth if tenth > now + timedelta(days=1) else (tenth + timedelta(days=31)).replace(day=10)


def publish_for_renewals(page: Page, at: datetime, reason: str) -> None:
    """Ask for it on the page on which a version is published."""
    page.get_by_label("From when on").fill(f"{at:%Y-%m-%dT%H:%M:%S}")
    page.get_by_label("Also today's subscribers, when they renew").check()
    page.get_by_label("Why", exact=True).fill(reason)
    page.get_by_role("button", name="Publish", exact=True).click()


def test_a_price_from_an_idea_to_an_invoice(come_in, picture, installation):
    paula = come_in("paula")

    # A guard for the tier: nobody pays over 20 % more.
    to_studio(paula)
    picture(paula, "home")
    offer(paula, TIER).get_by_role("link", name="Guards").click()
    paula.get_by_label("No customer may pay more").fill("20")
    paula.get_by_role("button", name="Save the guards").click()
    expect(paula.get_by_text("The guards are set")).to_be_visible()
    picture(paula, "guards")

    # The $99 tier is copied.
    to_studio(paula)
    expect(offer(paula, TIER)).to_contain_text("$99.00 every month")
    offer(paula, TIER).get_by_role("link", name="Version 1", exact=True).click()
    picture(paula, "version")
    paula.get_by_role("button", name="Copy", exact=True).click()
    expect(paula.get_by_role("button", name="Save", exact=True)).to_be_visible()
    expect(paula.get_by_role("textbox", name="Fee USD")).to_have_value("99.00")
    calculator = paula.locator("#calculator")
    expect(calculator.locator("svg").first).to_be_visible()
    curve = calculator.locator("svg").first.inner_html()

    # A graduated price with another band, in which a price is mistyped; the linter says so, and it is mended.
    paula.get_by_role("textbox", name="Fee USD").fill("139")
    paula.get_by_label("How usage is priced").first.select_option("graduated")
    paula.get_by_role("button", name="Add a band").click()
    paula.get_by_label("Up to", exact=True).first.fill("20,000,000")
    in_bands = paula.get_by_label("Price in this band")
    in_bands.nth(0).fill("0.000009")
    in_bands.nth(1).fill("0.000000000005")
    found = paula.locator("#found")
    expect(found).to_contain_text("which an invoice rounds to nothing")
    picture(paula, "editor-warned")
    in_bands.nth(1).fill("0.000005")
    expect(found).not_to_contain_text("which an invoice rounds to nothing")

    # The curve has changed, and the calculator says what a month would cost.
    expect(calculator).to_contain_text("$139.00")
    calculator.get_by_label("Used (tokens)").first.fill("40000000")
    expect(calculator.get_by_role("status")).to_contain_text("$369.00")
    assert calculator.locator("svg").first.inner_html() != curve
    paula.get_by_role("button", name="Save", exact=True).click()
    expect(paula.locator("#state")).to_contain_text("Saved")
    picture(paula, "editor")

    # Both versions beside each other, in words.
    paula.get_by_role("link", name="Compare", exact=True).click()
    expect(paula.get_by_role("heading", name="What changes")).to_be_visible()
    expect(paula.locator("ul.changes")).to_contain_text("Fee: $99.00 → $139.00 every month")
    picture(paula, "compare")

    # Publishing wants a backtest first.
    to_draft(paula, 2)
    paula.get_by_role("link", name="Publish", exact=True).click()
    expect(paula.get_by_text("a backtest of this version as it is now")).to_be_visible()
    picture(paula, "publish-needs-backtest")

    paula.get_by_role("link", name="Run a backtest").click()
    paula.get_by_label("Those who live on a test clock").check()
    picture(paula, "backtest-start")
    paula.get_by_role("button", name="Start the backtest").click()
    expect(paula.get_by_role("link", name="Download as a table")).to_be_visible(timeout=90_000)
    expect(paula.get_by_text("Harbour Freight Desk").first).to_be_visible()
    picture(paula, "backtest")

    # The guard is broken: she is blocked, and cannot approve what she has made herself.
    to_draft(paula, 2)
    paula.get_by_role("link", name="Publish", exact=True).click()
    expect(paula.get_by_text("Broken:")).to_be_visible()
    expect(paula.get_by_text("so you cannot approve it yourself")).to_be_visible()
    tenth = coming_tenth(datetime.now(tz=UTC))
    publish_for_renewals(paula, tenth, "Costs have risen.")
    expect(paula.get_by_text("Not published.")).to_be_visible()
    picture(paula, "publish-blocked")

    # A second person approves.
    peter = come_in("peter")
    to_draft(peter, 2)
    peter.get_by_role("link", name="Publish", exact=True).click()
    peter.get_by_label("Note").fill("Seen, and agreed with finance.")
    peter.get_by_role("button", name="Approve this version").click()
    expect(peter.get_by_text("You have approved this version")).to_be_visible()
    picture(peter, "approved")

    # She publishes for renewals at a date, and takes it back.
    to_version(paula, 2)
    publish_for_renewals(paula, tenth, "Costs have risen.")
    expect(paula.get_by_text("Takes effect in")).to_be_visible()
    paula.get_by_role("button", name="Take it back").click()
    expect(paula.get_by_text("Taken back on")).to_be_visible()
    picture(paula, "publication-undone")

    # She publishes again, and both customers of the tier are planned for.
    to_version(paula, 2)
    publish_for_renewals(paula, tenth, "Costs have risen, and finance agrees.")
    expect(paula.get_by_text("Takes effect in")).to_be_visible()
    expect(paula.get_by_text("2 subscriptions – still to change")).to_be_visible(timeout=60_000)
    picture(paula, "publication")

    # Time goes on to the 3rd of the next month: one customer has renewed on the 1st, the other will on the 8th.
    paula.get_by_role("link", name="Test clocks").click()
    paula.get_by_role("link", name="demo-clock").click()
    third = (tenth + timedelta(days=25)).replace(day=3)
    paula.get_by_label("Advance to (UTC)").fill(f"{third:%Y-%m-%dT%H:%M:%S}")
    paula.get_by_role("button", name="Advance", exact=True).last.click()
    expect(paula.get_by_text(f"{third:%Y-%m-%d}").first).to_be_visible(timeout=90_000)
    picture(paula, "clock")

    # The new price is on the invoice of who has renewed, and the old one on everybody else's.
    fees = {"demo-harbour": 139, "demo-kumo": 99, "demo-atlas": 499, "demo-lantern": 29, "demo-fjord": 29}
    for customer, fee in fees.items():
        paula.goto(f"/admin/invoices/invoice/?q={customer}")
        paula.locator("#result_list tbody a").first.click()
        line = paula.get_by_role("row").filter(has_text=re.compile(r"\(demo\), .* – "))
        expect(line).to_contain_text(f"{fee}.00 USD")
        if customer == "demo-harbour":
            picture(paula, "invoice")

    # No deploy, no migration.
    assert "No changes detected" in installation.manage("makemigrations", "--check")
