"""The dashboard behind a network that cuts, delays and refuses."""

import asyncio
import random
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from secrets import token_hex
from typing import Any, Final

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext, Page, expect
from playwright.async_api import TimeoutError as PageTimeout

from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine, User
from tests.dashboard.conftest import sign_in_at
from tests.dashboard.proxy import FaultyProxy, is_feed, is_stream
from tests.support.random_seed import SEED
from tests.support.waiting import eventually

SETTLED: Final = """() => {
    const main = document.querySelector('main, [class*=login]');
    return main && main.innerText.trim() && !document.querySelector('[aria-label=Loading]');
}"""
EMPTY: Final = "[class*=_empty_]"
MAIN_PAGES: Final = ("/", "/jobs", "/jobs/{job}/log")
OTHER_PAGES: Final = (
    "/jobs/{job}/input", "/jobs/{job}/result", "/jobs/{job}/changes", "/jobs/new", "/models", "/agents",
    "/instructions", "/sources", "/models/files", "/files/pdfs", "/files/workspace", "/stats", "/settings/defaults",
    "/settings/keys", "/settings/system",
)  # fmt: skip
"""Pages with queries of their own. The other parts of a job's page have none."""
OF_THE_FRAME: Final = {"/api/pause", "/api/system"}

STATUSES: Final = (403, 429, 500, 503)
"""Another status, 401, leads to the sign-in page (test_stories.py)."""


@pytest.fixture
def chance() -> random.Random:
    """Random choices, which the seed of the run determines."""
    return random.Random(SEED)


@pytest.fixture
async def faulty_page(browser: BrowserContext, engine: LocalEngine, proxy: FaultyProxy) -> Page:
    """A page that is signed in through the proxy. Failed requests are errors on its console."""
    page = await browser.new_page()
    await page.set_viewport_size({"width": 1280, "height": 2600})
    await sign_in_at(page, engine, proxy.url)
    return page


@pytest.mark.core
async def test_log_has_each_line_once_although_the_network_cuts_it(
    faulty_page: Page, proxy: FaultyProxy, admin: User, chance: random.Random
) -> None:
    job = await admin.submit({"log": "line {n} of 100", "times": 100, "everyMs": 40}, {"result": 1})
    proxy.bytes_of = lambda request: chance.randint(400, 4000) if is_stream(request) else None
    await faulty_page.goto(f"{proxy.url}/jobs/{job}/log")
    await admin.wait(job, "completed")
    proxy.bytes_of = lambda request: None
    await expect(faulty_page.get_by_text("the attempt completed")).to_be_visible()
    streams = [request for request in proxy.requests if is_stream(request) and request.path.endswith("/events")]

    lines = await faulty_page.get_by_text(re.compile("^line [0-9]+ of 100$")).all_inner_texts()

    assert lines == [f"line {number} of 100" for number in range(1, 101)]
    assert len(streams) > 1


async def test_list_catches_up_when_the_feed_has_lost_changes(
    faulty_page: Page, proxy: FaultyProxy, admin: User
) -> None:
    job = await admin.submit({"hang": True}, config={"model": "forgotten"})
    await faulty_page.goto(f"{proxy.url}/jobs?model=forgotten")
    await expect(faulty_page.get_by_role("cell", name="Running")).to_be_visible()
    proxy.status_of = lambda request: 503 if is_feed(request) else None
    proxy.cut_streams()
    await admin.cancel(job)
    await admin.wait(job, "cancelled")
    proxy.forgets, proxy.status_of = True, lambda request: None

    await expect(faulty_page.get_by_role("cell", name="Cancelled")).to_be_visible()


async def test_slow_network_shows_what_it_waits_for(faulty_page: Page, proxy: FaultyProxy, admin: User) -> None:
    await admin.run({"result": 1}, config={"model": "slow-network"})
    proxy.delay_seconds = 1
    await faulty_page.goto(f"{proxy.url}/jobs?model=slow-network", wait_until="commit")
    await expect(faulty_page.get_by_label("Loading").first).to_be_visible()
    frame = await faulty_page.get_by_label("Loading").first.bounding_box()
    assert frame
    assert frame["x"] > 200  # beside the navigation, or its place
    assert await faulty_page.locator(EMPTY).count() == 0
    await expect(faulty_page.get_by_role("cell", name="Completed")).to_be_visible()


@pytest.mark.core
async def test_submission_whose_answer_is_lost_creates_one_job(
    faulty_page: Page, proxy: FaultyProxy, admin: User
) -> None:
    def is_submission(request: web.BaseRequest) -> bool:
        return request.path == "/api/jobs/submit"

    await faulty_page.goto(f"{proxy.url}/jobs/new")
    await faulty_page.get_by_label("Prompt").fill("only once, please")
    await faulty_page.get_by_label("Provider").select_option("mock")
    proxy.status_of = lambda request: 503 if is_submission(request) else None
    await faulty_page.get_by_role("button", name="Submit job").click()
    await expect(faulty_page.get_by_role("alert")).to_contain_text("Injected by the proxy")
    proxy.status_of, proxy.loses = lambda request: None, is_submission
    await faulty_page.get_by_role("button", name="Submit job").click()
    await expect(faulty_page.get_by_role("alert")).to_contain_text("does not answer")
    await expect(faulty_page.get_by_label("Prompt")).to_have_value("only once, please")
    proxy.loses = lambda request: False

    await faulty_page.get_by_role("button", name="Submit job").click()

    await expect(faulty_page.get_by_role("heading", name="only once, please")).to_be_visible()
    assert (await admin.get("/api/jobs", q="only once, please")).json()["total"] == 1


async def test_api_key_whose_answer_is_lost_is_created_once(faulty_page: Page, proxy: FaultyProxy, admin: User) -> None:
    name = f"key-{token_hex(4)}"
    await faulty_page.goto(f"{proxy.url}/settings/keys?create=true")
    await faulty_page.get_by_label("Name", exact=True).fill(name)
    proxy.loses = lambda request: request.path == "/api/api-keys" and request.method == "POST"
    await faulty_page.get_by_role("button", name="Create key").click()
    await expect(faulty_page.get_by_role("alert")).to_contain_text("does not answer")
    proxy.loses = lambda request: False

    await faulty_page.get_by_role("button", name="Create key").click()

    await expect(faulty_page.get_by_role("dialog", name=f"The key of {name}")).to_contain_text("lr_")
    await faulty_page.mouse.click(2, 2)
    await expect(faulty_page.get_by_role("dialog", name=f"The key of {name}")).to_be_visible()
    keys = (await admin.get("/api/api-keys")).json()["apiKeys"]
    assert [key["name"] for key in keys].count(name) == 1


async def test_list_stays_while_its_refresh_fails(faulty_page: Page, proxy: FaultyProxy, admin: User) -> None:
    created = await admin.post("/api/agents", {"name": f"agent-{token_hex(4)}"})
    assert created.status_code == 201, created.text
    await faulty_page.goto(f"{proxy.url}/agents")
    agent = faulty_page.get_by_role("link", name=created.json()["name"])
    await expect(agent).to_be_visible()
    proxy.requests.clear()
    proxy.status_of = lambda request: 503 if request.path == "/api/agents" else None
    await eventually(lambda: sum(request.path == "/api/agents" for request in proxy.requests) > 3)
    await expect(agent).to_be_visible()
    await expect(faulty_page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("path", MAIN_PAGES)
async def test_failed_query_is_reported_and_can_be_repeated(
    browser: BrowserContext, engine: LocalEngine, proxy: FaultyProxy, admin: User, path: str
) -> None:
    page, url = await a_page(browser, engine, proxy, admin, path)
    await check_each(await queries_of(page, proxy, url), page, proxy, url)


@pytest.mark.slow
@pytest.mark.parametrize("path", OTHER_PAGES)
async def test_failed_query_of_a_further_page_is_reported_and_can_be_repeated(
    browser: BrowserContext, engine: LocalEngine, proxy: FaultyProxy, admin: User, path: str
) -> None:
    """The queries of the frame, and those that all parts of a job's page share, are left out: main pages have them."""
    page, url = await a_page(browser, engine, proxy, admin, path)
    is_part_of_job = path.startswith("/jobs/{job}/")
    known = await queries_of(page, proxy, f"{url.rpartition('/')[0]}/log") if is_part_of_job else OF_THE_FRAME
    await check_each(await queries_of(page, proxy, url) - known, page, proxy, url)


async def a_page(
    browser: BrowserContext, engine: LocalEngine, proxy: FaultyProxy, admin: User, path: str
) -> tuple[Page, str]:
    """Return a page that is signed in, and the address of `path` for a job that has ended."""
    job = await admin.run({"log": "x"}, {"write": {"path": "a", "text": "b\n"}}, {"result": "done"})
    page = await browser.new_page()
    await sign_in_at(page, engine, proxy.url)
    return page, proxy.url + path.format(job=job["id"])


async def queries_of(page: Page, proxy: FaultyProxy, url: str) -> set[str]:
    """Open a page of the dashboard, and return the paths of its queries."""
    await page.goto("about:blank")
    await asyncio.sleep(0.5)  # requests of the page before, which may still arrive
    proxy.requests.clear()
    await page.goto(url)
    await page.wait_for_function(SETTLED)
    await asyncio.sleep(0.3)
    return {request.path for request in proxy.requests if is_query(request)}


async def check_each(queries: set[str], page: Page, proxy: FaultyProxy, url: str) -> None:
    """Fail each query of a page, with one status after the other: the page must say so, and offer a way on."""
    assert queries
    found: dict[str, Any] = {}
    for query, status in zip(sorted(queries), cycle(STATUSES), strict=False):
        proxy.status_of = failing(query, status)
        await page.goto(url)
        await page.wait_for_function(SETTLED)
        if problem := await problem_of(page, status):
            found[f"{query}: {status}"] = problem
        proxy.status_of = lambda request: None
        if status != 403 and not problem:
            await repeat_all(page)
    assert found == {}


async def repeat_all(page: Page) -> None:
    """Repeat the failed queries of a page until it shows no error."""
    alerts = page.get_by_role("alert")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await alerts.count():
            with suppress(PageTimeout):  # it has gone meanwhile
                await alerts.first.get_by_role("button", name="Try again").click(timeout=1_000)
            await asyncio.sleep(0.2)


def failing(path: str, status: int) -> Callable[[web.BaseRequest], int | None]:
    return lambda request: status if request.path == path else None


def is_query(request: web.BaseRequest) -> bool:
    is_page = request.path.startswith("/api/") and request.method == "GET"
    return is_page and not is_stream(request) and request.path != "/api/auth/me"


async def problem_of(page: Page, status: int) -> str:
    """Return what is wrong with a page of which a query fails, if anything."""
    alerts = page.get_by_role("alert")
    try:
        await expect(alerts.first).to_be_visible()
    except AssertionError:
        return f"no error: {(await page.locator('main').inner_text())[:200]}"
    if await page.locator(EMPTY).count():
        return "looks empty"
    if status != 403 and not await page.get_by_role("button", name="Try again").count():
        return "offers no retry"
    return ""
