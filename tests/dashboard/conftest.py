"""An engine that serves the built dashboard, and browsers that are signed in."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect

from labrats.api.http.dashboard import FOLDER
from tests.acceptance.browser import a_browser
from tests.acceptance.engine import PATIENCE_SECONDS, Engine, ForkedEngine, LocalEngine, User
from tests.dashboard.proxy import FaultyProxy

expect.set_options(timeout=PATIENCE_SECONDS * 1000)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    """The engine shared by the tests of a module that do not stop it."""
    if not (FOLDER / "index.html").exists():
        pytest.fail("the dashboard is not built; run `make dashboard`", pytrace=False)
    with ForkedEngine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine
    assert "Traceback" not in engine.log


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine for this test only, which the test may kill."""
    with ForkedEngine(tmp_path) as engine:
        yield engine


@pytest.fixture
async def admin(engine: LocalEngine) -> AsyncIterator[User]:
    async with engine.admin() as admin:
        yield admin
        await admin.end_jobs()


@pytest.fixture
async def proxy(engine: LocalEngine) -> AsyncIterator[FaultyProxy]:
    """A proxy in front of `engine`, whose faults the test chooses."""
    async with FaultyProxy.open(engine.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for the tests of a module, which share a browser.

    For longer, the loop would also run the tests of other folders, some of which need virtual time.
    """
    return "asyncio"


@pytest.fixture(scope="module")
async def chromium(anyio_backend: str) -> AsyncIterator[Browser]:
    async with a_browser() as context:
        assert context.browser
        yield context.browser


@pytest.fixture
async def own_admin(own_engine: LocalEngine) -> AsyncIterator[User]:
    """The administrator of `own_engine`."""
    async with own_engine.admin() as admin:
        yield admin


@pytest.fixture
async def browser(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A new profile of the shared browser."""
    async with asyncio.timeout(PATIENCE_SECONDS):  # a browser that hangs fails its tests soon
        context = await chromium.new_context()
    context.set_default_timeout(PATIENCE_SECONDS * 1000)
    yield context
    async with asyncio.timeout(PATIENCE_SECONDS):
        await context.close()


@pytest.fixture
async def page(browser: BrowserContext) -> AsyncIterator[Page]:
    """A page. The test fails if a script fails, the console has an error, or the page's policy was violated."""
    page = await browser.new_page()
    await page.set_viewport_size({"width": 1280, "height": 800})
    problems: list[str] = []

    def note_message(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            problems.append(message.text)

    def note_error(error: Error) -> None:
        problems.append(str(error))

    page.on("console", note_message)
    page.on("pageerror", note_error)
    yield page
    assert problems == []


async def sign_in(page: Page, engine: Engine, path: str = "/") -> None:
    """Sign in by a login link, and open a page."""
    await open_link(page, await engine.login_link())
    if path != "/":
        await page.goto(engine.url + path)


async def sign_in_at(page: Page, engine: LocalEngine, url: str) -> None:
    """Sign in at another address of the engine, such as a proxy's."""
    await open_link(page, (await engine.login_link()).replace(engine.url, url))


async def open_link(page: Page, link: str) -> None:
    """Open a login link, and wait until the dashboard has signed in."""
    await page.goto(link)
    await page.wait_for_url(lambda url: "/login" not in url)
