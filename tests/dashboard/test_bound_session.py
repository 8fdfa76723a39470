"""A session belongs to the port of the dashboard: other ports of the host get its cookie, which is worthless there."""

import re
from typing import Final

import httpx2
import pytest
from playwright.async_api import BrowserContext, FilePayload, Page, Request, Response, expect

from labrats.api.auth.permissions import TABLE, Access
from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in
from tests.support.loopback import QuietHandler, served_by

HEADER: Final = "labrats-session-secret"
SECRET: Final = "localStorage.getItem('labrats.session')"
NEEDS_NO_SESSION: Final = re.compile(r"/api/(auth/(me|link|oidc)|docs|openapi)")
BLOCKED_STORAGE: Final = """
    Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('blocked', 'SecurityError'); }});
"""


class Cookies(QuietHandler):
    """A server that keeps the cookies that browsers send to it."""

    received: list[str]

    def do_GET(self) -> None:
        self.received.append(self.headers.get("Cookie", ""))
        self.answer(200, b"<h1>my dev server</h1>", {"Content-Type": "text/html"})


async def test_cookie_that_another_port_has_received_is_refused_everywhere(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    job = await admin.submit({"log": "at work"}, {"hang": True})
    await sign_in(page, engine, f"/jobs/{job}/log")
    await expect(page.get_by_text("at work")).to_be_visible()

    class Server(Cookies):
        received: list[str] = []

    with served_by(Server) as port:
        other = await page.context.new_page()
        await other.goto(f"http://127.0.0.1:{port}/")
        assert await other.evaluate(SECRET) is None
        await other.close()
    assert "auth_token=" in Server.received[0]

    headers = {"Cookie": Server.received[0], "Origin": engine.url, "Sec-Fetch-Site": "same-origin"}
    async with engine.client() as thief:
        thief.headers.update(headers)
        me = (await thief.get("/api/auth/me")).json()
        assert (me["user"], me["scopes"]) == (None, [])
        for (method, path), access in TABLE.items():
            if access not in (Access.OPEN, Access.SIGNED):
                for accept in ("application/json", "text/event-stream"):
                    answer = await thief.request(method, path.replace("{}", job), headers={"Accept": accept})
                    assert answer.status_code == 401, (method, path)
        own = {"Labrats-Session-Secret": "0123456789abcdef0123456789abcdef"}
        assert (await thief.get("/api/jobs", headers=own)).status_code == 401

    await admin.cancel(job)  # the live log, a reload and a download work on
    await expect(page.get_by_text("cancelled").first).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("at work")).to_be_visible()
    async with page.expect_download() as downloading:
        await page.get_by_role("button", name="Plain text").click()
    download = await downloading.value
    assert download.suggested_filename == f"{job}.log"
    assert "at work" in (await download.path()).read_text()


@pytest.mark.core
async def test_every_request_has_the_secret_and_no_url_has_it(page: Page, engine: LocalEngine, admin: User) -> None:
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    await sign_in(page, engine)
    lines = {"log": "line {n} of 100", "times": 100, "everyMs": 30}
    job = await admin.submit({"write": {"path": "new.txt", "text": "new"}}, lines, {"result": 1})
    await page.goto(f"{engine.url}/jobs/{job}/log")
    await expect(page.get_by_text("line 100 of 100")).to_be_visible()
    secret = await page.evaluate(SECRET)
    await page.goto(f"{engine.url}/files/workspace")
    file: FilePayload = {"name": "table.csv", "mimeType": "text/csv", "buffer": b"a,b"}
    await page.get_by_label("Drop files here").set_input_files([file])
    async with page.expect_download():
        await page.get_by_role("button", name="Download table.csv").click()
    await page.goto(f"{engine.url}/jobs/{job}/changes")
    async with page.expect_download():
        await page.get_by_role("button", name="Patch").click()
    await page.goto(f"{engine.url}/stats")
    await expect(page.get_by_role("heading", name="Stats")).to_be_visible()

    sent = list(requests)
    assert not [request.url for request in sent if secret in request.url]
    paths = [request.url.removeprefix(engine.url) for request in sent]
    for expected in ("/api/changes", f"/api/jobs/{job}/events[?]after=", "/api/workspace-uploads$", ".*/raw$"):
        assert any(re.match(expected, path) for path in paths), expected
    assert len([path for path in paths if path.startswith(f"/api/jobs/{job}/patch")]) == 2  # of a worker, and the page
    without = [
        path
        for request, path in zip(sent, paths, strict=True)
        if path.startswith("/api/") and not NEEDS_NO_SESSION.match(path)
        if (await request.all_headers()).get(HEADER) != secret
    ]
    assert without == []


async def test_no_moment_of_the_sign_in_leaves_a_cookie_that_is_a_session_alone(
    page: Page, engine: LocalEngine
) -> None:
    """A page of another port can be open while the user signs in, and can open links to the engine."""
    cookies: list[str] = []

    async def note_cookie(response: Response) -> None:
        sent = (await response.all_headers()).get("set-cookie", "")
        cookies.extend(re.findall(r"auth_token=([^;]+)", sent))

    page.on("response", note_cookie)
    await page.goto(f"{await engine.login_link()}&next=/api/openapi.json")  # not a page of the dashboard
    await page.wait_for_url(f"{engine.url}/")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    cookies += [each["value"] for each in await page.context.cookies() if each["name"] == "auth_token"]
    assert len(cookies) == 2
    for cookie in cookies:
        answer = httpx2.get(f"{engine.url}/api/auth/me", headers={"Cookie": f"auth_token={cookie}"})
        assert answer.json()["user"] is None


async def test_session_of_the_version_before_goes_on(browser: BrowserContext, engine: LocalEngine) -> None:
    async with engine.browser() as user:
        await browser.add_cookies([{"name": "auth_token", "value": user.key, "url": engine.url}])
        page = await browser.new_page()
        await page.goto(f"{engine.url}/jobs")
        await expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()


async def test_tab_that_waits_for_the_sign_in_follows_the_tab_of_the_link(
    browser: BrowserContext, engine: LocalEngine
) -> None:
    waiting, opened = await browser.new_page(), await browser.new_page()
    for _ in range(2):  # the first sign-in of a browser, and one after a sign-out
        await waiting.goto(f"{engine.url}/models")
        await expect(waiting.get_by_role("heading", name="Sign in")).to_be_visible()
        await sign_in(opened, engine)
        for tab in (opened, waiting):
            await expect(tab.get_by_role("navigation", name="Pages").first).to_be_visible()
        await opened.get_by_role("button", name="Account").click()
        await opened.get_by_role("menuitem", name="Sign out").click()
        for tab in (opened, waiting):
            await expect(tab.get_by_role("heading", name="Sign in")).to_be_visible()
        assert await opened.evaluate(SECRET) is None


async def test_session_without_its_secret_leads_to_the_sign_in_page_once(
    browser: BrowserContext, engine: LocalEngine
) -> None:
    page = await browser.new_page()  # answers 401 are errors on the console
    await sign_in(page, engine, "/jobs")
    await expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    await page.evaluate("localStorage.clear()")
    await page.reload()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await sign_in(page, engine)
    await expect(page).to_have_url(f"{engine.url}/jobs")
    await expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()


async def test_browser_that_stores_nothing_stays_signed_in(page: Page, engine: LocalEngine, admin: User) -> None:
    await page.context.add_init_script(BLOCKED_STORAGE)
    job = await admin.run({"log": "seen without storage"}, {"result": 1})
    await sign_in(page, engine, f"/jobs/{job['id']}/log")
    await expect(page.get_by_text("seen without storage")).to_be_visible()
    (cookie,) = [each for each in await page.context.cookies() if each.get("name") == "auth_token"]
    me = httpx2.get(f"{engine.url}/api/auth/me", headers={"Cookie": f"auth_token={cookie['value']}"}).json()
    assert me["user"]["name"] == "local"


async def test_download_that_fails_says_why(browser: BrowserContext, engine: LocalEngine, admin: User) -> None:
    page = await browser.new_page()
    job = await admin.run({"log": "written"}, {"result": 1})
    await sign_in(page, engine, f"/jobs/{job['id']}/log")
    await expect(page.get_by_text("written")).to_be_visible()
    await page.route("**/logs?format=text", lambda route: route.abort())
    await page.get_by_role("button", name="Plain text").click()
    await expect(page.get_by_text("The engine does not answer")).to_be_visible()
    await page.unroute("**/logs?format=text")
    await page.evaluate("localStorage.clear()")
    await page.get_by_role("button", name="Plain text").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
