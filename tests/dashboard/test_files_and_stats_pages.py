"""Stories of the pages about files and statistics."""

import asyncio
import re
from secrets import token_hex
from typing import Any

import pytest
from playwright.async_api import BrowserContext, FilePayload, Page, Route, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in
from tests.support.pdfs import a_manual


async def test_pdf_is_uploaded_extracted_and_deleted(page: Page, engine: LocalEngine, admin: User) -> None:
    await sign_in(page, engine, "/files/pdfs")
    file: FilePayload = {"name": "report.pdf", "mimeType": "application/pdf", "buffer": a_manual()}
    await page.get_by_label("Drop PDFs here").set_input_files([file])
    row = page.get_by_role("row", name="report.pdf").filter(has=page.get_by_role("button", name="Extract"))
    await expect(row).to_be_visible()
    await row.get_by_role("button", name="Extract").click()
    await page.get_by_label("Prompt for each section").fill("Summarise it.")
    await page.get_by_label("Provider").select_option("mock")
    await page.get_by_role("button", name="Start extraction").click()
    await expect(page).to_have_url(re.compile("/jobs/ir-"))
    await expect(page.get_by_text("Completed", exact=True).first).to_be_visible()

    await page.goto(f"{engine.url}/files/pdfs")
    extractions = page.get_by_role("table", name="Extractions")
    await expect(extractions.get_by_role("row", name="report.pdf")).to_be_visible()
    await expect(extractions.get_by_role("link", name="Sections").first).to_have_attribute(
        "href", re.compile("/jobs/ir-.*/result")
    )
    await expect(page.get_by_role("link", name="All", exact=True)).to_have_attribute(
        "href", "/jobs?type=document-extraction"
    )
    await row.get_by_role("button", name="Delete report.pdf").click()
    await page.get_by_role("button", name="Delete the file").click()
    await expect(row).to_have_count(0)


async def test_file_that_is_no_pdf_is_refused_with_the_reason(browser: BrowserContext, engine: LocalEngine) -> None:
    page = await browser.new_page()  # the answer 415 is an error on the console
    await sign_in(page, engine, "/files/pdfs")
    file: FilePayload = {"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"plain text"}
    await page.get_by_label("Drop PDFs here").set_input_files([file])
    await expect(page.get_by_role("alert")).to_contain_text("The file is not a PDF")
    await page.get_by_role("button", name="Dismiss the failed upload").click()
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_workspace_file_is_dropped_downloaded_and_deleted(page: Page, engine: LocalEngine) -> None:
    await sign_in(page, engine, "/files/workspace")
    transfer = await page.evaluate_handle(
        "() => { const data = new DataTransfer(); data.items.add(new File(['a,b'], 'table.csv')); return data; }"
    )
    zone = page.get_by_text("Drop files here")
    await zone.dispatch_event("drop", {"dataTransfer": transfer})
    row = page.get_by_role("row", name="table.csv")
    async with page.expect_download() as downloading:
        await row.get_by_role("button", name="Download table.csv").click()
    download = await downloading.value
    assert (await download.path()).read_text() == "a,b"
    await row.get_by_role("button", name="Delete table.csv").click()
    await page.get_by_role("button", name="Delete the file").click()
    await expect(row).to_have_count(0)


async def test_stats_compare_models_and_keep_the_choice_in_the_url(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    usage = {"usage": {"inputTokens": 1000, "outputTokens": 500, "costUsd": 2.5, "turns": 1}}
    metadata = {"repo": "octocat/compared", "mock": {"steps": [usage, {"result": 1}]}}
    await admin.wait(await admin.submit(config={"model": "compared"}, metadata=metadata), "completed")
    await admin.wait(await admin.submit({"fail": "no"}, config={"model": "compared"}), "failed")
    await sign_in(page, engine, "/stats")
    row = page.get_by_role("table", name="By model").get_by_role("row", name="compared")
    await expect(row).to_contain_text("2")
    await expect(page.get_by_role("img", name="Ended jobs: ")).to_be_visible()
    await expect(page.get_by_role("region", name="Ended jobs")).to_contain_text("Failed")
    await expect(page.get_by_role("img", name="Cost: All jobs $2.50")).to_be_visible()

    await page.get_by_role("navigation", name="Split by").get_by_role("link", name="Repository").click()
    await page.get_by_role("navigation", name="Time").get_by_role("link", name="24h").click()
    await expect(page).to_have_url(re.compile("window=24h"))
    await page.reload()
    await expect(page.get_by_role("table", name="By repository")).to_contain_text("octocat/compared")
    await expect(page.get_by_role("region", name="Cost")).to_contain_text("octocat/compared")
    row = page.get_by_role("table", name="By repository").get_by_role("row", name="octocat/compared")
    await row.get_by_role("link", name="octocat/compared").click()
    await expect(page).to_have_url(re.compile("/jobs.repo=octocat%2Fcompared&ended=24h"))
    await expect(page.get_by_role("table", name="Jobs").get_by_role("row")).to_have_count(2)


async def test_sums_of_costs_say_that_some_are_unknown(page: Page, own_engine: LocalEngine, own_admin: User) -> None:
    for cost, model in ((2.5, "priced"), (None, "priced"), (None, "unpriced")):
        usage = {"usage": {"inputTokens": 1000, "costUsd": cost, "turns": 1}}
        await own_admin.run(usage, config={"model": model})
    await sign_in(page, own_engine)
    await expect(page.get_by_text("or more: 2 jobs without a known cost")).to_be_visible()
    await page.goto(f"{own_engine.url}/stats?by=model")
    models = page.get_by_role("table", name="By model")
    await expect(
        models.get_by_role("row").filter(has=page.get_by_role("link", name="priced", exact=True))
    ).to_contain_text("at least $2.50")
    await expect(models.get_by_role("row", name="unpriced")).to_contain_text("unknown")
    panel = page.get_by_role("region", name="Cost")
    await expect(panel.get_by_role("listitem")).to_contain_text("at least $2.50")
    await expect(panel).to_contain_text("2 jobs without a known cost are missing here.")


@pytest.mark.core
async def test_figures_of_stats_open_the_jobs_that_they_count(page: Page, engine: LocalEngine, admin: User) -> None:
    kind: dict[str, Any] = {"type": "counted", "config": {"model": "counted"}}
    for step in ({"result": 1}, {"fail": "no"}, {"fail": "no"}):
        await admin.run(step, **kind)
    await sign_in(page, engine, "/stats?by=type&window=24h")
    row = page.get_by_role("table", name="By type").get_by_role("row", name="counted")
    jobs = page.get_by_role("table", name="Jobs").get_by_role("row")
    for name, number in (("3", 3), ("2 (67 %)", 2)):
        await row.get_by_role("link", name=name, exact=True).click()
        await expect(page.get_by_role("link", name="Type: counted")).to_be_visible()
        await expect(jobs).to_have_count(1 + number)
        await page.go_back()

    await page.get_by_role("region", name="Ended jobs").get_by_role("link", name="counted").click()
    await expect(jobs).to_have_count(4)
    await page.get_by_role("link", name="Type: counted").click()
    await expect(page).to_have_url(re.compile("/jobs.ended=24h$"))


async def test_a_chosen_model_leaves_the_others_to_choose(page: Page, engine: LocalEngine, admin: User) -> None:
    for model in ("left", "left", "right"):
        await admin.run(config={"model": model})
    await sign_in(page, engine, "/jobs?model=left")
    choice = page.get_by_label("Model")
    await expect(choice.locator("option", has_text="left (2)")).to_have_count(1)
    await choice.select_option("right")
    await expect(page.get_by_role("table", name="Jobs").get_by_role("row")).to_have_count(2)


@pytest.mark.core
async def test_uploaded_file_is_chosen_for_a_new_job(page: Page, engine: LocalEngine) -> None:
    name = f"notes-{token_hex(4)}.txt"
    await sign_in(page, engine, "/files/workspace")
    await page.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "text/plain", "buffer": b"A note."}
    )
    await expect(page.get_by_role("button", name=f"Download {name}")).to_be_visible()
    await page.goto(f"{engine.url}/jobs/new")
    await page.get_by_label("Prompt").fill("Read the note.")
    await page.get_by_label("Provider").select_option("mock")
    await page.get_by_label("Uploaded files").select_option(label=f"{name}, 7 B")
    await expect(page.get_by_role("button", name=f"Leave out {name}")).to_be_visible()
    await page.get_by_role("button", name="Submit job").click()
    await page.get_by_role("link", name="Input").click()
    await expect(page.get_by_role("main")).to_contain_text(name)


async def test_sum_of_costs_is_shown_once_its_unknown_part_is_known(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    usage = {"inputTokens": 10, "outputTokens": 5, "costUsd": 1234.5, "turns": 1}
    await admin.run({"usage": usage}, {"result": 1})
    await sign_in(page, engine)  # an engine of several tests, whose jobs may cost something, too
    rows_may_come = asyncio.Event()

    async def hold(route: Route) -> None:
        await rows_may_come.wait()
        await route.continue_()

    await page.route("**/api/stats/breakdown*", hold)
    await page.goto(f"{engine.url}/stats")
    legend = page.get_by_role("region", name="Cost").get_by_role("listitem")
    await expect(legend.first).to_be_visible()
    await expect(legend.first).not_to_contain_text("$")
    rows_may_come.set()
    await expect(legend.first).to_contain_text(re.compile(r"\$[\d,]+\.\d\d"))
