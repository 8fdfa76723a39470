"""Changes reach all tabs of a browser by one stream, which survives closed tabs and restarts of the engine."""

import pytest
from playwright.async_api import BrowserContext, Page, Request, expect

from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine, User
from tests.dashboard.conftest import sign_in


async def test_one_tab_reads_the_feed_for_all(browser: BrowserContext, engine: LocalEngine, admin: User) -> None:
    readers: list[Page] = []

    async def open_tab() -> Page:
        tab = await browser.new_page()

        def note(request: Request) -> None:
            if request.url.endswith("/api/changes"):
                readers.append(tab)

        tab.on("request", note)
        await tab.goto(f"{engine.url}/jobs?model=feed")
        return tab

    visitor = await browser.new_page()
    await sign_in(visitor, engine)
    await visitor.close()
    tabs = [await open_tab() for _ in range(3)]
    first = await admin.submit({"hang": True}, config={"model": "feed"})
    for tab in tabs:
        await expect(tab.get_by_role("cell", name="Running")).to_be_visible()
    assert len(readers) == 1

    await readers[0].close()
    tabs.remove(readers[0])
    await admin.post(f"/api/jobs/{first}/cancel")

    for tab in tabs:
        await expect(tab.get_by_role("cell", name="Cancelled")).to_be_visible()
    assert len(readers) == 2


@pytest.mark.core
async def test_lists_catch_up_after_a_restart_of_the_engine(browser: BrowserContext, own_engine: LocalEngine) -> None:
    page = await browser.new_page()  # lost connections are errors on the console
    async with own_engine.admin() as admin:
        job = await admin.submit({"hang": True})
        await sign_in(page, own_engine, "/jobs")
        await expect(page.get_by_role("cell", name="Running")).to_be_visible()
    own_engine.kill()
    await expect(page.get_by_text("Reconnecting…")).to_be_visible()
    own_engine.start()
    async with own_engine.admin() as admin:
        await admin.post(f"/api/jobs/{job}/cancel")
    await expect(page.get_by_role("cell", name="Cancelled")).to_be_visible(timeout=PATIENCE_SECONDS * 1000)
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
