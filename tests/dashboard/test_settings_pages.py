"""Stories of the settings: defaults, API keys and the system."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.acceptance.engine import ForkedEngine, LocalEngine, User
from tests.dashboard.conftest import sign_in


@pytest.mark.core
async def test_key_is_created_used_and_revoked(
    page: Page, browser: BrowserContext, engine: LocalEngine, admin: User
) -> None:
    await browser.grant_permissions(["clipboard-read", "clipboard-write"])
    await sign_in(page, engine, "/settings/keys")
    await page.get_by_role("button", name="New key").click()
    await page.get_by_role("textbox", name="Name").fill("story key")
    await page.get_by_label("Expires in").select_option("7")
    await page.get_by_role("button", name="Create key").click()
    dialog = page.get_by_role("dialog", name="The key of story key")
    await dialog.get_by_role("button", name="Copy").click()
    key = await page.evaluate("navigator.clipboard.readText()")
    await dialog.get_by_role("button", name="Done").click()
    await expect(page.get_by_text(key)).to_have_count(0)
    row = page.get_by_role("row", name="story key")
    await expect(row.get_by_role("cell").nth(2)).to_have_text("never")

    async with engine.client(key) as client:
        assert (await client.get("/api/jobs")).status_code == 200
        await page.reload()
        await expect(row.get_by_role("cell").nth(2)).not_to_have_text("never")
        await row.get_by_role("button", name="Revoke story key").click()
        await page.get_by_role("button", name="Revoke the key").click()
        await expect(row).to_have_count(0)
        assert (await client.get("/api/jobs")).status_code == 401


async def test_defaults_are_changed_and_cleared(page: Page, own_engine: LocalEngine, own_admin: User) -> None:
    await sign_in(page, own_engine, "/settings/defaults")
    claude = page.get_by_role("group", name="claude")
    await claude.get_by_label("Model").fill("opus")
    await claude.get_by_label("Effort").select_option("high")
    await page.get_by_label("CPU, limit").fill("2")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("The defaults are saved.")).to_be_visible()
    stored = (await own_admin.get("/api/config/defaults")).json()
    assert stored["providers"] == {"claude": {"model": "opus", "effort": "high"}}
    assert stored["executorResources"]["limits"] == {"cpu": "2"}

    await claude.get_by_label("Model").fill("")
    await claude.get_by_label("Effort").select_option("")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("The defaults are saved.")).to_have_count(2)
    assert (await own_admin.get("/api/config/defaults")).json()["providers"] == {}


async def test_invalid_default_is_explained_at_its_field(browser: BrowserContext, own_engine: LocalEngine) -> None:
    page = await browser.new_page()  # the answer 422 is an error on the console
    await sign_in(page, own_engine, "/settings/defaults")
    await page.get_by_label("Memory, limit").fill("much")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_label("Memory, limit")).to_have_attribute("aria-invalid", "true")


async def test_defaults_that_others_changed_are_merged(
    browser: BrowserContext, own_engine: LocalEngine, own_admin: User
) -> None:
    page = await browser.new_page()  # the answer 409 is an error on the console
    await sign_in(page, own_engine, "/settings/defaults")
    codex = page.get_by_role("group", name="codex")
    await codex.get_by_label("Model").fill("o3")
    await own_admin.http.put("/api/config/defaults", json={"model": "sonnet"})
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert", name="Changed meanwhile")).to_contain_text("sonnet")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("The defaults are saved.")).to_be_visible()
    stored = (await own_admin.get("/api/config/defaults")).json()
    assert (stored["model"], stored["providers"]["codex"]["model"]) == ("sonnet", "o3")


async def test_system_page_shows_health_limits_network_and_isolation(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    found = (await admin.get("/api/system")).json()["containment"]
    await sign_in(page, engine, "/settings/system")
    await expect(page.get_by_role("region", name="Engine")).to_contain_text("Ready")
    await expect(page.get_by_role("region", name="Engine")).to_contain_text("Alive")
    await expect(page.get_by_role("region", name="Limits")).to_contain_text("Waiting jobs")
    containment = page.get_by_role("region", name="Network and isolation")
    for text in (
        "Network of jobs that name nonepublic: hosts with public addresses",
        "Network ruleswork here" if found["networkProblem"] is None else "Network rulesdo not work here: ",
        f"Isolation of jobs that name none{found['isolation']}",
        f"Isolation of jobs of external contributorsat least {found['isolationOfUntrusted']}",
        f"Levels that work here{', '.join(found['isolationLevels'])}",
    ):
        await expect(containment).to_contain_text(text)
    await expect(page.get_by_role("link", name="Metrics")).to_have_attribute("href", "/metrics")


@pytest.fixture
def bare_engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine without agent programs."""
    with ForkedEngine(tmp_path, LABRATS_CLAUDE_PATH="/no/claude", LABRATS_CODEX_PATH="/no/codex") as engine:
        yield engine


async def test_first_run_says_what_each_provider_needs(page: Page, bare_engine: LocalEngine) -> None:
    await sign_in(page, bare_engine)
    providers = page.get_by_role("region", name="Providers").get_by_role("listitem")
    await expect(providers.filter(has_text="LABRATS_CLAUDE_PATH is /no/claude, which is no program")).to_be_visible()
    await expect(
        providers.filter(has_text="labrats connect local http://127.0.0.1:8000/v1 --provider qwen")
    ).to_be_visible()
    await page.keyboard.press("c")
    await expect(page.get_by_text("No provider can run a job so far")).to_be_visible()
    await page.get_by_label("Provider").select_option("codex")
    await expect(page.get_by_text("Jobs of codex fail here")).to_be_visible()
    await page.get_by_label("Prompt").fill("Find the cheese.")
    await page.get_by_label("Provider").select_option("claude")
    await page.get_by_role("button", name="Submit job").click()
    await expect(page.get_by_text("The program of the provider is missing on the engine.")).to_be_visible()
    await expect(page.get_by_text("The job is invalid", exact=False)).to_have_count(0)
