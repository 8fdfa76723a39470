"""The room that pages give to titles, dialogs and fields, at the widths between phones and large screens."""

import asyncio

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in
from tests.dashboard.measure import measured, observe

OVERFLOWS = "dialog => [dialog, ...dialog.querySelectorAll('*')].some(each => each.scrollWidth > each.clientWidth + 1)"
LONG = "Repair the test that fails on every second Tuesday"


@pytest.mark.parametrize(("width", "beside", "least"), [(1024, False, 250), (1280, False, 250), (1280, True, 200)])
async def test_title_of_a_job_has_room(
    page: Page, engine: LocalEngine, admin: User, width: int, beside: bool, least: int
) -> None:
    for _ in range(60):  # more than are drawn
        await admin.submit({"result": 1})
    job = await admin.submit(metadata={"title": LONG, "repo": "octocat/maze", "mock": {"steps": [{"result": 1}]}})
    await page.set_viewport_size({"width": width, "height": 800})
    await sign_in(page, engine, f"/jobs?job={job}" if beside else "/jobs")
    title = page.get_by_role("table").get_by_role("link", name=LONG).first
    await expect(title).to_be_visible()
    if beside:
        await expect(page.get_by_label("Preview of the job")).to_be_visible()
    box = await title.bounding_box()
    assert box
    assert box["width"] >= least


async def test_search_keeps_its_place_while_the_values_change(page: Page, engine: LocalEngine, admin: User) -> None:
    for repo in ("octocat/maze", "octocat/a-much-longer-name-of-a-repository"):
        await admin.run(metadata={"repo": repo, "mock": {"steps": [{"result": 1}]}})
    await page.set_viewport_size({"width": 1440, "height": 800})
    await sign_in(page, engine, "/jobs")
    await expect(page.get_by_role("option", name="octocat/maze (", exact=False).first).to_be_attached()
    before = await page.get_by_role("searchbox").bounding_box()
    await page.get_by_role("searchbox").fill("no job has this text")
    await expect(page.get_by_text("No job matches")).to_be_visible()
    assert await page.get_by_role("searchbox").bounding_box() == before


async def test_dialog_of_a_row_shows_its_whole_text(page: Page, engine: LocalEngine, admin: User) -> None:
    assert (await admin.post("/api/api-keys", {"name": "a-key-to-revoke"})).status_code == 201
    await sign_in(page, engine, "/settings/keys")
    await page.get_by_role("button", name="Revoke a-key-to-revoke").first.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    assert not await dialog.evaluate(OVERFLOWS)


async def test_problem_of_a_long_form_comes_into_view(browser: BrowserContext, engine: LocalEngine) -> None:
    page = await browser.new_page()  # the failed request is an error on its console
    await page.set_viewport_size({"width": 1280, "height": 800})
    await sign_in(page, engine, "/jobs/new")
    await page.get_by_label("Prompt").fill("Find the cheese.")
    await page.route("**/api/jobs/submit", lambda route: route.abort())
    problem = page.get_by_role("main").get_by_text("The engine does not answer").first
    await page.get_by_role("button", name="Submit job").click()
    await expect(problem).to_be_in_viewport()
    bar = await page.get_by_role("button", name="Submit job").bounding_box()
    shown = await problem.bounding_box()
    assert bar
    assert shown
    assert shown["y"] + shown["height"] <= bar["y"]


WIDTHS_OF_TABLETS = (720, 768, 800, 900)


async def test_title_of_a_job_has_room_on_tablets(page: Page, engine: LocalEngine, admin: User) -> None:
    await admin.run(metadata={"title": LONG, "repo": "octocat/maze", "mock": {"steps": [{"result": 1}]}})
    await sign_in(page, engine, "/jobs")
    title = page.get_by_role("table").get_by_role("link", name=LONG).first
    for width in WIDTHS_OF_TABLETS:
        await page.set_viewport_size({"width": width, "height": 800})
        box = await title.bounding_box()
        assert box
        assert box["width"] >= 240, width


ROWS_IN_VIEW = """rows => [...document.querySelectorAll(rows)].filter(row => {
    const box = row.getBoundingClientRect(), list = row.closest('[role=region]').getBoundingClientRect();
    const head = row.closest('table')?.querySelector('thead')?.offsetHeight ?? 0;
    const bar = [...document.querySelectorAll('nav')].find(nav => getComputedStyle(nav).position === 'fixed');
    const end = Math.min(list.bottom, bar ? bar.getBoundingClientRect().top : innerHeight);
    return box.top >= list.top + head - 1 && box.bottom <= end + 1;
}).length"""


@pytest.mark.parametrize(("width", "height"), [(720, 450), (640, 400), (640, 360)])
async def test_five_rows_remain_at_twice_the_size(
    page: Page, engine: LocalEngine, admin: User, width: int, height: int
) -> None:
    for _ in range(8):
        job = await admin.run({"log": "line {n}", "times": 40}, {"fail": "broken"})
    await page.set_viewport_size({"width": width, "height": height})
    await sign_in(page, engine, "/jobs")
    await expect(page.locator("tbody tr a").first).to_be_visible()
    assert await page.evaluate(ROWS_IN_VIEW, "tbody tr:not([aria-hidden])") >= 5

    await page.goto(f"{engine.url}/jobs/{job['id']}/log")
    await expect(page.get_by_text("line 39", exact=True)).to_be_visible()
    tab = page.get_by_role("navigation", name="Parts of the job").get_by_role("link", name="Log")
    await expect(tab).to_be_in_viewport(ratio=1)
    assert await page.evaluate(ROWS_IN_VIEW, "[data-kind]") >= 5


@pytest.mark.parametrize("height", [512, 400])
async def test_tabs_of_a_job_stay_above_its_log_in_low_windows(
    page: Page, engine: LocalEngine, admin: User, height: int
) -> None:
    job = await admin.run({"log": "line {n}", "times": 40}, {"fail": "broken"})
    await page.set_viewport_size({"width": 1280, "height": height})
    await sign_in(page, engine, f"/jobs/{job['id']}/log")
    await expect(page.get_by_text("line 39", exact=True)).to_be_visible()
    tabs = page.get_by_role("navigation", name="Parts of the job")
    for name in ("Activity", "Log", "Details"):
        await expect(tabs.get_by_role("link", name=name)).to_be_in_viewport(ratio=1)


async def test_numbers_of_a_long_log_leave_the_text_free_on_phones(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    job = await admin.run({"log": "line {n}", "times": 100_000}, {"result": 1})
    await page.set_viewport_size({"width": 390, "height": 800})
    await sign_in(page, engine, f"/jobs/{job['id']}/log")
    number = page.get_by_role("button", name="Select line 100000")
    await expect(number).to_be_visible()
    assert await number.evaluate("number => number.scrollWidth <= number.clientWidth")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1024, 768), (1440, 900)])
async def test_list_of_jobs_does_not_shift_while_it_loads(
    page: Page, engine: LocalEngine, admin: User, width: int, height: int
) -> None:
    for _ in range(12):
        await admin.run({"fail": "broken"})
    async with engine.user() as other:
        await other.wait(await other.submit({"result": 1}), "completed")  # of two owners
    await page.set_viewport_size({"width": width, "height": height})
    await sign_in(page, engine)
    await observe(page)
    facets_may_come = asyncio.Event()

    async def hold(route: Route) -> None:
        await facets_may_come.wait()
        await route.continue_()

    await page.route("**/api/jobs/facets*", hold)
    await page.goto(f"{engine.url}/jobs?status=failed&q=Review")
    await expect(page.locator("tbody td a").first).to_be_visible()
    facets_may_come.set()
    await expect(page.get_by_role("button", name="failed…")).to_be_visible()
    await page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert (await measured(page))["shifts"] <= 0.02
