"""Questions that users answer in the dashboard, in a real browser at a real engine."""

import json
import re
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.acceptance.engine import PATIENCE_SECONDS, LocalEngine, User
from tests.dashboard.conftest import sign_in


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
    await other.goto(await engine.login_link())

    await expect(other).to_have_url(f"{engine.url}/jobs?status=failed")
    await expect(other.get_by_role("button", name="Failed")).to_have_attribute("aria-pressed", "true")


async def test_user_signs_out(page: Page, engine: LocalEngine) -> None:
    await sign_in(page, engine)
    await page.get_by_role("button", name="Account").click()
    await page.get_by_role("menuitem", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in to Labrats")).to_be_visible()
    await page.goto(f"{engine.url}/jobs")
    await expect(page).to_have_url(re.compile("/login"))


async def test_submitted_job_is_shown_live_to_its_result(page: Page, engine: LocalEngine, admin: User) -> None:
    await sign_in(page, engine, "/jobs/new")
    await page.get_by_label("Prompt").fill("Find the cheese.\nBe quick.")
    await page.get_by_label("Provider").select_option("mock")
    steps = [{"log": "line {n}", "times": 20, "everyMs": 100}, {"result": "**Behind** the third door."}]
    await page.get_by_label("Metadata").fill(json.dumps({"mock": {"steps": steps}}))
    await page.get_by_role("button", name="Submit job").click()

    await expect(page.get_by_role("heading", name="Find the cheese.")).to_be_visible()
    await expect(page.get_by_text("line 2", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Log", exact=True).click()
    await expect(page.get_by_text("line 20", exact=True)).to_be_visible()
    await expect(page.get_by_text("Completed", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Result").click()
    await expect(page.locator("strong", has_text="Behind")).to_be_visible()


async def test_running_job_is_cancelled_after_a_question(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.submit({"log": "begun"}, {"hang": True})
    await sign_in(page, engine, f"/jobs/{job}")
    await expect(page.get_by_text("begun")).to_be_visible()
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Cancel the job").click()
    await expect(page.get_by_text("Cancelled", exact=True)).to_be_visible()


async def test_failure_is_explained_and_retried_as_a_second_attempt(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    second = {"onAttempt": 2, "steps": [{"log": "second time"}, {"result": "ok"}]}
    first = {"onAttempt": 1, "steps": [{"log": "first time"}, {"fail": "the tests fail: 3 of 81"}]}
    job = await admin.submit(first, second)
    await admin.wait(job, "failed")
    await sign_in(page, engine, f"/jobs/{job}")
    failure = page.get_by_role("group", name="Failure")
    await expect(failure).to_contain_text("the tests fail: 3 of 81")
    await expect(failure).to_contain_text("agent_error")
    await expect(failure).to_contain_text("starts over")

    await page.get_by_role("button", name="Retry").click()
    await expect(page.get_by_text("second time")).to_be_visible()
    await expect(page.get_by_text("Completed", exact=True)).to_be_visible()
    await page.keyboard.press("[")
    await expect(page.get_by_text("first time")).to_be_visible()
    await expect(page).to_have_url(re.compile("attempt=1"))
    await expect(page.get_by_role("button", name="Attempt 1")).to_contain_text("agent error")


async def test_filters_survive_a_reload_and_lead_to_the_jobs(page: Page, engine: LocalEngine, admin: User) -> None:
    marker = "needle in the haystack"
    await admin.wait(await admin.submit(metadata=titled(marker, {"fail": "no"})), "failed")
    await admin.run(metadata=titled(marker, {"result": 1}))
    await sign_in(page, engine, "/jobs")
    await page.get_by_role("searchbox").fill(marker)
    await expect(page).to_have_url(re.compile("q=needle"))
    await page.get_by_role("button", name="Failed").click()
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
    await admin.run(metadata=titled("despite nonsense", {"result": 1}))
    await sign_in(page, engine, "/jobs?status=lost&window=2y&sort=up&other=1&q=despite+nonsense")
    await expect(page.get_by_role("link", name="despite nonsense")).to_be_visible()
    await page.get_by_role("link", name="despite nonsense").click()
    await expect(page).to_have_url(re.compile("/activity$"))


async def test_new_and_changed_jobs_appear_in_the_open_list(page: Page, engine: LocalEngine, admin: User) -> None:
    await sign_in(page, engine, "/jobs?q=appears+by+itself")
    await expect(page.get_by_role("heading", name="No job matches")).to_be_visible()
    job = await admin.submit(metadata=titled("appears by itself", {"log": "x"}, {"hang": True}))
    row = page.get_by_role("row", name="appears by itself")
    await expect(row).to_contain_text("Running")
    await admin.cancel(job)
    await expect(row).to_contain_text("Cancelled")


async def test_selected_jobs_are_cancelled_together(page: Page, engine: LocalEngine, admin: User) -> None:
    for _ in range(3):
        await admin.submit(metadata=titled("one of three", {"hang": True}))
    await sign_in(page, engine, "/jobs?q=one+of+three")
    boxes = page.get_by_role("checkbox", name="one of three")
    await expect(boxes).to_have_count(3)
    await boxes.nth(0).click()
    await boxes.nth(2).click(modifiers=["Shift"])
    await page.get_by_role("button", name="Cancel 3").click()
    await page.get_by_role("button", name="Cancel 3 jobs").click()
    await expect(page.get_by_role("cell", name="Cancelled")).to_have_count(3)


async def test_any_line_of_a_long_log_is_one_step_away(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run({"log": "line number {n}", "times": 5000}, {"log": "the needle"}, {"result": 1})
    await sign_in(page, engine, f"/jobs/{job['id']}/log")
    await expect(page.get_by_text("the needle")).to_be_visible()
    await page.get_by_label("Go to line").fill("2502")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("line number 2500", exact=True)).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("line number 2500", exact=True)).to_be_visible()
    assert await page.locator("[data-kind]").count() < 200

    await page.get_by_label("Search the log").fill("number 4999")
    await expect(page.get_by_text("1", exact=True)).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.locator("mark")).to_have_text("number 4999")
    await page.get_by_label("Search the log").fill("not in the log")
    await expect(page.get_by_text("No hits")).to_be_visible()


async def test_log_resumes_after_a_crash_of_the_engine_with_each_line_once(
    browser: BrowserContext, own_engine: LocalEngine
) -> None:
    page = await browser.new_page()  # lost connections are errors on the console
    await page.set_viewport_size({"width": 1280, "height": 2000})
    async with own_engine.admin() as admin:
        job = await admin.submit({"log": "line {n} of 60", "times": 60, "everyMs": 100}, {"result": 1})
    await sign_in(page, own_engine, f"/jobs/{job}/log")
    await expect(page.get_by_text("line 5 of 60")).to_be_visible()
    own_engine.kill()
    await expect(page.get_by_text("Reconnecting…").first).to_be_visible()
    own_engine.start()
    await expect(page.get_by_text("line 60 of 60")).to_be_visible(timeout=PATIENCE_SECONDS * 1000)
    await expect(page.get_by_text("Completed", exact=True)).to_be_visible()
    await page.get_by_role("region", name="Log of attempt 1").press("Home")
    lines = await page.get_by_text(re.compile("^line [0-9]+ of 60$")).all_inner_texts()
    assert lines == [f"line {number} of 60" for number in range(1, 61)]


async def test_changes_are_shown_by_file(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run(
        {"write": {"path": "src/a.txt", "text": "one\ntwo\n"}},
        {"write": {"path": "package-lock.json", "text": "{}\n"}},
        {"result": 1},
    )
    await sign_in(page, engine, f"/jobs/{job['id']}/changes")
    await expect(page.get_by_role("region", name="Changes of src/a.txt")).to_contain_text("two")
    lock = page.get_by_role("region", name="package-lock.json", exact=True)
    await expect(lock).to_contain_text("generated")
    await lock.get_by_role("button").click()
    await expect(lock).to_contain_text("{}")
    await page.get_by_role("button", name="Split").click()
    await expect(page).to_have_url(re.compile("view=split"))


async def test_ended_session_keeps_the_draft(page: Page, browser: BrowserContext, engine: LocalEngine) -> None:
    await sign_in(page, engine, "/jobs/new")
    await page.get_by_label("Prompt").fill("a long text")
    await browser.clear_cookies()
    await page.reload()
    await expect(page).to_have_url(re.compile("/login"))
    await page.goto(await engine.login_link())
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


async def test_rerun_repeats_a_job_with_other_settings(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run(
        {"result": 1}, config={"provider": "mock", "maxTurns": 7}, type="code-review", prompt="Do it."
    )
    await sign_in(page, engine, f"/jobs/{job['id']}")
    await page.get_by_role("link", name="Rerun").click()
    await expect(page.get_by_label("Prompt")).to_have_value("Do it.")
    await expect(page.get_by_label("Turns")).to_have_value("7")
    await page.get_by_label("Model", exact=True).fill("another")
    await page.get_by_role("button", name="Run again").click()
    await expect(page.get_by_text(f"rerun of {job['id']}")).to_be_visible()
    await expect(page.get_by_text("mock/another")).to_be_visible()
    await page.get_by_role("link", name="Input").click()
    await expect(page.get_by_role("region", name="Prompt", exact=True)).to_contain_text("Do it.")
    await expect(page.get_by_text("code-review").first).to_be_visible()


async def test_waiting_job_names_its_place_and_the_holders_of_the_slots(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    config = {"provider": "mock", "model": "one-slot"}
    model = {"name": "one-slot", "provider": "mock", "model": "one-slot", "slots": 1}
    assert (await admin.post("/api/ai-models", model)).status_code == 201
    holder = await admin.submit({"hang": True}, config=config)
    await admin.wait(holder, "active")
    first, second = [await admin.submit({"result": 1}, config=config) for _ in range(2)]
    await sign_in(page, engine, f"/jobs/{second}")
    waiting = page.get_by_role("group", name="Waiting")
    await expect(waiting).to_contain_text("2nd in line for mock/one-slot: 1 of 1 slot is busy.")
    await expect(waiting.get_by_role("link", name=holder)).to_be_visible()
    await admin.post(f"/api/jobs/{first}/cancel")
    await expect(waiting).to_contain_text("Next for mock/one-slot")
    await page.goto(engine.url)
    models = page.get_by_role("region", name="Models")
    await expect(models.get_by_role("listitem").filter(has_text="mock/one-slot")).to_contain_text("1 waiting")
    await admin.post(f"/api/jobs/{holder}/cancel")
    await expect(models.get_by_role("listitem").filter(has_text="mock/one-slot")).to_contain_text("0 waiting")


async def test_chain_is_shown_as_the_path_of_its_agents(page: Page, engine: LocalEngine, admin: User) -> None:
    for name, following in (("tidy-first", "tidy-second"), ("tidy-second", None)):
        trigger: dict[str, Any] = {"source": "tests", "events": ["tidied"], "enabled": following is not None}
        trigger |= {"next": {"agentTriggerName": following}} if following else {}
        agent = {"name": name, "triggerName": name, "defaultProvider": "mock", "eventTriggers": [trigger]}
        assert (await admin.post("/api/agents", agent)).status_code == 201
    event = await admin.post("/api/events/ingest", {"source": "tests", "event": "tidied", "payload": {}})
    await sign_in(page, engine, f"/jobs/{event.json()['jobs'][0]['jobId']}")
    chain = page.get_by_role("listitem").filter(has_text="tidy-")
    await expect(chain).to_have_text(["tidy-first: Completed", "tidy-second: Completed"])
    await page.get_by_role("link", name="tidy-second").click()
    await expect(page.locator("[aria-current=step]")).to_contain_text("tidy-second")


async def test_keyboard_alone_opens_pages_jobs_and_search(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run(metadata=titled("opened by keys", {"result": 1}))
    await sign_in(page, engine)
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    await page.keyboard.press("g")
    await page.keyboard.press("j")
    await expect(page.get_by_role("link", name="opened by keys")).to_be_visible()
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
    await page.keyboard.type(job["id"])
    await expect(page.get_by_role("option", name="opened by keys")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_job_opens_beside_the_list_and_follows_the_keys(page: Page, engine: LocalEngine, admin: User) -> None:
    for number in (1, 2):
        await admin.wait(
            await admin.submit(metadata=titled(f"beside {number}", {"fail": f"reason {number}"})), "failed"
        )
    await sign_in(page, engine, "/jobs?q=beside")
    await expect(page.get_by_role("link", name="beside 2")).to_be_visible()
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


@pytest.mark.parametrize("path", ["/nothing", "/jobs/ir-00000000/activity"], ids=["page", "job"])
async def test_unknown_address_is_explained(browser: BrowserContext, engine: LocalEngine, path: str) -> None:
    page = await browser.new_page()  # a 404 of the API is an error on the console
    await sign_in(page, engine, path)
    await expect(page.get_by_text(re.compile("[Tt]here is no"))).to_be_visible()
