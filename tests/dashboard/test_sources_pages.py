"""Stories of the pages about webhook sources."""

import hashlib
import hmac
import re

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in


@pytest.mark.core
async def test_source_is_created_and_its_address_and_secret_copied(
    page: Page, browser: BrowserContext, engine: LocalEngine, admin: User
) -> None:
    await browser.grant_permissions(["clipboard-read", "clipboard-write"])
    await sign_in(page, engine, "/sources")
    await page.get_by_role("button", name="New source").first.click()
    await page.get_by_role("button", name="Create source").click()
    await expect(page.get_by_label("Name", exact=True)).to_be_focused()
    await page.get_by_label("Name", exact=True).fill("story")
    await page.get_by_role("button", name="Create source").click()
    dialog = page.get_by_role("dialog", name="story is created")
    await dialog.get_by_role("button", name="Copy the address").click()
    address = await page.evaluate("navigator.clipboard.readText()")
    await dialog.get_by_role("button", name="Copy the secret").click()
    secret = await page.evaluate("navigator.clipboard.readText()")
    assert address == f"{engine.url}/webhooks/story"
    await dialog.get_by_role("button", name="Done").click()
    await expect(page.get_by_role("region", name="Receiver")).to_contain_text("None so far")
    deliveries = page.get_by_role("region", name="Latest deliveries")
    await expect(deliveries).to_contain_text("GitHub then sends a ping")

    signature = hmac.new(secret.encode(), b"{}", hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": f"sha256={signature}", "X-GitHub-Event": "ping", "X-GitHub-Delivery": "1"}
    headers["Content-Type"] = "application/json"
    answer = await admin.http.post("/webhooks/story", content=b"{}", headers=headers)
    assert answer.status_code == 200, answer.text
    ping = deliveries.get_by_role("listitem")
    await expect(ping).to_contain_text("A test of the address and the secret", timeout=15_000)
    await deliveries.get_by_label("Outcome").select_option("Refused")
    await expect(deliveries.get_by_role("heading", name="No such delivery")).to_be_visible()
    assert page.url.endswith("/sources/story?outcome=refused")


async def test_list_names_sources_with_refused_deliveries(page: Page, engine: LocalEngine, admin: User) -> None:
    await admin.post("/api/webhook-sources", {"name": "unsigned", "type": "generic", "secret": "s" * 32})
    await sign_in(page, engine, "/sources")
    source = page.get_by_role("listitem").filter(has_text="/webhooks/unsigned")
    await expect(source).to_contain_text("no delivery so far")
    await expect(source).not_to_contain_text("refused")
    for _ in range(2):
        assert (await admin.http.post("/webhooks/unsigned", json={})).status_code == 401
    await source.get_by_role("link", name="2 deliveries refused in 24 h").click(timeout=15_000)
    await expect(page).to_have_url(re.compile(r"/sources/unsigned\?outcome=refused$"))


async def test_settings_of_a_source_and_its_repositories_are_changed(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    await admin.post("/api/webhook-sources", {"name": "edited", "type": "github", "secret": "s" * 32})
    await sign_in(page, engine, "/sources/edited")
    await page.get_by_label("Members of the organisation").uncheck()
    await page.get_by_label("Pull requests from forks").check()
    await page.get_by_label("Effort").first.select_option("high")
    await page.get_by_role("button", name="Add repository").click()
    await page.get_by_label("Repository 1", exact=True).fill("octocat/hello-world")
    await page.get_by_label("Model of repository 1").fill("opus")
    report = page.get_by_role("group", name="Report to GitHub").get_by_label("Report", exact=True)
    await report.fill('{"pullRequest": {"signCommits": true}}')
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("edited is saved.")).to_be_visible()
    source = (await admin.get("/api/webhook-sources/edited")).json()
    assert source["allowedAssociations"] == ["OWNER", "COLLABORATOR"]
    assert (source["allowForks"], source["defaults"]["effort"]) == (True, "high")
    assert source["repoOverrides"]["octocat/hello-world"]["model"] == "opus"
    assert source["report"] == {"pullRequest": {"signCommits": True}}

    await page.get_by_role("switch", name="edited is enabled").click()
    await expect(page.get_by_text("Switched off: it refuses deliveries.")).to_be_visible()
    await page.get_by_role("button", name="Rotate the secret…").click()
    await page.get_by_role("button", name="Replace the secret").click()
    await expect(page.get_by_role("dialog", name="The secret is replaced")).to_be_visible()
    await page.get_by_role("button", name="Done").click()
    await page.get_by_role("button", name="Remove source…").click()
    await page.get_by_role("button", name="Remove the source").click()
    await expect(page.get_by_role("heading", name="Webhooks")).to_be_visible()
    assert (await admin.get("/api/webhook-sources/edited")).status_code == 404


async def test_source_that_others_changed_is_merged(browser: BrowserContext, engine: LocalEngine, admin: User) -> None:
    page = await browser.new_page()  # the answer 409 is an error on the console
    await admin.post("/api/webhook-sources", {"name": "raced", "type": "github", "secret": "s" * 32})
    await sign_in(page, engine, "/sources/raced")
    await page.get_by_label("Turns").fill("5")
    await admin.http.patch("/api/webhook-sources/raced", json={"allowForks": True, "defaults": {"maxTurns": 9}})
    await page.get_by_role("button", name="Save").click()
    meanwhile = page.get_by_role("alert", name="Changed meanwhile")
    await expect(meanwhile).to_contain_text("Pull requests from forks")
    await meanwhile.get_by_role("button", name="Theirs 9").click()
    await expect(page.get_by_role("textbox", name="Turns")).to_have_value("9")
    await expect(page.get_by_label("Pull requests from forks")).to_be_checked()


async def test_source_that_others_remove_is_shown_as_removed_and_read_no_more(
    browser: BrowserContext, engine: LocalEngine, admin: User
) -> None:
    page = await browser.new_page()  # the answer 404 is an error on the console
    await admin.post("/api/webhook-sources", {"name": "short-lived", "type": "github", "secret": "s" * 32})
    await sign_in(page, engine, "/sources/short-lived")
    await expect(page.get_by_role("switch", name="short-lived is enabled")).to_be_visible()
    assert (await admin.http.delete("/api/webhook-sources/short-lived")).status_code == 204
    await expect(page.get_by_role("heading", name="The source was removed")).to_be_visible()
    await expect(page.get_by_role("switch")).to_have_count(0)
    reads: list[str] = []
    page.on("request", lambda request: reads.append(request.url) if "webhook-sources" in request.url else None)
    await page.wait_for_timeout(4_000)  # longer than the pause between two polls
    assert reads == []
