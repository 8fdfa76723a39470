"""Sign-in at a real OpenID provider, from a page of the dashboard and back to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, expect

from tests.acceptance.browser import CLIENT_ID, CLIENT_SECRET, openid_provider
from tests.acceptance.engine import LocalEngine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine with an OpenID provider."""
    with openid_provider() as issuer:
        oidc = {"OIDC_ISSUER": issuer, "OIDC_CLIENT_ID": CLIENT_ID, "OIDC_CLIENT_SECRET": CLIENT_SECRET}
        with LocalEngine(tmp_path, **oidc) as engine:
            yield engine


async def test_sign_in_at_the_provider_returns_to_the_wanted_page(browser: BrowserContext, engine: LocalEngine) -> None:
    page = await browser.new_page()  # the pages of the provider have errors of their own
    await page.goto(f"{engine.url}/jobs?status=failed&q=a+%26+b")
    provider = page.get_by_role("link", name="Sign in with 127.0.0.1")
    await expect(provider).to_be_visible()
    await expect(page.get_by_text("labrats login-link")).to_have_count(0)
    await provider.click()
    await page.fill("input[name=login]", "ada")
    await page.fill("input[name=password]", "test-password")
    await page.click("button[type=submit]")  # sign in
    await page.click("button[type=submit]")  # grant the engine access
    await expect(page).to_have_url(f"{engine.url}/jobs?status=failed&q=a+%26+b")
    await expect(page.get_by_role("searchbox")).to_have_value("a & b")
    await page.get_by_role("link", name="Overview").click()
    await expect(page).to_have_url(f"{engine.url}/")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
