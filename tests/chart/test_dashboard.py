"""Stories of the dashboard in a real browser, on an engine that was installed by the chart."""

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import BrowserContext, expect

from tests.acceptance.conftest import ON_A_CLUSTER
from tests.acceptance.engine import User
from tests.chart.engine import InstalledEngine
from tests.chart.installation import Installation
from tests.chart.test_webhooks import is_true, name, receiver_of, until
from tests.dashboard.conftest import anyio_backend, browser, chromium, page, sign_in
from tests.dashboard.test_job_page import (
    test_changes_are_shown_by_file,
    test_running_job_is_cancelled_after_a_question,
    test_submitted_job_is_shown_live_to_its_result,
)
from tests.dashboard.test_stories import test_login_returns_to_the_wanted_page_also_in_another_tab
from tests.support.deliveries import SECRET

__all__ = [
    "anyio_backend",
    "browser",
    "chromium",
    "name",
    "page",
    "test_changes_are_shown_by_file",
    "test_login_returns_to_the_wanted_page_also_in_another_tab",
    "test_running_job_is_cancelled_after_a_question",
    "test_submitted_job_is_shown_live_to_its_result",
]

pytestmark = list(ON_A_CLUSTER)


@pytest.fixture(scope="module")
def engine(installation: Installation) -> Iterator[InstalledEngine]:
    with installation.service() as url:
        yield InstalledEngine(installation, url)


@pytest.fixture
async def admin(engine: InstalledEngine) -> AsyncIterator[User]:
    async with engine.admin() as admin:
        yield admin
        await admin.end_jobs()


async def test_source_gets_a_receiver_and_shows_its_deliveries(
    browser: BrowserContext, engine: InstalledEngine, installation: Installation, admin: User, name: str
) -> None:
    page = await browser.new_page()  # a replica that does not know the new source yet answers 404
    await sign_in(page, engine, "/sources")
    await page.get_by_role("button", name="New source").first.click()
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Signing secret").fill(SECRET)
    await page.get_by_role("button", name="Create source").click()
    await page.get_by_role("dialog", name=f"{name} is created").get_by_role("button", name="Done").click()
    await until(admin, name, is_true("Ready"))
    await page.reload()
    await expect(page.get_by_text(f"http://labrats-webhook-{name}.")).to_be_visible()

    async with receiver_of(installation, name) as deliver:
        answer = await deliver()
    assert answer.status_code == 200, answer.text
    (job,) = answer.json()["jobs"]
    delivery = page.get_by_role("region", name="Latest deliveries").get_by_role("listitem")
    await expect(delivery).to_contain_text("issues.labeled")
    await expect(delivery.get_by_role("link", name=job["jobId"])).to_be_visible()
