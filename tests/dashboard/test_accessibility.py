"""No violation of axe-core's rules on any page, in both themes, on a phone and on a desktop."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from playwright.async_api import BrowserContext, Page, Route, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in

AXE: Final = Path(__file__).parents[2] / "dashboard/node_modules/axe-core/axe.min.js"
LOADED: Final = "() => document.querySelector('h1, [role=combobox]') && !document.querySelector('[aria-label=Loading]')"
WIDTHS: Final = (390, 768, 1440)
"""A phone, a tablet and a desktop."""
RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COLOURS: Final = ["color-contrast"]
"""The rules that depend on the theme."""
RUN: Final = """async rules => {
    const found = await axe.run({resultTypes: ['violations'], runOnly: rules});
    return found.violations.map(each => `${each.id}: ${each.nodes.map(node => node.target.join(' ')).slice(0, 3)}`);
}"""

LONG_NAME: Final = "a-name-without-any-space-" * 2 + "x"
PAGES_OF_RESOURCES: Final = (
    "/models", "/models?create=/", f"/models?edit={LONG_NAME}", "/models/files", "/agents", "/agents/new",
    *(f"/agents/{LONG_NAME}/{tab}" for tab in ("triggers", "instructions", "test", "jobs", "settings")),
    "/instructions", "/instructions?create=true", f"/instructions/{LONG_NAME}",
    "/sources", "/sources?create=true", "/sources?connect=true", f"/sources/{LONG_NAME[:39]}x",
    "/settings/defaults", "/settings/keys", "/settings/keys?create=true", "/settings/system", "/files/pdfs",
    "/files/workspace", "/stats", "/stats?by=repo",
)  # fmt: skip


@pytest.fixture(scope="module")
def axe() -> str:
    return AXE.read_text()


@pytest.mark.core
async def test_no_page_violates_a_rule_of_axe(
    browser: BrowserContext, engine: LocalEngine, admin: User, axe: str
) -> None:
    ended = await admin.run(
        {"log": "\x1b[31mred\x1b[0m text"},
        {"write": {"path": "a.txt", "text": "one\n"}},
        {"usage": {"inputTokens": 10, "outputTokens": 5, "costUsd": 0.01, "turns": 1}},
        {"result": "# Done\n\nSee `a.txt` and [the site](https://example.com).\n\n- one\n- two"},
    )
    failed = await admin.run({"log": "broken"}, {"fail": "no"})
    running = await admin.submit({"log": "at work"}, {"hang": True}, config={"model": "axe"})
    page = await browser.new_page()
    await page.set_viewport_size({"width": WIDTHS[-1], "height": 800})
    await page.emulate_media(color_scheme="light", reduced_motion="reduce")
    await page.goto(f"{engine.url}/login")
    found = {"/login": await violations(page, axe)}
    await sign_in(page, engine)
    await add_resources(admin)
    tabs = ("activity", "log", "changes", "input", "result", "details")
    for path in (
        "/", "/jobs", f"/jobs?job={failed['id']}", "/jobs?q=nothing+matches", "/jobs/new",
        f"/jobs/{failed['id']}/activity", f"/jobs/{running}/log",
        *(f"/jobs/{ended['id']}/{tab}" for tab in tabs), *PAGES_OF_RESOURCES,
    ):  # fmt: skip
        await page.goto(engine.url + path)
        found[path] = await violations(page, axe)
    await page.keyboard.press("?")
    found["shortcuts"] = await violations(page, axe)
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+k")
    found["search"] = await violations(page, axe)
    assert {path: problems for path, problems in found.items() if problems} == {}


async def test_no_dialog_menu_or_state_violates_a_rule_of_axe(
    browser: BrowserContext, engine: LocalEngine, admin: User, axe: str
) -> None:
    ended = await admin.run({"log": "at work"}, {"result": "Done."})
    failed = await admin.run({"fail": "no"})
    running = await admin.submit({"hang": True})
    await add_resources(admin)
    page = await browser.new_page()
    await page.set_viewport_size({"width": WIDTHS[-1], "height": 800})
    await page.emulate_media(color_scheme="light", reduced_motion="reduce")
    await sign_in(page, engine)
    found: dict[str, list[str]] = {}
    for path, opener in (
        (f"/jobs/{running}/activity", page.get_by_role("main").get_by_role("button", name="Cancel")),
        (f"/jobs/{ended['id']}/activity", page.get_by_role("button", name="Reply…")),
        ("/jobs", page.get_by_role("button", name="failed…")),
        ("/jobs/new", page.get_by_role("button", name="Reset")),
        ("/models", page.get_by_role("button", name="New model")),
        ("/settings/keys", page.get_by_role("button", name="New key")),
        ("/settings/keys", page.get_by_role("button", name=f"Revoke {LONG_NAME}").first),
        (f"/agents/{LONG_NAME}/triggers", page.get_by_role("button", name="Add trigger")),
        ("/", page.get_by_role("button", name="Account")),
    ):
        await page.goto(engine.url + path)
        await page.wait_for_function(LOADED)
        await opener.first.click()
        await expect(page.locator("dialog[open], [popover]:popover-open, [role=menu]").first).to_be_visible()
        found[f"{path}: {opener}"] = await violations(page, axe)
    for path in ("/no/such/page", "/jobs/no-such-job/activity", "/agents/no-such-agent", "/models?edit=none"):
        await page.goto(engine.url + path)
        found[path] = await violations(page, axe)
    for answer in (503, None):  # failed, and without an answer so far
        await page.route("**/api/**", refusing(answer))
        for path in (
            "/", "/jobs", f"/jobs/{failed['id']}/log", "/agents", "/models", "/sources", "/stats", "/instructions",
            "/files/pdfs", "/settings/system", "/settings/keys", "/settings/defaults",
        ):  # fmt: skip
            await page.goto(engine.url + path)
            await page.get_by_role("alert" if answer else "status").first.wait_for()
            found[f"{path}: {answer or 'loading'}"] = await violations(page, axe, is_loaded=False)
        await page.unroute("**/api/**")
    assert {path: problems for path, problems in found.items() if problems} == {}


def refusing(status: int | None) -> Callable[[Route], Awaitable[None]]:
    """Return a handler that answers each request with a status, or never, except for the session."""

    async def refuse(route: Route) -> None:
        if "/api/auth/me" in route.request.url:
            await route.continue_()
        elif status:
            await route.fulfill(status=status, json={"error": "the engine is busy", "code": "busy", "details": []})

    return refuse


@pytest.mark.core
async def test_no_page_scrolls_sideways(page: Page, engine: LocalEngine, admin: User) -> None:
    title = "a_title_without_any_space_" * 5
    metadata = {"title": title, "repo": f"{title}/{title}", "mock": {"steps": [{"log": title * 9}, {"fail": title}]}}
    failed = await admin.wait(await admin.submit(metadata=metadata), "failed")
    async with engine.user() as other:
        await other.wait(await other.submit({"result": 1}), "completed")  # of two owners
    await sign_in(page, engine)
    await add_resources(admin)
    tabs = ("activity", "log", "changes", "input", "result", "details")
    for path in ("/", "/jobs", "/jobs/new", *(f"/jobs/{failed['id']}/{tab}" for tab in tabs), *PAGES_OF_RESOURCES):
        if not path.endswith("/changes"):  # without a patch, whose absence the console reports
            await page.goto(engine.url + path)
            await page.wait_for_function(LOADED)
            for width in (320, 768, 1024, 1180):
                await page.set_viewport_size({"width": width, "height": 640})
                await page.wait_for_function(LOADED)
                assert await page.evaluate("document.documentElement.scrollWidth") == width, path


async def add_resources(admin: User) -> None:
    """Add a resource of each kind, with long names. Those of an earlier test stay."""
    model = {"name": LONG_NAME, "provider": "qwen", "model": LONG_NAME * 3, "slots": 3, "credentialsRef": LONG_NAME}
    instruction = {"name": LONG_NAME, "displayName": LONG_NAME * 3, "content": LONG_NAME * 9, "scope": "global"}
    trigger = {"source": LONG_NAME, "events": [LONG_NAME, "*"], "filters": {LONG_NAME: LONG_NAME}, "instruction": "x y"}
    chained = {**trigger, "config": {"model": LONG_NAME}, "next": {"agentTriggerName": LONG_NAME}, "enabled": False}
    agent = {"name": LONG_NAME, "eventTriggers": [trigger, chained], "instructions": [LONG_NAME]}
    overrides = {f"{LONG_NAME}/{LONG_NAME}"[:99]: {"model": LONG_NAME, "enabled": False}}
    source = {"name": LONG_NAME[:39] + "x", "type": "github", "secret": LONG_NAME, "repoOverrides": overrides}
    for path, body in (
        ("/api/ai-models", model),
        ("/api/instructions", instruction),
        ("/api/agents", agent),
        ("/api/webhook-sources", source),
        ("/api/api-keys", {"name": LONG_NAME, "expiresAt": "2031-01-01T00:00:00Z"}),
    ):
        assert (await admin.post(path, body)).status_code in (201, 409)


async def violations(page: Page, axe: str, *, is_loaded: bool = True) -> list[str]:
    """Return the rules that the page violates, with the first elements: in all widths and both themes."""
    loaded = LOADED if is_loaded else "() => true"
    await page.wait_for_function(loaded)
    await page.evaluate(axe)
    problems: list[str] = []
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        await page.wait_for_function(loaded)
        problems += [f"{width} px: {each}" for each in await page.evaluate(RUN, RULES)]
        await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        problems += [f"{width} px, dark: {each}" for each in await page.evaluate(RUN, COLOURS)]
        await page.emulate_media(color_scheme="light", reduced_motion="reduce")
    return problems
