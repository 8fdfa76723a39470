"""Users who only read: they see everything, and nothing that would change something."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import BrowserContext, Page, Response, expect

from tests.acceptance.browser import CLIENT_ID, CLIENT_SECRET, openid_provider
from tests.acceptance.engine import LocalEngine

CHANGING: Final = re.compile(
    r"^(New|Add|Remove|Delete|Cancel|Retry|Rerun|Reply|Edit|Move|Pause|Resume|Make it|Save|Rotate|Revoke|Extract"
    r"|Download|Run for real|Send|Choose files|Scan|Submit|Select)\b"
)
"""Names of buttons, links and boxes that change something."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine whose users are viewers, as none is in the group of admins."""
    with openid_provider() as issuer:
        oidc = {"OIDC_ISSUER": issuer, "OIDC_CLIENT_ID": CLIENT_ID, "OIDC_CLIENT_SECRET": CLIENT_SECRET}
        with LocalEngine(tmp_path, OIDC_ADMIN_GROUPS="ops", **oidc) as engine:
            yield engine


@pytest.fixture
async def viewer(browser: BrowserContext, engine: LocalEngine) -> AsyncIterator[Page]:
    """The page of a viewer. The test fails if the engine refuses a request of the page."""
    refused: list[str] = []

    def note(response: Response) -> None:
        if response.status >= 400:
            refused.append(f"{response.status} {response.url}")

    page = await browser.new_page()
    await page.goto(engine.url)
    await page.get_by_role("link", name="Sign in with 127.0.0.1").click()
    await page.fill("input[name=login]", "ada")
    await page.fill("input[name=password]", "test-password")
    await page.click("button[type=submit]")  # sign in
    await page.click("button[type=submit]")  # grant the engine access
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.on("response", note)
    yield page
    assert refused == []


@pytest.mark.core
async def test_viewer_sees_every_page_and_no_control_that_changes_something(viewer: Page, engine: LocalEngine) -> None:
    async with engine.admin() as admin:
        failed = (await admin.run({"fail": "no"}))["id"]
        running = await admin.submit({"hang": True})
        await admin.wait(running, "active")
        trigger = {"source": "github", "events": ["issues.labeled"]}
        agent = {"name": "ai-seen", "triggerName": "ai-seen", "eventTriggers": [trigger], "instructions": ["seen"]}
        made = [
            await admin.post("/api/instructions", {"name": "seen", "content": "Look.", "scope": "local"}),
            await admin.post("/api/agents", agent),
            await admin.post("/api/ai-models", {"name": "seen", "provider": "mock", "model": "seen", "slots": 2}),
            await admin.post(
                "/api/webhook-sources", {"name": "seen", "type": "github", "secret": "not-a-secret-of-anyone"}
            ),
        ]
        assert [answer.status_code for answer in made] == [201, 201, 201, 201], [answer.text for answer in made]
        ids = [answer.json()["id"] for answer in made]
        pages = {
            "/jobs": "Jobs", f"/jobs/{failed}/details": None, f"/jobs/{running}/activity": None,
            "/agents": "Agents", f"/agents/{ids[1]}/triggers": "ai-seen", f"/agents/{ids[1]}/instructions": "ai-seen",
            f"/agents/{ids[1]}/test": "ai-seen", f"/agents/{ids[1]}/settings": "ai-seen",
            "/instructions?create=1": "Instructions", f"/instructions/{ids[0]}": "seen",
            f"/models?edit={ids[2]}": "Models", "/models/files": "Models", "/sources?create=1": "Webhooks",
            f"/sources/{ids[3]}": "seen", "/files/pdfs": "Files", "/files/workspace": "Files", "/stats": "Stats",
            "/settings/defaults": "Settings", "/settings/system": "Settings",
        }  # fmt: skip
        for path, title in pages.items():
            await viewer.goto(engine.url + path)
            await expect(viewer.get_by_role("heading", level=1, name=title or "")).to_be_visible()
            await expect(viewer.get_by_label("Loading")).to_have_count(0)
            for role in ("button", "link", "checkbox"):
                await expect(viewer.get_by_role(role, name=CHANGING), f"{role}s of {path}").to_have_count(0)
            await expect(viewer.get_by_role("dialog")).to_have_count(0)
            await expect(viewer.locator("main :is(input, textarea)[name]:enabled")).to_have_count(
                3 if path.endswith("/test") else 0
            )
        await admin.end_jobs()


async def test_viewer_learns_the_role_and_why_a_page_stays_closed(viewer: Page, engine: LocalEngine) -> None:
    await expect(viewer.get_by_text("Viewer", exact=True)).to_be_visible()
    await viewer.get_by_role("button", name="Account").click()
    await expect(viewer.get_by_text("a viewer")).to_be_visible()
    await viewer.keyboard.press("Escape")
    await viewer.keyboard.press("c")
    await viewer.keyboard.press("Control+K")
    await viewer.keyboard.type("new job")
    await expect(viewer.get_by_role("option", name="New job")).to_have_count(0)
    for path in ("/jobs/new", "/agents/new", "/settings/keys"):
        await viewer.goto(engine.url + path)
        await expect(viewer.get_by_role("alert")).to_contain_text("signed in as a viewer")
