"""The pause of the whole engine, in a browser."""

from playwright.async_api import Page, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in


async def test_engine_is_paused_stopped_and_resumed(page: Page, own_engine: LocalEngine, own_admin: User) -> None:
    running = await own_admin.submit({"hang": True})
    await own_admin.wait(running, "active")
    await sign_in(page, own_engine, "/settings/system")

    await page.get_by_role("button", name="Pause…").click()
    await page.get_by_role("textbox", name="Reason").fill("the bill")
    await page.get_by_role("button", name="Pause", exact=True).click()
    banner = page.get_by_text("No job starts until somebody resumes it.")
    await expect(banner).to_contain_text("the bill")
    waiting = await own_admin.submit()
    await page.get_by_role("button", name="Stop everything…").click()
    await page.get_by_role("button", name="Pause and cancel all jobs").click()
    ended = [await own_admin.wait(job_id) for job_id in (running, waiting)]
    await page.get_by_role("button", name="Resume").click()
    await expect(banner).to_have_count(0)

    assert [job["status"] for job in ended] == ["cancelled"] * 2
    assert (await own_admin.run())["status"] == "completed"
