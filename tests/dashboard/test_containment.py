"""Network rules, isolation, setup commands, caches and variables: set in forms, and shown with what was refused."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.acceptance.engine import ForkedEngine, LocalEngine, User
from tests.dashboard.conftest import sign_in
from tests.support.claude_login import share_login
from tests.support.deliveries import SECRET

LOGIN = "test-login-of-claude-0123456789"
FORBIDDEN = "forbidden.example.com:80"
AGENT = f"""#!/bin/bash
echo '{{"type": "system", "subtype": "init", "session_id": "0190-test"}}'
curl --silent --max-time 10 http://{FORBIDDEN}/ > /dev/null
echo '{{"type": "result", "subtype": "success", "is_error": false, "result": "done"}}'
"""
"""A program in place of Claude Code that asks for a host."""

SETUP = {
    "setup": [["sh", "-c", "mkdir -p libraries && echo ready"]],
    "setupTimeoutMs": 90_000,
    "setupNetwork": {"allow": ["npm"]},
    "cache": [{"key": "lock.txt", "path": "libraries"}],
}
ENV = {"CI": "1", "NPM_TOKEN": {"secret": "npm", "key": "token"}}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine whose agents have a login of Claude Code, which no proxy can keep from them."""
    program = tmp_path / "programs" / "claude"
    program.parent.mkdir()
    program.write_text(AGENT)
    program.chmod(0o755)
    environment = {"LABRATS_CLAUDE_PATH": str(program), "LABRATS_SANDBOX": "true", **share_login(tmp_path, LOGIN)}
    with ForkedEngine(tmp_path, **environment, LOCAL_REPO_ROOTS=str(tmp_path)) as engine:
        engine.set_secret("npm", "token", "test-npm-token-0123456789")
        yield engine


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "lock.txt").write_text("1\n")
    git = ("git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.com")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run([*git, *arguments], check=True)
    return folder


async def fill_variables(part: Page | Locator) -> None:
    """Fill in `ENV`."""
    await part.get_by_role("button", name="Add variable").click()
    await part.get_by_label("Name of variable 1").fill("CI")
    await part.get_by_label("Text of variable 1").fill("1")
    await part.get_by_role("button", name="Add variable").click()
    await part.get_by_label("Name of variable 2").fill("NPM_TOKEN")
    await part.get_by_label("Kind of variable 2").select_option("Secret")
    await part.get_by_label("Secret of variable 2").fill("npm")
    await part.get_by_label("Key of variable 2").fill("token")


@pytest.mark.core
async def test_job_is_contained_as_its_form_says_and_shows_what_was_refused(
    page: Page, engine: LocalEngine, admin: User, repository: Path
) -> None:
    await sign_in(page, engine, "/jobs/new")
    await page.get_by_label("Prompt").fill("Ask for a host.")
    await page.get_by_label("Provider").select_option("claude")
    await page.get_by_label("Network", exact=True).fill("npm, *.example.org")
    await page.get_by_label("Isolation, at least").select_option("sandbox")
    await page.get_by_label("Address").fill(str(repository))
    await page.get_by_label("Setup commands").fill("sh -c 'mkdir -p libraries && echo ready'")
    await page.get_by_label("Network of the commands").fill("npm")
    await page.get_by_label("Time of the commands, minutes").fill("1.5")
    await page.get_by_label("Cached folders").fill("lock.txt: libraries")
    await fill_variables(page)
    await page.get_by_role("button", name="Submit job").click()

    main = page.get_by_role("main")
    await expect(main).to_contain_text(f"The network rule refused 1 host: {FORBIDDEN}")
    await expect(main).to_contain_text("The agent could read the login of its model.")
    job = await admin.job(page.url.split("/")[-2])
    assert job["config"]["network"] == {"allow": ["npm", "*.example.org"]}
    assert job["config"]["env"] == ENV
    assert (job["config"]["isolation"], job["refusedHosts"], job["keyExposed"]) == ("sandbox", [FORBIDDEN], True)
    assert job["workspaceSetup"].items() >= SETUP.items()

    await page.get_by_role("link", name="Log", exact=True).click()
    await expect(main).to_contain_text(f"[network: {FORBIDDEN} refused: the network rule does not allow it]")
    await expect(main).to_contain_text("host refused: forbidden.example.com, port 80: the network rule")

    await page.get_by_role("link", name="Input").click()
    await expect(page.get_by_role("row", name="Network npm, *.example.org request")).to_be_visible()
    await expect(page.get_by_role("row", name="Isolation, at least sandbox request")).to_be_visible()
    variables = page.get_by_role("row", name="Environment variables")
    await expect(variables).to_contain_text("CI = 1")
    await expect(variables).to_contain_text("NPM_TOKEN from the key token of the Secret npm")
    repo = page.get_by_role("region", name="Repository")
    await expect(repo).to_contain_text("Time of the commands90 seconds")
    await expect(repo).to_contain_text("sh -c 'mkdir -p libraries && echo ready'")
    await expect(repo).to_contain_text("Network of the commandsnpm")
    await expect(repo).to_contain_text("libraries, by lock.txt")

    await page.get_by_role("link", name="Details", exact=True).last.click()
    outputs = page.get_by_role("region", name="Outputs and session")
    await expect(outputs).to_contain_text("Isolationsandbox")
    await expect(outputs).to_contain_text(f"Hosts refused to the agent{FORBIDDEN}")
    await expect(outputs).to_contain_text("Model keyThe agent could read the login of its model.")

    await page.goto(f"{engine.url}/jobs/new?from={job['id']}")
    await expect(page.get_by_label("Network", exact=True)).to_have_value("npm, *.example.org")
    await expect(page.get_by_label("Text of variable 1")).to_have_value("1")
    await expect(page.get_by_label("Key of variable 2")).to_have_value("token")
    await page.get_by_label("Network", exact=True).fill("none")
    await page.get_by_role("button", name="Remove variable 2").click()
    await page.get_by_role("button", name="Run again").click()
    await expect(main).to_contain_text(f"The network rule refused 1 host: {FORBIDDEN}")
    rerun = (await admin.job(page.url.split("/")[-2]))["config"]
    assert (rerun["network"], rerun["isolation"], rerun["env"]) == ("none", "sandbox", {"CI": "1"})


async def test_settings_of_agents_triggers_and_sources_have_fields(
    browser: BrowserContext, engine: LocalEngine, admin: User
) -> None:
    """Values that no field can show survive."""
    page = await browser.new_page()  # the answer 422 is an error on the console
    kept = {"cache": [{"key": "lock.txt", "path": "a: b"}]}
    config: dict[str, Any] = {"network": {"allow": ["npm"]}, "env": {}}
    trigger = {"source": "shop", "events": ["order.*"], "config": config}
    setup = {"setup": [["make"]]} | kept
    answer = await admin.post("/api/agents", {"name": "dev", "workspaceSetup": setup, "eventTriggers": [trigger]})
    assert answer.status_code == 201, answer.text
    await sign_in(page, engine, "/agents/dev/settings")
    form = page.get_by_role("main")
    await form.get_by_label("Network", exact=True).fill("npm, 10.0.0.1")
    await form.get_by_label("Isolation, at least").select_option("sandbox")
    await fill_variables(form)
    await form.get_by_label("Setup commands").fill("sh -c 'mkdir -p libraries && echo ready'")
    await form.get_by_label("Time of the commands, minutes").fill("1.5")
    await form.get_by_label("Network of the commands").fill("npm")
    await form.get_by_role("button", name="Save", exact=True).click()
    await expect(form.get_by_label("Network", exact=True)).to_be_focused()
    await expect(form).to_contain_text("cannot allow '10.0.0.1': it is an IP address")
    await form.get_by_label("Network", exact=True).fill("npm, *.example.org")
    await form.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_text("dev is saved.")).to_be_visible()
    agent = (await admin.get("/api/agents/dev")).json()
    assert (agent["defaultNetwork"], agent["defaultIsolation"]) == ({"allow": ["npm", "*.example.org"]}, "sandbox")
    assert (agent["env"], agent["workspaceSetup"]) == (ENV, SETUP | kept)

    await page.goto(f"{engine.url}/agents/dev/triggers")
    await page.get_by_role("button", name="Edit the trigger").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_label("Network", exact=True)).to_have_value("npm")
    await dialog.get_by_label("Isolation, at least").select_option("sandbox")
    await dialog.get_by_role("button", name="Save trigger").click()
    await expect(page.get_by_text("The trigger is saved.")).to_be_visible()
    [saved] = (await admin.get("/api/agents/dev")).json()["eventTriggers"]
    assert saved["config"] == config | {"isolation": "sandbox"}

    await page.goto(f"{engine.url}/agents/dev/test")
    await page.get_by_label("Event", exact=True).fill("order.paid")
    address = "https://github.com/octocat/hello-world.git"
    await page.get_by_label("Payload").fill(json.dumps({"repository": {"clone_url": address}}))
    await page.get_by_role("button", name="Test", exact=True).click()
    result = page.get_by_role("region", name="Result")
    await expect(result.get_by_role("row", name="Network npm trigger")).to_be_visible()
    await expect(result.get_by_role("row", name="Isolation, at least sandbox trigger")).to_be_visible()
    await expect(result.get_by_role("row", name="Environment variables none trigger")).to_be_visible()
    await expect(result).to_contain_text("Time of the commands90 seconds")
    await expect(result).to_contain_text("Cached foldersa: b, by lock.txt")

    answer = await admin.post("/api/webhook-sources", {"name": "hub", "type": "github", "secret": SECRET})
    assert answer.status_code == 201, answer.text
    await page.goto(f"{engine.url}/sources/hub")
    await form.get_by_label("Network", exact=True).fill("none")
    await form.get_by_label("Isolation, at least").select_option("sandbox")
    await fill_variables(form)
    await form.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_text("hub is saved.")).to_be_visible()
    source = (await admin.get("/api/webhook-sources/hub")).json()
    assert source["defaults"] == {"network": "none", "isolation": "sandbox", "env": ENV}
