"""Questions that users answer in the dashboard, in a real browser at a real engine."""

import re
from secrets import token_hex
from typing import Any, Final

import pytest
from playwright.async_api import BrowserContext, Page, ViewportSize, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in
from tests.support.deliveries import github_headers

PHONE: Final[ViewportSize] = {"width": 390, "height": 844}


def titled(title: str, *steps: Any) -> dict[str, Any]:
    """Return the metadata of a mock job with a title."""
    return {"title": title, "mock": {"steps": list(steps)}}


async def test_login_returns_to_the_wanted_page_also_in_another_tab(
    page: Page, browser: BrowserContext, engine: LocalEngine
) -> None:
    await page.goto(f"{engine.url}/jobs?status=failed")
    await expect(page).to_have_url(f"{engine.url}/login?next=%2Fjobs%3Fstatus%3Dfailed")
    await expect(page.get_by_text("labrats login-link")).to_be_visible()

    other = await browser.new_page()
    await sign_in(other, engine)

    for tab in (other, page):
        await expect(tab).to_have_url(f"{engine.url}/jobs?status=failed")
    await expect(other.get_by_role("group", name="Status").get_by_role("button", name="Failed")).to_have_attribute(
        "aria-pressed", "true"
    )


async def test_user_signs_out(page: Page, engine: LocalEngine) -> None:
    await sign_in(page, engine)
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in to Labrats")).to_be_visible()
    await page.goto(f"{engine.url}/jobs")
    await expect(page).to_have_url(re.compile("/login"))


async def test_filters_survive_a_reload_and_lead_to_the_jobs(page: Page, engine: LocalEngine, admin: User) -> None:
    marker = "needle in the haystack"
    await admin.wait(await admin.submit(metadata=titled(marker, {"fail": "no"})), "failed")
    await admin.run(metadata=titled(marker, {"result": 1}))
    await sign_in(page, engine, "/jobs")
    await page.get_by_role("searchbox").fill(marker)
    await expect(page).to_have_url(re.compile("q=needle"))
    await page.get_by_role("group", name="Status").get_by_role("button", name="Failed").click()
    await page.get_by_label("Failure").select_option("agent_error")
    rows = page.get_by_role("table").get_by_role("link")
    await expect(rows).to_have_count(1)
    await expect(page).to_have_url(re.compile(r"status=failed.*code=agent_error|code=agent_error.*status=failed"))

    await page.reload()

    await expect(rows).to_have_count(1)
    await expect(page.get_by_role("searchbox")).to_have_value(marker)
    await expect(page.get_by_role("button", name="Completed 1")).to_have_count(0)
    await rows.first.click()
    await expect(page.get_by_role("heading", name=marker)).to_be_visible()
    await page.go_back()
    await expect(rows).to_have_count(1)
    await page.get_by_role("link", name="Clear").click()
    await expect(page).to_have_url(f"{engine.url}/jobs")


async def test_nonsense_in_the_url_is_ignored(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"despite-nonsense-{token_hex(4)}"
    await admin.run(metadata=titled(title, {"result": 1}))
    await sign_in(page, engine, f"/jobs?status=lost&window=2y&sort=up&other=1&q={title}")
    await expect(page.get_by_role("link", name=title)).to_be_visible()
    await page.get_by_role("link", name=title).click()
    await expect(page).to_have_url(re.compile("/activity$"))


async def test_new_and_changed_jobs_appear_in_the_open_list(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"appears-by-itself-{token_hex(4)}"
    await sign_in(page, engine, f"/jobs?q={title}")
    await expect(page.get_by_role("heading", name="No job matches")).to_be_visible()
    job = await admin.submit(metadata=titled(title, {"log": "x"}, {"hang": True}))
    row = page.get_by_role("row", name=title)
    await expect(row).to_contain_text("Running")
    await admin.cancel(job)
    await expect(row).to_contain_text("Cancelled")


async def test_row_of_a_running_job_shows_what_the_agent_does(page: Page, engine: LocalEngine, admin: User) -> None:
    await sign_in(page, engine, "/jobs?status=active")
    title = f"busy-{token_hex(4)}"
    steps = [{"log": "reading the issue"}, {"sleepMs": 4000}, {"log": "writing a test"}, {"hang": True}]
    job_id = await admin.submit(*steps, prompt=title)
    row = page.get_by_role("row").filter(has_text=title)
    await expect(row).to_contain_text("reading the issue")
    await expect(row).to_contain_text("writing a test")
    await page.set_viewport_size(PHONE)
    await expect(row.get_by_text("writing a test")).to_be_visible()
    await page.goto(f"{engine.url}/")
    await expect(page.get_by_role("listitem").filter(has_text=title)).to_contain_text("writing a test")
    await admin.cancel(job_id)


async def test_rows_of_waiting_jobs_say_their_place_and_why(page: Page, engine: LocalEngine, admin: User) -> None:
    model = f"queue-{token_hex(4)}"
    for name, slots in ((model, 1), (f"{model}-none", 0)):
        await admin.post("/api/ai-models", {"name": name, "provider": "mock", "model": name, "slots": slots})
    holder = await admin.submit({"hang": True}, config={"model": model})
    await admin.wait(holder, "active")
    for prompt in ("first", "second"):
        await admin.submit({"hang": True}, prompt=f"{model} {prompt}", config={"model": model})
    await admin.submit(prompt=f"{model} never", config={"model": f"{model}-none"})
    await sign_in(page, engine, f"/jobs?status=waiting&q={model}")
    first, second, never = [
        page.get_by_role("row").filter(has_text=f"{model} {n}") for n in ("first", "second", "never")
    ]

    await expect(first).to_contain_text("Next in line, 1/1 busy")
    await expect(second).to_contain_text("2nd in line, 1/1 busy")
    await expect(never).to_contain_text(f"{model}-none has no slots")
    await page.set_viewport_size(PHONE)
    await expect(second.get_by_text("2nd in line, 1/1 busy")).to_be_visible()
    await admin.cancel(holder)
    await expect(second).to_contain_text("Next in line, 1/1 busy")
    await page.goto(f"{engine.url}/")
    await expect(page.get_by_role("listitem").filter(has_text=f"{model} second")).to_contain_text("Next in line")


async def test_waiting_jobs_of_one_model_stand_in_the_order_of_their_queue(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    model = f"queue-{token_hex(4)}"
    await admin.post("/api/ai-models", {"name": model, "provider": "mock", "model": model, "slots": 1})
    await admin.wait(await admin.submit({"hang": True}, config={"model": model}), "active")
    for name, priority in (("last", 300), ("middle", 200), ("next", 100)):
        await admin.submit(prompt=f"{model} {name}", config={"model": model}, priority=priority)
    await sign_in(page, engine, f"/jobs?status=waiting&model={model}")
    titles = page.get_by_role("table").get_by_role("link")
    await expect(titles).to_have_text([f"{model} {name}" for name in ("next", "middle", "last")])
    await expect(page.get_by_label("Order").locator("option").first).to_have_text("Next first")
    await page.goto(f"{engine.url}/")
    waiting = page.get_by_role("region", name="Waiting").get_by_role("link", name=model)
    await expect(waiting).to_have_text([f"{model} {name}" for name in ("next", "middle", "last")])


async def test_selected_job_that_has_completed_says_why_nothing_can_be_done(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    title = f"completed-{token_hex(4)}"
    await admin.run(metadata=titled(title, {"result": 1}))
    await page.set_viewport_size(PHONE)
    await sign_in(page, engine, f"/jobs?q={title}")
    await expect(
        page.get_by_role("row").filter(has_text=title).locator("span").filter(has_text=re.compile("^mock$"))
    ).to_be_visible()
    await page.get_by_role("checkbox", name=title).check()
    bar = page.get_by_role("toolbar", name="Selected jobs")
    await expect(bar).to_contain_text("Ended without a failure: nothing to cancel or retry")


async def test_jobs_are_filtered_by_owner(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"owned-{token_hex(4)}"
    async with engine.user() as other:
        await other.run(prompt=f"{title} by another")
        await admin.run(prompt=f"{title} by the admin")
        await sign_in(page, engine, "/jobs")
        rows = page.get_by_role("row").filter(has_text=title)
        await expect(rows).to_have_count(2)
        await page.get_by_label("Owner").select_option(other.key_id)
        await expect(rows).to_have_count(1)
        await expect(page).to_have_url(re.compile(f"owner={other.key_id}"))
        await expect(rows).to_contain_text("by another")
        await page.goto(f"{engine.url}/jobs?q={title}+by+the+admin")
        await expect(rows).to_have_count(1)
        await expect(page.get_by_label("Owner")).to_be_visible()


async def test_ended_session_keeps_the_draft(browser: BrowserContext, engine: LocalEngine) -> None:
    page = await browser.new_page()  # the answer 401 is an error on the console
    await sign_in(page, engine, "/jobs/new")
    await page.get_by_label("Prompt").fill("a long text")
    await browser.clear_cookies()
    await page.reload()
    await expect(page).to_have_url(re.compile("/login"))
    await sign_in(page, engine)
    await expect(page).to_have_url(f"{engine.url}/jobs/new")
    await expect(page.get_by_label("Prompt")).to_have_value("a long text")


async def test_invalid_submission_names_the_fields(page: Page, browser: BrowserContext, engine: LocalEngine) -> None:
    await sign_in(page, engine, "/jobs/new")
    await page.get_by_role("button", name="Submit job").click()
    await expect(page.get_by_label("Prompt")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Prompt").fill("x")
    await page.get_by_label("Turns").fill("many")
    await page.get_by_role("button", name="Submit job").click()
    await expect(page.get_by_label("Turns")).to_be_focused()


@pytest.mark.core
async def test_keyboard_alone_opens_pages_jobs_and_search(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"opened-by-keys-{token_hex(4)}"
    other = await admin.run({"result": 1})
    job = await admin.run(metadata=titled(title, {"result": 1}))
    await sign_in(page, engine)
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await page.keyboard.press("g")
    await page.keyboard.press("j")
    await expect(page.get_by_role("link", name=title)).to_be_visible()
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{engine.url}/jobs/{job['id']}/activity")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await page.get_by_label("Single letters").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("g")
    await page.keyboard.press("o")
    await expect(page).to_have_url(f"{engine.url}/jobs/{job['id']}/activity")
    await page.keyboard.press("Control+k")
    await expect(page.get_by_role("combobox", name="Search")).to_be_focused()
    await page.keyboard.insert_text(other["id"])
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{engine.url}/jobs/{other['id']}/activity")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_keys_act_on_the_control_that_has_the_focus(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"in-focus-{token_hex(4)}"
    await admin.run(metadata=titled(title, {"result": 1}))
    await sign_in(page, engine, f"/jobs?q={title}")
    await expect(page.get_by_role("link", name=title)).to_be_visible()
    await page.keyboard.press("j")
    await expect(page.get_by_role("link", name=title)).to_be_focused()
    await page.get_by_role("link", name="New job").focus()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(f"{engine.url}/jobs/new")
    await page.get_by_role("button", name="JSON").focus()
    await page.keyboard.press("Space")
    await expect(page.get_by_label("Submission")).to_be_visible()


async def test_changed_json_of_a_submission_is_discarded_only_after_a_question(page: Page, engine: LocalEngine) -> None:
    await sign_in(page, engine, "/jobs/new")
    await page.get_by_label("Prompt").fill("kept")
    await page.get_by_role("button", name="JSON").click()
    await page.get_by_role("button", name="Form").click()
    await expect(page.get_by_label("Prompt")).to_have_value("kept")
    await page.get_by_role("button", name="JSON").click()
    await page.get_by_label("Submission").fill('{"mcpServers": []}')
    await page.get_by_role("button", name="Form").click()
    await page.get_by_role("button", name="Back").click()
    await expect(page.get_by_label("Submission")).to_have_value('{"mcpServers": []}')
    await page.get_by_role("button", name="Form").click()
    await page.get_by_role("button", name="Discard them").click()
    await expect(page.get_by_label("Prompt")).to_have_value("kept")


async def test_a_selection_of_text_that_ends_beside_a_dialog_does_not_close_it(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    job = await admin.run({"result": 1})
    await sign_in(page, engine, f"/jobs/{job['id']}/activity")
    await page.get_by_role("button", name="Reply").click()
    message = page.get_by_label("Message")
    await message.fill("a message that somebody selects")
    box = await message.bounding_box()
    assert box
    await page.mouse.move(box["x"] + 20, box["y"] + 12)
    await page.mouse.down()
    await page.mouse.move(2, 2)
    await page.mouse.up()
    await expect(message).to_have_value("a message that somebody selects")
    await page.mouse.click(2, 2)
    await expect(message).to_have_count(0)


async def test_job_opens_beside_the_list_and_follows_the_keys(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"beside-{token_hex(4)}"
    for number in (1, 2):
        await admin.wait(
            await admin.submit(metadata=titled(f"{title} {number}", {"fail": f"reason {number}"})), "failed"
        )
    await sign_in(page, engine, f"/jobs?q={title}")
    await expect(page.get_by_role("link", name=f"{title} 2")).to_be_visible()
    await page.keyboard.press("j")
    await page.keyboard.press("o")
    preview = page.get_by_role("complementary", name="Preview of the job")
    await expect(preview).to_contain_text("reason 2")
    await page.keyboard.press("j")
    await expect(preview).to_contain_text("reason 1")
    await page.reload()
    await expect(preview).to_contain_text("reason 1")
    await page.keyboard.press("Escape")
    await expect(preview).to_have_count(0)


async def test_keys_scroll_the_log_of_the_preview_that_has_the_focus(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    title = f"long-{token_hex(4)}"
    for number in (1, 2):
        steps = {"log": f"said by {number}", "times": 40}, {"fail": f"reason {number}"}
        await admin.wait(await admin.submit(metadata=titled(f"{title} {number}", *steps)), "failed")
    await sign_in(page, engine, f"/jobs?q={title}")
    await expect(page.get_by_role("link", name=f"{title} 2")).to_be_visible()
    await page.keyboard.press("j")
    await page.keyboard.press("o")
    log = page.get_by_role("region", name="End of the log")
    await expect(log).to_contain_text("said by 2")
    await log.focus()
    await page.keyboard.press("ArrowDown")
    await page.wait_for_function("log => log.scrollTop > 0", arg=await log.element_handle())
    await expect(log).to_contain_text("said by 2")


async def test_preview_covers_the_list_on_a_phone(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"on-a-phone-{token_hex(4)}"
    job = await admin.run(metadata=titled(title, {"result": "done, see the branch"}))
    await page.set_viewport_size(PHONE)
    await sign_in(page, engine, f"/jobs?q={title}&job={job['id']}")
    preview = page.get_by_role("complementary", name="Preview of the job")
    await expect(preview).to_contain_text("done, see the branch")
    await expect(page.get_by_role("row", name=title)).to_have_count(0)
    await preview.get_by_role("button", name="Close the preview").click()
    await expect(page.get_by_role("row", name=title)).to_be_visible()
    await expect(page).to_have_url(f"{engine.url}/jobs?q={title}")


async def test_preview_leaves_a_long_result_to_its_page(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run({"result": "word " * 9_000})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await sign_in(page, engine, f"/jobs?job={job['id']}")
    preview = page.get_by_role("complementary", name="Preview of the job")
    await expect(preview.get_by_role("link", name="Open the result")).to_be_visible()
    assert not [url for url in requests if url.endswith("/result")]
    await preview.get_by_role("link", name="Open the result").click()
    await expect(page.get_by_role("main")).to_contain_text("word word")


@pytest.mark.parametrize("path", ["/nothing", "/jobs/ir-00000000/activity"], ids=["page", "job"])
async def test_unknown_address_is_explained(browser: BrowserContext, engine: LocalEngine, path: str) -> None:
    page = await browser.new_page()  # a 404 of the API is an error on the console
    await sign_in(page, engine, path)
    await expect(page.get_by_text(re.compile("[Tt]here is no"))).to_be_visible()


async def test_overview_names_what_needs_attention(page: Page, engine: LocalEngine, admin: User) -> None:
    model, source = (f"{kind}-{token_hex(4)}" for kind in ("model", "source"))
    await admin.post("/api/ai-models", {"name": model, "provider": "mock", "model": model, "slots": 0})
    await admin.submit({"result": 1}, config={"model": model})
    await admin.post("/api/webhook-sources", {"name": source, "type": "github", "secret": "test-secret-of-a-source"})
    refused = await admin.http.post(f"/webhooks/{source}", content=b"{}", headers=github_headers("ping", b"{}"))
    assert refused.status_code == 401
    off = {"name": f"{source}-off", "type": "github", "secret": "test-secret-of-a-source", "enabled": False}
    assert (await admin.post("/api/webhook-sources", off)).status_code == 201
    await sign_in(page, engine)
    panel = page.get_by_role("region", name="Needs attention")
    await expect(panel).to_contain_text(f"mock/{model} has no slots, and 1 job waits.")
    await expect(panel).to_contain_text(f"{source} has refused 1 delivery in 24 h.")
    await expect(panel).not_to_contain_text(f"{source}-off")
    await panel.get_by_role("link", name=source).click()
    await expect(page).to_have_url(re.compile(rf"/sources/{source}\?outcome=refused$"))
    deliveries = page.get_by_role("region", name="Latest deliveries")
    await expect(deliveries.get_by_role("listitem")).to_contain_text("Refused")
