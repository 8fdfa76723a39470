"""Actions on selected jobs, and on all jobs that match the filters of the list."""

import asyncio
from secrets import token_hex
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in


def titled(title: str, *steps: Any) -> dict[str, Any]:
    return {"title": title, "mock": {"steps": list(steps)}}


FAILS_ONCE = ({"onAttempt": 1, "steps": [{"fail": "no"}]}, {"result": "done"})


@pytest.mark.core
async def test_selected_jobs_are_cancelled_together(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"one-of-three-{token_hex(4)}"
    for _ in range(3):
        await admin.submit(metadata=titled(title, {"hang": True}))
    await sign_in(page, engine, f"/jobs?q={title}")
    boxes = page.get_by_role("checkbox", name=title)
    await expect(boxes).to_have_count(3)
    await boxes.nth(0).click()
    await boxes.nth(2).click(modifiers=["Shift"])
    await page.get_by_role("button", name="Cancel 3", exact=True).click()
    await page.get_by_role("button", name="Cancel 3 jobs").click()
    await expect(page.get_by_role("cell", name="Cancelled")).to_have_count(3)


async def test_keys_select_jobs_and_ranges(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"by-keys-{token_hex(4)}"
    for number in range(4):
        await admin.run(metadata=titled(f"{title} {number}", {"result": 1}))
    await sign_in(page, engine, f"/jobs?q={title}")
    await expect(page.get_by_role("row", name=title)).to_have_count(4)
    bar = page.get_by_role("toolbar", name="Selected jobs")
    for key in ("j", "x", "j", "j", "Shift+X"):
        await page.keyboard.press(key)
    await expect(bar).to_contain_text("3 selected")
    await page.keyboard.press("x")
    await expect(bar).to_contain_text("2 selected")
    await expect(page.get_by_role("checkbox", name="Select all loaded jobs")).to_have_js_property("indeterminate", True)
    await page.keyboard.press("a")
    await expect(bar).to_contain_text("4 selected")
    await page.keyboard.press("Escape")
    await expect(bar).to_have_count(0)


async def test_all_matching_jobs_are_retried_by_the_engine(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"all-of-five-{token_hex(4)}"
    jobs = [await admin.submit(metadata=titled(title, *FAILS_ONCE)) for _ in range(5)]
    for job in jobs:
        await admin.wait(job, "failed")
    await sign_in(page, engine, f"/jobs?q={title}")

    await page.get_by_role("button", name="Retry 5 failed").click()
    dialog = page.get_by_role("dialog", name="All jobs that match")
    await expect(dialog.get_by_role("radio", name="Retry 5 failed jobs")).to_be_checked()
    await dialog.get_by_role("button", name="Retry 5 jobs").click()

    await expect(page.get_by_text("5 jobs queued again.")).to_be_visible()
    await expect(page.get_by_role("cell", name="Completed")).to_have_count(5)
    await expect(page.get_by_role("button", name="Retry 5 failed")).to_have_count(0)
    assert {(await admin.job(job))["attempts"] for job in jobs} == {2}


async def test_progress_of_an_action_is_shown_again_after_a_reload(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    title = f"acted-on-{token_hex(4)}"
    failed, _ = [await admin.run(metadata=titled(title, step)) for step in ({"fail": "no"}, {"result": 1})]
    filters = {"q": title, "status": ["failed", "completed"]}
    while (
        answer := await admin.post("/api/jobs/bulk", {"action": "retry", "filter": filters, "expected": 2})
    ).is_error:
        await page.wait_for_timeout(50)  # until the index has the jobs

    await sign_in(page, engine, f"/jobs?q={title}&bulk={answer.json()['id']}")

    await expect(page.get_by_text("1 of 2 jobs queued again. The others had been retried or deleted")).to_be_visible()
    await expect(page).to_have_url(f"{engine.url}/jobs?q={title}")
    assert (await admin.wait(failed["id"], "failed"))["attempts"] == 2


async def test_selection_extends_to_all_matching_jobs(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"every-one-{token_hex(4)}"
    model = {"model": "waits-for-slots"}
    await admin.post("/api/ai-models", {"name": "waits", "provider": "mock", "model": model["model"], "slots": 0})
    await admin.wait(await admin.submit(metadata=titled(title, {"fail": "no"})), "failed")
    waiting = [await admin.submit(config=model, metadata=titled(title)) for _ in range(3)]
    await sign_in(page, engine, f"/jobs?q={title}")
    await page.get_by_role("checkbox", name=title).first.click()

    await page.get_by_role("button", name="All 4…").click()
    dialog = page.get_by_role("dialog", name="All jobs that match")
    await dialog.get_by_role("radio", name="Cancel 3 waiting and running jobs").check()
    await dialog.get_by_role("button", name="Cancel 3 jobs").click()

    await expect(page.get_by_role("cell", name="Cancelled")).to_have_count(3)
    await expect(page.get_by_role("cell", name="Failed: agent error")).to_have_count(1)
    assert {(await admin.job(job))["status"] for job in waiting} == {"cancelled"}


async def test_status_filter_restricts_the_action(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"of-two-kinds-{token_hex(4)}"
    await admin.wait(await admin.submit(metadata=titled(title, {"fail": "no"})), "failed")
    await admin.wait(await admin.submit(metadata=titled(title, {"hang": True})), "active")
    await sign_in(page, engine, f"/jobs?status=active&q={title}")
    await page.get_by_role("button", name="Cancel 1…").click()
    dialog = page.get_by_role("dialog", name="All jobs that match")
    await expect(dialog.get_by_role("radio")).to_have_count(1)
    await dialog.get_by_role("button", name="Cancel 1 job", exact=True).click()
    await expect(page.get_by_role("heading", name="No job matches")).to_be_visible()


async def test_changed_number_is_shown_before_anything_happens(
    browser: BrowserContext, engine: LocalEngine, admin: User
) -> None:
    title = f"one-more-{token_hex(4)}"
    page = await browser.new_page()  # the refusal and the missing feed are errors on the console
    await page.route("**/api/changes", lambda route: route.abort())
    first = await admin.submit(metadata=titled(title, {"fail": "no"}))
    await admin.wait(first, "failed")
    await sign_in(page, engine, f"/jobs?q={title}")
    await page.get_by_role("button", name="Retry 1 failed").click()
    await expect(page.get_by_role("button", name="Retry 1 job", exact=True)).to_be_enabled()
    await admin.wait(await admin.submit(metadata=titled(title, {"fail": "no"})), "failed")

    await page.get_by_role("button", name="Retry 1 job", exact=True).click()

    await expect(page.get_by_role("alert")).to_contain_text("is 2 by now, not 1")
    await expect(page.get_by_role("button", name="Retry 2 jobs")).to_be_enabled()
    assert (await admin.job(first))["attempts"] == 1


async def test_no_selected_job_is_forgotten_when_new_ones_arrive(page: Page, engine: LocalEngine, admin: User) -> None:
    model = f"selected-{token_hex(4)}"
    await admin.post("/api/ai-models", {"name": model, "provider": "mock", "model": model, "slots": 0})
    for _ in range(31):
        await asyncio.gather(*(admin.submit(config={"model": model}) for _ in range(10)))
    await sign_in(page, engine, f"/jobs?model={model}")
    await expect(page.get_by_role("button", name="Waiting 310")).to_be_visible()
    selected = page.get_by_role("toolbar", name="Selected jobs")
    while not await selected.get_by_text("310 selected").is_visible():  # the pages follow one by one
        await page.keyboard.press("End")
        await page.keyboard.press("a")
        await page.wait_for_timeout(50)
    await page.keyboard.press("Home")
    await expect(page.locator("tr[aria-rowindex='2']")).to_be_visible()

    job = await admin.submit(config={"model": model}, metadata={"title": "one more"})

    await expect(page.get_by_role("link", name="one more")).to_have_attribute("href", f"/jobs/{job}/activity")
    await expect(selected).to_contain_text("310 selected")
