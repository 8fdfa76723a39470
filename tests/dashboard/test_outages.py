"""The dashboard while the engine does not answer: pages stay usable, and everything recovers without a click."""

import asyncio
import re

import pytest
from aiohttp import web
from playwright.async_api import BrowserContext, Page, Request, expect

from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine, User
from tests.dashboard.conftest import sign_in, sign_in_at
from tests.dashboard.proxy import FaultyProxy
from tests.support.waiting import eventually


@pytest.fixture
async def page(browser: BrowserContext, engine: LocalEngine, proxy: FaultyProxy) -> Page:
    """A page that is signed in through the proxy. Failed requests are errors on its console."""
    page = await browser.new_page()
    await sign_in_at(page, engine, proxy.url)
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    return page


async def test_pages_stay_usable_when_the_session_cannot_be_read_again(
    browser: BrowserContext, own_engine: LocalEngine, own_admin: User
) -> None:
    await own_admin.run({"result": 1}, prompt="a job before the outage")
    page = await browser.new_page()
    await page.clock.install()
    await sign_in(page, own_engine, "/jobs")
    job = page.get_by_role("link", name="a job before the outage")
    await expect(job).to_be_visible()
    own_engine.kill()
    await page.clock.fast_forward("06:00")  # the session is read again once it is 5 minutes old

    async with page.expect_event("requestfailed", lambda request: is_session(request)):
        await page.get_by_label("Order").select_option("oldest")
    await expect(page.get_by_role("alert")).to_contain_text("The engine does not answer")
    await expect(page.get_by_role("navigation", name="Pages").first).to_be_visible()
    await expect(page.get_by_label("Order")).to_have_value("oldest")

    own_engine.start()
    await expect(job).to_be_visible()
    await page.goto("about:blank")  # the engine stops before the page


def is_session(request: Request) -> bool:
    return request.url.endswith("/api/auth/me")


async def test_dashboard_that_could_not_be_opened_opens_once_the_engine_answers(page: Page, proxy: FaultyProxy) -> None:
    proxy.status_of = lambda request: 503 if request.path == "/api/auth/me" else None
    await page.reload()
    await expect(page.get_by_role("alert")).to_contain_text("Injected by the proxy")
    proxy.status_of = lambda request: None
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()


async def test_answers_of_a_proxy_in_front_of_a_dead_engine_count_as_an_outage(
    page: Page, proxy: FaultyProxy, admin: User
) -> None:
    job = await admin.run({"write": {"path": "a.txt", "text": "one\n"}}, {"result": 1})
    await page.goto(f"{proxy.url}/jobs/{job['id']}/changes")
    changes = page.get_by_role("region", name="Changes of a.txt")
    await expect(changes).to_be_visible()
    await page.get_by_role("link", name="Input").click()
    await expect(page.get_by_role("region", name="Prompt", exact=True)).to_be_visible()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()

    proxy.is_down = True
    proxy.cut_streams()
    await expect(page.get_by_text("Reconnecting…")).to_be_visible()
    await page.get_by_role("link", name="Changes").click()
    await expect(page.get_by_role("alert")).to_contain_text("The engine does not answer")

    proxy.is_down = False
    await expect(changes).to_be_visible()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()


async def test_list_of_jobs_opened_during_an_outage_appears_after_it(
    page: Page, proxy: FaultyProxy, admin: User
) -> None:
    await admin.run({"result": 1}, prompt="a job of the list")
    pages = page.get_by_role("navigation", name="Pages").first
    await pages.get_by_role("link", name="Jobs").click()
    await expect(page.get_by_role("link", name="a job of the list").first).to_be_visible()
    await pages.get_by_role("link", name="Overview").click()
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()

    proxy.is_down = True
    proxy.cut_streams()
    await expect(page.get_by_text("Reconnecting…")).to_be_visible()
    await pages.get_by_role("link", name="Jobs").click()
    await expect(page.get_by_role("alert").first).to_contain_text("The engine does not answer")

    proxy.is_down = False
    await expect(page.get_by_role("link", name="a job of the list").first).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_log_opened_during_an_outage_appears_after_it(page: Page, proxy: FaultyProxy, admin: User) -> None:
    steps = [{"log": "a line of it"}, {"fail": "again"}]
    job = await admin.wait(await admin.submit(*steps, config={"maxAttempts": 2}), "failed")
    await page.goto(f"{proxy.url}/jobs/{job['id']}/log")
    await expect(page.get_by_role("region", name="Log of attempt 2")).to_contain_text("a line of it")

    proxy.is_down = True
    proxy.cut_streams()
    await expect(page.get_by_text("Reconnecting…")).to_be_visible()
    await page.keyboard.press("[")
    await expect(page.get_by_role("alert")).to_contain_text("The engine does not answer")

    proxy.is_down = False
    await expect(page.get_by_role("region", name="Log of attempt 1")).to_contain_text("a line of it")
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_answer_that_is_cut_is_an_outage_and_is_requested_again(
    page: Page, proxy: FaultyProxy, admin: User
) -> None:
    job = await admin.run({"result": 1}, prompt="A prompt of some length.")
    proxy.bytes_of = lambda request: 10 if request.path.endswith(f"{job['id']}/prompt") else None
    await page.goto(f"{proxy.url}/jobs/{job['id']}/input")
    await expect(page.get_by_role("alert")).to_contain_text("The engine does not answer")
    proxy.bytes_of = lambda request: None
    await expect(page.get_by_role("region", name="Prompt", exact=True)).to_contain_text("A prompt of some length.")


async def test_form_of_a_rerun_stays_while_its_job_cannot_be_read_again(
    page: Page, proxy: FaultyProxy, admin: User
) -> None:
    job = await admin.run({"result": 1}, prompt="The first prompt.")
    await page.goto(f"{proxy.url}/jobs/new?from={job['id']}")
    await page.get_by_label("Prompt").fill("Another prompt.")
    failures = fail(proxy, f"/api/jobs/{job['id']}")

    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(failures) < 6:  # two looks, each with its repetitions
            await page.evaluate("window.dispatchEvent(new Event('visibilitychange'))")  # as when a tab is visible again
            await asyncio.sleep(0.1)
    await expect(page.get_by_label("Prompt")).to_have_value("Another prompt.")


async def test_preview_of_a_running_job_stays_while_it_cannot_be_read_again(
    page: Page, proxy: FaultyProxy, admin: User
) -> None:
    job = await admin.submit({"log": "at work"}, {"hang": True})
    await page.goto(f"{proxy.url}/jobs?job={job}")
    preview = page.get_by_role("complementary", name="Preview of the job")
    await expect(preview).to_contain_text("at work")
    failures = fail(proxy, f"/api/jobs/{job}")
    await eventually(lambda: len(failures) >= 4)  # a look with its repetitions, and the next one
    await expect(preview).to_contain_text("at work")
    await expect(preview.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(
    ("path", "query", "figures"),
    [
        ("/", "/api/jobs/facets", ("Completed in 24 h: [1-9]", "^mock.steady$")),
        ("/stats?window=24h", "/api/stats/breakdown", ("^steady$",)),
    ],
    ids=["overview", "stats"],
)
async def test_figures_stay_while_they_cannot_be_read_again(
    page: Page, proxy: FaultyProxy, admin: User, path: str, query: str, figures: tuple[str, ...]
) -> None:
    await admin.run({"result": 1}, config={"model": "steady"})
    await admin.submit({"hang": True}, config={"model": "steady"})
    await page.clock.install()
    await page.goto(proxy.url + path)
    main = page.get_by_role("main")
    shown = [main.get_by_role("link", name=re.compile(figure)).first for figure in figures]
    for figure in shown:
        await expect(figure).to_be_visible()
    failures = fail(proxy, "/api/stats/breakdown", "/api/jobs/facets", "/api/queue", "/api/jobs")
    async with page.expect_response(lambda answer: query in answer.url and failures.count(query) >= 3):
        await page.clock.fast_forward("01:05")  # a look of the next minute, with its repetitions
    await page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    for figure in shown:
        await expect(figure).to_be_visible()
    await expect(main.get_by_role("alert")).to_have_count(0)


def fail(proxy: FaultyProxy, *paths: str) -> list[str]:
    """Refuse the requests for some paths from now on. Returns the list of those that were refused, as it grows."""
    failures: list[str] = []

    def status_of(request: web.BaseRequest) -> int | None:
        if request.path not in paths:
            return None
        failures.append(request.path)
        return 503

    proxy.status_of = status_of
    return failures
