"""Ways between pages: back, between tabs, to wrong addresses, by the keyboard, and while the engine is down."""

import re

from playwright.async_api import BrowserContext, Page, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in


async def test_way_back_from_a_job_keeps_the_filters(page: Page, engine: LocalEngine, admin: User) -> None:
    await admin.run({"result": 1}, metadata={"title": "a job to find again", "mock": {"steps": [{"result": 1}]}})
    await sign_in(page, engine, "/jobs?status=completed&q=find%20again")
    await page.get_by_role("link", name="a job to find again").first.click()
    await page.get_by_role("main").get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_role("searchbox")).to_have_value("find again")
    await expect(page.get_by_role("button", name=re.compile("^Completed"))).to_have_attribute("aria-pressed", "true")


async def test_parts_of_a_job_show_the_same_attempt(page: Page, engine: LocalEngine, admin: User) -> None:
    steps = [{"log": "attempt {attempt}"}, {"fail": "again"}]
    job = await admin.wait(await admin.submit(*steps, config={"maxAttempts": 2}), "failed")
    await sign_in(page, engine, f"/jobs/{job['id']}/log?attempt=1")
    await expect(page.get_by_role("region", name="Log of attempt 1")).to_be_visible()
    await page.get_by_role("link", name="Activity").click()
    await expect(page).to_have_url(re.compile(r"/activity\?attempt=1$"))
    await page.get_by_role("heading").first.click()
    await page.keyboard.press("2")
    await expect(page.get_by_role("region", name="Log of attempt 1")).to_be_visible()


async def test_wrong_address_has_the_frame_of_all_pages(page: Page, engine: LocalEngine) -> None:
    await sign_in(page, engine, "/no/such/page")
    await expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    await expect(page.get_by_role("link", name="New job")).to_be_visible()


async def test_page_that_the_keyboard_opens_has_the_focus(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run({"result": 1})
    await sign_in(page, engine, "/jobs")
    await expect(page.locator("tbody td a").first).to_be_visible()
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(job["id"]))
    await expect(page.locator("#main")).to_be_focused()


async def test_page_opened_while_the_engine_is_down_appears_after_its_restart(
    browser: BrowserContext, own_engine: LocalEngine
) -> None:
    page = await browser.new_page()
    await sign_in(page, own_engine)
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    own_engine.kill()
    await page.get_by_role("link", name="Stats").click()
    await expect(page.get_by_text("The engine does not answer")).to_be_visible()
    await expect(page.get_by_role("navigation", name="Pages").first).to_be_visible()

    own_engine.start()
    await expect(page.get_by_role("heading", name="Stats")).to_be_visible()
    await page.goto("about:blank")  # the engine stops before the page
