"""Ways between pages: back, between tabs, to wrong addresses, by the keyboard, and while the engine is down."""

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import BrowserContext, Locator, Page, Request, Route, ViewportSize, expect

from benchmarks.finished_jobs import create_finished_jobs
from tests.acceptance.engine import PATIENCE_SECONDS, ForkedEngine, LocalEngine, User
from tests.dashboard.conftest import sign_in, sign_in_at
from tests.dashboard.proxy import FaultyProxy

DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 800}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}


@pytest.mark.core
async def test_way_back_from_a_job_keeps_the_filters(page: Page, engine: LocalEngine, admin: User) -> None:
    await admin.run({"result": 1}, metadata={"title": "a job to find again", "mock": {"steps": [{"result": 1}]}})
    await sign_in(page, engine, "/jobs?status=completed&q=find%20again")
    await page.get_by_role("link", name="a job to find again").first.click()
    await page.get_by_role("main").get_by_role("link", name="Jobs", exact=True).click()
    await expect(page.get_by_role("searchbox")).to_have_value("find again")
    await expect(page.get_by_role("button", name=re.compile("^Completed"))).to_have_attribute("aria-pressed", "true")


@pytest.fixture(scope="module")
def engine_with_a_long_list(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """An engine with 1,200 finished jobs."""
    folder = tmp_path_factory.mktemp("long-list")
    asyncio.run(create_finished_jobs(folder / "data", 1_200))
    with ForkedEngine(folder) as engine:
        yield engine


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_way_back_from_a_job_leads_to_the_same_rows(
    page: Page, engine_with_a_long_list: LocalEngine, size: ViewportSize
) -> None:
    engine = engine_with_a_long_list
    await page.set_viewport_size(size)
    await sign_in(page, engine, "/jobs?window=7d")
    scroller = page.get_by_role("region", name="Jobs")
    row = page.locator("tbody tr[aria-rowindex='1002'] td a[href^='/jobs/']")
    await scroll_to(page, row)
    left_at, href = await scroller.evaluate("list => list.scrollTop"), await row.get_attribute("href")
    main = page.get_by_role("main")

    for way in (page.go_back, main.get_by_role("link", name="Jobs", exact=True).click, page.go_back):
        await row.click()
        await expect(page.get_by_role("link", name="Activity")).to_be_visible()
        await page.get_by_role("link", name="Input").click()
        await page.get_by_role("link", name="Activity").click()
        if way == page.go_back:
            await page.go_back()
            await page.go_back()
        await way()
        await expect(row).to_have_attribute("href", href or "")
        await expect(row).to_be_in_viewport()
        await expect(scroller).to_have_js_property("scrollTop", left_at)


async def test_row_of_the_list_is_up_to_date_and_newer_jobs_wait_on_the_way_back(
    page: Page, engine_with_a_long_list: LocalEngine
) -> None:
    engine = engine_with_a_long_list
    await sign_in(page, engine, "/jobs")
    async with engine.admin() as admin:
        working = await admin.submit({"hang": True}, prompt="a job that ends meanwhile")
        row = page.get_by_role("row").filter(has_text="a job that ends meanwhile")
        await expect(row).to_contain_text("Running")
        below = page.locator("tbody tr[aria-rowindex='152'] td a[href^='/jobs/']")
        await scroll_to(page, below)
        href = await below.get_attribute("href")
        await below.click()
        await expect(page.get_by_role("link", name="Activity")).to_be_visible()
        await admin.cancel(working)
        await admin.run(prompt="a job that came meanwhile")
        await page.go_back()
        await expect(below).to_have_attribute("href", href or "")
        await page.get_by_role("button", name="1 newer").click()
        await expect(row).to_contain_text("Cancelled")
        await expect(page.get_by_role("link", name="a job that came meanwhile")).to_be_visible()


async def test_link_of_the_navigation_opens_the_list_at_its_start(
    page: Page, engine_with_a_long_list: LocalEngine
) -> None:
    await sign_in(page, engine_with_a_long_list, "/jobs")
    await scroll_to(page, row := page.locator("tbody tr[aria-rowindex='152'] td a[href^='/jobs/']"))
    await row.click()
    await expect(page.get_by_role("link", name="Activity")).to_be_visible()
    await page.get_by_role("navigation", name="Pages").first.get_by_role("link", name="Jobs").click()
    await expect(page.locator("tbody tr[aria-rowindex='2']")).to_be_in_viewport()


async def scroll_to(page: Page, row: Locator) -> None:
    """Scroll the list down, as pages of it arrive, until `row` is drawn and visible as a whole."""
    scroller = page.get_by_role("region", name="Jobs")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await row.count():
            await scroller.evaluate("list => list.scrollBy(0, 600)")
            await page.evaluate("() => new Promise(requestAnimationFrame)")
    await row.scroll_into_view_if_needed()


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


async def test_way_back_to_another_job_shows_nothing_of_the_job_before(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    first = await admin.run({"log": "said by the first"}, {"result": 1}, prompt="the first job")
    rerun = await admin.post(f"/api/jobs/{first['id']}/rerun", {"prompt": "the second job"})
    second = rerun.json()["jobId"]
    await admin.wait(second, "completed")
    await sign_in(page, engine, f"/jobs/{second}/activity")
    await expect(page.get_by_role("heading", name="the second job")).to_be_visible()
    await page.get_by_role("link", name=f"rerun of {first['id']}").click()
    await expect(page.get_by_role("heading", name="the first job")).to_be_visible()
    await page.get_by_label("Find in the activity").fill("by the first")
    await expect(page).to_have_url(re.compile("q=by"))
    await page.get_by_role("button", name="Reply").click()
    await expect(page.get_by_role("dialog")).to_be_visible()

    await page.go_back()

    await expect(page.get_by_role("heading", name="the second job")).to_be_visible()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.get_by_label("Find in the activity")).to_have_value("")


async def test_search_keeps_what_is_typed_while_the_list_changes(page: Page, engine: LocalEngine) -> None:
    await sign_in(page, engine, "/jobs")
    search = page.get_by_role("searchbox")
    await search.focus()
    await page.evaluate("""() => {
        const replace = history.replaceState.bind(history);
        history.replaceState = (state, title, url) => {
            replace(state, title, url);
            if (String(url).endsWith('q=ab')) document.execCommand('insertText', false, 'c'); // typed in this moment
        };
    }""")
    await page.keyboard.type("ab")
    await expect(page).to_have_url(re.compile("q=abc$"))
    await expect(search).to_have_value("abc")
    await page.get_by_role("link", name="Clear", exact=True).click()
    await expect(search).to_have_value("")
    await page.go_back()
    await expect(search).to_have_value("abc")


async def test_time_of_a_list_ends_when_it_is_chosen(page: Page, engine: LocalEngine) -> None:
    async def hide_the_engines_clock(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, headers=answer.headers | {"date": ""})

    await page.clock.install()
    await sign_in(page, engine, "/jobs?window=24h")
    await expect(page.get_by_role("region", name="Jobs")).to_be_visible()
    await page.route(re.compile(r"/api/(?!changes)"), hide_the_engines_clock)
    await page.clock.fast_forward("03:00:00")

    now = await page.evaluate("Date.now() / 1000")

    def is_of_an_hour(request: Request) -> bool:
        times = parse_qs(urlsplit(request.url).query).get("from", ["1970-01-01"])
        return request.url.startswith(f"{engine.url}/api/jobs?") and (
            abs(now - 3_600 - datetime.fromisoformat(times[0]).replace(tzinfo=UTC).timestamp()) < 120
        )

    async with page.expect_request(is_of_an_hour):
        await page.get_by_label("Time").select_option("Last 1h")
    await page.unroute_all(behavior="wait")


async def test_closed_dialog_gives_the_focus_back(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.submit({"hang": True})
    await sign_in(page, engine, f"/jobs/{job}/activity")
    opener = page.get_by_role("main").get_by_role("button", name="Cancel")
    await opener.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(opener).to_be_focused()

    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("combobox", name="Search")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(opener).to_be_focused()


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


async def test_controls_that_are_busy_or_go_away_lose_neither_keys_nor_the_focus(
    proxy: FaultyProxy, page: Page, engine: LocalEngine, admin: User
) -> None:
    await admin.post("/api/agents", {"name": "switched"})
    await admin.post("/api/ai-models", {"name": "switched", "provider": "mock", "model": "switched", "slots": 2})
    await sign_in_at(page, engine, proxy.url)
    await page.goto(f"{proxy.url}/agents/switched/settings")
    switch = page.get_by_role("switch", name="switched is enabled")
    await switch.focus()
    proxy.delay_seconds = 0.5
    await page.keyboard.press("Space")
    await expect(switch).to_have_attribute("aria-busy", "true")
    await expect(switch).to_have_attribute("aria-checked", "false")
    await page.keyboard.press("Space")
    await expect(switch).to_have_attribute("aria-checked", "true")
    await expect(switch).to_be_focused()
    await expect(page.get_by_text("switched is off")).to_be_visible()
    await expect(page.get_by_text("switched is on")).to_be_visible()
    await expect(switch).not_to_have_attribute("aria-busy", "true")
    await expect(switch).to_have_attribute("aria-checked", "true")
    assert (await admin.get("/api/agents/switched")).json()["enabled"] is True

    proxy.delay_seconds = 0
    await page.get_by_role("textbox", name="Model").fill("opus")
    await page.get_by_role("button", name="Discard changes").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Save", exact=True)).to_be_focused()

    await page.goto(f"{proxy.url}/models")
    # The button that takes the place of this one is shown before the change has ended.
    proxy.delay_seconds, proxy.delayed = 0.5, "/api/queue"
    await page.get_by_role("button", name="Pause switched").focus()
    await page.keyboard.press("Enter")
    resume = page.get_by_role("button", name="Resume, 2 slots")
    await expect(resume).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Slots of switched")).to_be_focused()


async def test_keys_typed_after_ctrl_k_are_the_text_of_the_palette(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    await admin.run({"result": 1})
    await sign_in(page, engine, "/jobs")
    await expect(page.locator("tbody td a").first).to_be_visible()
    await page.route("**/assets/**", lambda route: route.abort())  # code that is still to be loaded
    await page.keyboard.press("Control+k")
    await page.keyboard.type("xgo")
    await expect(page.get_by_role("combobox", name="Search")).to_have_value("xgo")
    await expect(page).to_have_url(f"{engine.url}/jobs")
    await expect(page.get_by_role("toolbar", name="Selected jobs")).to_have_count(0)


async def test_key_of_a_new_job_leads_into_the_prompt(page: Page, engine: LocalEngine) -> None:
    await sign_in(page, engine, "/jobs")
    await expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    await page.keyboard.press("c")
    await expect(page.get_by_label("Prompt")).to_be_focused()
    await expect(page.get_by_label("Prompt")).to_have_value("")
