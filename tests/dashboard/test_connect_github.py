"""Stories of a first visit: GitHub is connected in the browser, and the first steps become done."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.engine import ForkedEngine, LocalEngine, User
from tests.dashboard.conftest import sign_in
from tests.support.github import APP_LOGIN, GitHubStandIn, a_github


@pytest.fixture
def github() -> Iterator[GitHubStandIn]:
    with a_github() as github:
        yield github


@pytest.fixture
def own_engine(tmp_path: Path, github: GitHubStandIn) -> Iterator[LocalEngine]:
    with ForkedEngine(tmp_path, LABRATS_GITHUB_API_URL=github.url, ANTHROPIC_API_KEY="") as engine:
        yield engine


@pytest.mark.core
async def test_app_is_created_installed_and_connected(
    page: Page, own_engine: LocalEngine, own_admin: User, github: GitHubStandIn
) -> None:
    github.add_repository("octo/second", git=github.demo.git)
    await sign_in(page, own_engine)
    steps = page.get_by_role("region", name="First steps").get_by_role("listitem")
    await expect(steps).to_have_count(4)
    await steps.filter(has_text="Connect GitHub").get_by_role("link", name="Connect").click()
    dialog = page.get_by_role("dialog", name="Connect GitHub")
    await dialog.get_by_role("button", name="Create the App on GitHub").click()

    await expect(dialog.get_by_text(APP_LOGIN)).to_be_visible()
    await expect(page).to_have_url(f"{own_engine.url}/sources?connect=true")
    async with page.context.expect_page() as opened:
        await dialog.get_by_role("link", name="Install it on GitHub").click()
    installing = await opened.value
    for name in ("octo/demo", "octo/second"):
        await installing.get_by_label(name).check()
    await installing.get_by_role("button", name="Install").click()
    await installing.close()

    await dialog.get_by_role("button", name="Connect").click()
    await expect(dialog.get_by_text("choose at least one repository")).to_be_visible()
    await dialog.get_by_label("octo/second").check()
    await dialog.get_by_role("button", name="Connect").click()
    await expect(page.get_by_text("github reads octo/second once a minute. Label an issue")).to_be_visible()
    await expect(page.get_by_role("listitem").filter(has_text="read every minute")).to_be_visible()
    source = (await own_admin.get("/api/webhook-sources/github")).json()
    assert (source["repositories"], source["credentialsRef"]) == (["octo/second"], "github-app")

    await page.get_by_role("link", name="Overview").first.click()
    await expect(steps.filter(has_text="Connect GitHub")).to_contain_text("done")
    await page.get_by_role("button", name="Hide").click()
    await page.reload()
    await expect(page.get_by_role("region", name="Providers")).to_be_visible()
    await expect(steps).to_have_count(0)


async def test_answer_of_another_attempt_stores_no_app(
    page: Page, own_engine: LocalEngine, github: GitHubStandIn
) -> None:
    await sign_in(page, own_engine, "/sources?code=a-code-of-another&state=guessed")
    dialog = page.get_by_role("dialog", name="Connect GitHub")
    await expect(dialog.get_by_text("belongs to another attempt")).to_be_visible()
    await dialog.get_by_role("button", name="Start again").click()
    await expect(dialog.get_by_label("Organization")).to_be_visible()
    assert github.calls == []


async def test_personal_token_connects_one_repository(
    page: Page, own_engine: LocalEngine, own_admin: User, github: GitHubStandIn
) -> None:
    github.access.add_person("ghp_a-token-of-a-test", "octo")
    await sign_in(page, own_engine, "/sources?connect=true")
    dialog = page.get_by_role("dialog", name="Connect GitHub")
    await dialog.get_by_text("Use a personal token").click()
    await dialog.get_by_label("Repository").fill("octo/demo")
    await dialog.get_by_label("Token").fill("ghp_a-token-of-a-test")
    await dialog.get_by_role("button", name="Connect the repository").click()
    await expect(page.get_by_text("github reads octo/demo once a minute.")).to_be_visible()
    assert (await own_admin.get("/api/webhook-sources/github")).json()["credentialsRef"] == "github-token"
