"""Sign-in with a real browser: at a real OpenID provider, and by a login link."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.acceptance.browser import CLIENT_ID, CLIENT_SECRET, a_browser, ask, openid_provider
from tests.acceptance.engine import LocalEngine, a_submission
from tests.support.loopback import QuietHandler, served_by


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with openid_provider() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def engine(issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    oidc = {"OIDC_ISSUER": issuer, "OIDC_CLIENT_ID": CLIENT_ID, "OIDC_CLIENT_SECRET": CLIENT_SECRET}
    with LocalEngine(tmp_path_factory.mktemp("engine"), **oidc) as engine:
        yield engine
    assert "Traceback" not in engine.log
    assert CLIENT_SECRET not in engine.log


@pytest.fixture
async def browser() -> AsyncIterator[BrowserContext]:
    async with a_browser() as browser:
        yield browser


@pytest.fixture
async def page(browser: BrowserContext) -> Page:
    return await browser.new_page()


async def sign_in(page: Page, engine: LocalEngine, name: str = "ada") -> None:
    """Sign in at the provider, which accepts any name and password."""
    await page.goto(f"{engine.url}/api/auth/oidc")
    await page.fill("input[name=login]", name)
    await page.fill("input[name=password]", "test-password")
    await page.click("button[type=submit]")  # sign in
    await page.click("button[type=submit]")  # grant the engine access
    await page.wait_for_url(f"{engine.url}/")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def served(folder: Path) -> AbstractContextManager[int]:
    """Serve the pages in `folder` from another origin. Yields the port."""
    return served_by(partial(_Pages, directory=str(folder)))


class _Pages(QuietHandler, SimpleHTTPRequestHandler): ...


async def name_of_user(page: Page) -> Any:
    _, me = await ask(page, "GET", "/api/auth/me")
    return me["user"] and me["user"]["name"]


async def test_api_page_fits_the_screen_of_a_phone(page: Page, engine: LocalEngine) -> None:
    await page.set_viewport_size({"width": 360, "height": 640})
    await page.goto(f"{engine.url}/api/docs")
    assert await page.evaluate("document.documentElement.scrollWidth") == 360


async def test_user_signs_in_stays_signed_in_over_a_restart_and_signs_out(
    page: Page, browser: BrowserContext, engine: LocalEngine
) -> None:
    await sign_in(page, engine)
    assert await name_of_user(page) == "ada of the tests"
    (cookie,) = [cookie for cookie in await browser.cookies(engine.url) if cookie["name"] == "auth_token"]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["secure"]) == (True, "Lax", False)
    assert "auth_token" not in await page.evaluate("document.cookie")

    engine.restart()
    await page.reload()
    assert await name_of_user(page) == "ada of the tests"
    headers = {"Content-Type": "application/json"}
    status, job = await ask(page, "POST", "/api/jobs/submit", headers=headers, body=json.dumps(a_submission()))
    assert status == 201
    assert (await ask(page, "GET", f"/api/jobs/{job['jobId']}"))[0] == 200

    assert await ask(page, "POST", "/api/auth/logout") == (204, None)
    assert await name_of_user(page) is None
    assert (await ask(page, "GET", "/api/jobs"))[0] == 401
    await browser.add_cookies([{"name": "auth_token", "value": cookie["value"], "url": engine.url}])
    assert (await ask(page, "GET", "/api/jobs"))[0] == 401


async def test_user_who_refuses_at_the_provider_is_not_signed_in(page: Page, engine: LocalEngine) -> None:
    await page.goto(f"{engine.url}/api/auth/oidc")
    await page.click("a[href*=abort]")

    await expect(page.get_by_role("alert")).to_contain_text("did not sign you in (access_denied)")
    await expect(page.get_by_role("link", name="Sign in with")).to_be_visible()
    assert page.url == f"{engine.url}/login"
    assert await name_of_user(page) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["another port", "another host"])
async def test_page_of_another_origin_cannot_act_as_the_user(
    page: Page, engine: LocalEngine, host: str, tmp_path: Path
) -> None:
    await sign_in(page, engine)
    (tmp_path / "index.html").write_text(f"""
        <form method=post action="{engine.url}/api/auth/logout"><button>logout</button></form>
        <form method=post action="{engine.url}/api/jobs/submit" enctype="text/plain">
            <input name='{{"source":"manual","type":"forged","prompt":"' value='"}}'>
            <button>submit</button>
        </form>""")
    with served(tmp_path) as port:
        elsewhere = await page.context.new_page()
        await elsewhere.goto(f"http://{host}:{port}/")
        send = (
            "url => fetch(url, {method: 'POST', mode: 'no-cors', credentials: 'include'}).then(answer => answer.type)"
        )
        assert await elsewhere.evaluate(send, f"{engine.url}/api/auth/logout") == "opaque"
        read = "url => fetch(url, {credentials: 'include'}).then(answer => answer.text()).catch(error => error.name)"
        assert await elsewhere.evaluate(read, f"{engine.url}/api/jobs") == "TypeError"
        for form in ("logout", "submit"):
            async with elsewhere.expect_response(re.compile(re.escape(engine.url))) as answered:
                await elsewhere.click(f"text={form}")
            assert "set-cookie" not in await (await answered.value).all_headers()
            await elsewhere.goto(f"http://{host}:{port}/")

    status, listed = await ask(page, "GET", "/api/jobs?type=forged")
    assert (status, listed["total"]) == (200, 0)
    assert await name_of_user(page) == "ada of the tests"


async def test_login_link_signs_in_once_and_its_token_is_stored_nowhere(page: Page, engine: LocalEngine) -> None:
    link = await engine.login_link()
    token = link.partition("token=")[2]

    await page.goto(link)

    await page.wait_for_url(f"{engine.url}/")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    assert await name_of_user(page) == "local"
    visible = await page.evaluate(
        "[document.referrer, document.cookie, document.documentElement.outerHTML, location.href, history.length,"
        " JSON.stringify(performance.getEntriesByType('navigation'))].join()"
    )
    assert token not in visible
    assert token not in engine.log
    await page.context.clear_cookies()
    await page.goto(link)
    await expect(page.get_by_role("alert")).to_contain_text("was used before")
    assert await name_of_user(page) is None
