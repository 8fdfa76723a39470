"""Stories of the pages about models: slots, pauses, and the files of local models."""

import re

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.acceptance.engine import LocalEngine, User
from tests.dashboard.conftest import sign_in


@pytest.mark.core
async def test_model_is_created_and_its_slots_change(page: Page, engine: LocalEngine, admin: User) -> None:
    await sign_in(page, engine, "/models")
    await page.get_by_role("button", name="New model").first.click()
    await page.get_by_label("Provider").select_option("mock")
    await page.get_by_label("Model", exact=True).fill("story")
    await page.get_by_role("button", name="Create model").click()
    await expect(page.get_by_label("Name")).to_be_focused()
    await page.get_by_label("Name").fill("mock-story")
    await page.get_by_label("Output").fill("25")
    await page.get_by_role("button", name="Create model").click()
    row = page.get_by_role("listitem", name="mock/story")
    await expect(row).to_contain_text("0 of 4 slots busy")
    await expect(row).to_contain_text("$0 in, $25 out")

    await row.get_by_role("combobox").select_option("2")
    await expect(row).to_contain_text("0 of 2 slots busy")
    assert (await admin.get("/api/ai-models/mock-story")).json()["slots"] == 2

    await row.get_by_role("button", name="Pause mock-story").click()
    await expect(row).to_contain_text("Paused: it has 0 slots")
    await row.get_by_role("button", name="Resume, 2 slots").click()
    await expect(row).to_contain_text("0 of 2 slots busy")

    await row.get_by_role("button", name="Edit mock-story").click()
    await page.get_by_role("button", name="Remove…").click()
    await page.get_by_role("button", name="Remove the model").click()
    await expect(row).to_have_count(0)
    assert (await admin.get("/api/ai-models/mock-story")).status_code == 404


async def test_load_of_an_implicit_model_is_shown_and_it_becomes_a_model(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    for _ in range(5):
        await admin.submit({"hang": True}, config={"model": "busy"})
    await sign_in(page, engine, "/models")
    row = page.get_by_role("listitem", name="mock/busy")
    await expect(row).to_contain_text("4 of 4 slots busy")
    await expect(row).to_contain_text("Implicit, with 4 default slots")
    await expect(row.get_by_role("link", name="1")).to_have_attribute("href", "/jobs?status=waiting&model=busy")

    await row.get_by_role("button", name="Make it a model").click()
    await expect(page.get_by_label("Name")).to_have_value("mock-busy")
    await page.get_by_role("textbox", name="Slots").fill("5")
    await page.get_by_role("button", name="Create model").click()

    await expect(row).to_contain_text("5 of 5 slots busy")
    await expect(row.get_by_role("button", name="Edit mock-busy")).to_be_visible()


async def test_changes_of_others_are_merged_field_by_field(
    browser: BrowserContext, engine: LocalEngine, admin: User
) -> None:
    page = await browser.new_page()  # the answer 409 is an error on the console
    await admin.post("/api/ai-models", {"name": "contested", "provider": "mock", "model": "contested", "slots": 3})
    await sign_in(page, engine, "/models?edit=contested")
    await expect(page.get_by_role("textbox", name="Slots")).to_have_value("3")
    await page.get_by_role("textbox", name="Slots").fill("6")
    await page.get_by_label("Input").fill("2")
    await admin.http.patch("/api/ai-models/contested", json={"slots": 8, "endpoint": "http://10.0.0.5:8000/v1"})
    await page.get_by_role("button", name="Save").click()

    meanwhile = page.get_by_role("alert", name="Changed meanwhile")
    await expect(meanwhile).to_contain_text("Address of the server")
    await expect(page.get_by_label("Address of the server")).to_have_value("http://10.0.0.5:8000/v1")
    await expect(page.get_by_role("textbox", name="Slots")).to_have_value("6")
    await page.reload()
    await expect(page.get_by_role("textbox", name="Slots")).to_have_value("6")
    await meanwhile.get_by_role("button", name="Theirs 8").click()
    await expect(page.get_by_role("textbox", name="Slots")).to_have_value("8")
    await page.get_by_role("button", name="Save").click()

    await expect(page.get_by_role("dialog")).to_have_count(0)
    saved = (await admin.get("/api/ai-models/contested")).json()
    assert (saved["slots"], saved["endpoint"], saved["prices"]["input"]) == (8, "http://10.0.0.5:8000/v1", 2)


async def test_slots_that_others_changed_meanwhile_are_not_overwritten(
    browser: BrowserContext, engine: LocalEngine, admin: User
) -> None:
    page = await browser.new_page()  # the answer 409 is an error on the console
    await admin.post("/api/ai-models", {"name": "raced", "provider": "mock", "model": "raced", "slots": 3})
    await sign_in(page, engine, "/models")
    slots = page.get_by_role("listitem", name="mock/raced").get_by_role("combobox")
    await expect(slots).to_have_value("3")
    await page.route(re.compile("/api/(ai-models|queue)$"), lambda route: route.abort())  # no refresh
    await admin.http.patch("/api/ai-models/raced", json={"slots": 8})
    await slots.select_option("1")
    await expect(page.get_by_text("slots is 8 now")).to_be_visible()
    assert (await admin.get("/api/ai-models/raced")).json()["slots"] == 8


async def test_invalid_values_are_explained_at_their_fields(
    browser: BrowserContext, engine: LocalEngine, admin: User
) -> None:
    page = await browser.new_page()  # the answers 422 and 409 are errors on the console
    await admin.post("/api/ai-models", {"name": "taken", "provider": "mock", "model": "taken"})
    await sign_in(page, engine, "/models?create=/")
    await page.get_by_label("Provider").select_option("mock")
    await page.get_by_label("Model", exact=True).fill("taken")
    await page.get_by_label("Name").fill("Not a name")
    await page.get_by_label("Address of the server").fill("ftp://x")
    await page.get_by_role("button", name="Create model").click()
    await expect(page.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("Address of the server")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Name").fill("other")
    await page.get_by_label("Address of the server").fill("")
    await page.get_by_role("button", name="Create model").click()
    await expect(page.get_by_label("Model", exact=True)).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_text("already has the provider mock and the model taken").first).to_be_visible()


async def test_file_is_downloaded_and_deleted(page: Page, engine: LocalEngine, admin: User) -> None:
    folder = engine.data_dir / "models" / "qwen"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "old.gguf").write_bytes(b"x" * 2048)
    file = {"filename": "new.gguf", "url": "http://127.0.0.1:9/new.gguf"}
    await admin.http.put("/api/config/defaults", json={"providers": {"qwen": {"model": "small", "files": [file]}}})
    await sign_in(page, engine, "/models/files")
    old, new = page.get_by_role("row", name="old.gguf"), page.get_by_role("row", name="new.gguf").first
    await expect(old).to_contain_text("not in the settings")
    await expect(old).to_contain_text("2 KiB")
    await expect(new).to_contain_text("Not downloaded")

    await new.get_by_role("button", name="Download").click()
    operations = page.get_by_role("table", name="Downloads and deletions")
    await expect(operations.get_by_role("row", name="new.gguf")).to_contain_text("Failed")
    await operations.get_by_role("row", name="new.gguf").get_by_role("button", name="Log").click()
    await expect(page.get_by_role("dialog")).to_contain_text("127.0.0.1")
    await page.keyboard.press("Escape")

    await old.get_by_role("button", name="Delete old.gguf").click()
    await page.get_by_role("button", name="Delete the file").click()
    await expect(operations.get_by_role("row", name="old.gguf")).to_contain_text("Completed")
    await expect(page.get_by_role("table", name="Files").get_by_role("row", name="old.gguf")).to_have_count(0)
    assert not (folder / "old.gguf").exists()
