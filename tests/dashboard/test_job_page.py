"""Questions that users answer on the page of a job, in a real browser at a real engine."""

import asyncio
import itertools
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, Route, ViewportSize, expect

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User
from tests.acceptance.git_server import make_repository
from tests.agents.claude import CLAUDE
from tests.dashboard.conftest import sign_in
from tests.support.scripted_model import Says

SHIFT_OF_SCROLLING: Final = """async () => {
  let shift = 0;
  const observer = new PerformanceObserver(list => { for (const each of list.getEntries()) shift += each.value; });
  observer.observe({type: 'layout-shift'});
  for (const top of [0, 1e6, 0, 1e6]) {
    window.scrollTo(0, top);
    await new Promise(resolve => setTimeout(resolve, 200));
  }
  return shift;
}"""
"""The layout shift while the page is scrolled to its start and its end."""


@pytest.mark.core
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


async def test_result_with_a_schema_is_shown_as_its_value(page: Page, engine: LocalEngine, admin: User) -> None:
    schema = {"type": "object", "properties": {"risk": {"type": "integer"}}, "required": ["risk"]}
    await sign_in(page, engine, "/jobs/new")
    await page.get_by_label("Prompt").fill("How risky is it?")
    await page.get_by_label("Provider").select_option("mock")
    await page.get_by_label("Result schema").fill("true")
    steps = [{"result": 'I looked **twice**.\n\n```json\n{"risk": 7}\n```'}]
    await page.get_by_label("Metadata").fill(json.dumps({"mock": {"steps": steps}}))
    await page.get_by_role("button", name="Submit job").click()
    await expect(page.get_by_text("must be a JSON object")).to_be_visible()
    await page.get_by_label("Result schema").fill(json.dumps(schema))
    await page.get_by_role("button", name="Submit job").click()

    await expect(page.get_by_text("Completed", exact=True)).to_be_visible()
    await page.get_by_role("link", name="Result").click()
    await expect(page.get_by_role("region", name="Value")).to_contain_text("risk: 7")
    await expect(page.locator("strong", has_text="twice")).to_be_visible()
    await page.get_by_text("Schema of the result").click()
    await expect(page.get_by_text("“risk”")).to_be_visible()


@pytest.mark.core
async def test_running_job_is_cancelled_after_a_question(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.submit({"log": "begun"}, {"hang": True})
    await sign_in(page, engine, f"/jobs/{job}")
    await expect(page.get_by_text("begun")).to_be_visible()
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Cancel the job").click()
    await expect(page.get_by_text("Cancelled", exact=True)).to_be_visible()


@pytest.mark.core
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
    await page.get_by_label("Search the log").fill("number 2222")
    await page.keyboard.press("Enter")  # before the hits are known
    await expect(page.locator("mark")).to_have_text("number 2222")
    await page.get_by_label("Search the log").fill("not in the log")
    await expect(page.get_by_text("No hits")).to_be_visible()


async def test_wrapped_log_shows_whole_lines_at_any_place(page: Page, engine: LocalEngine, admin: User) -> None:
    words = "word " * 120
    job = await admin.run({"log": f"{{n}} {words}end {{n}}", "times": 3000}, {"log": "the last line"}, {"result": 1})
    await sign_in(page, engine, f"/jobs/{job['id']}/log?line=1502")
    log = page.get_by_role("region", name="Log of attempt 1")
    line = log.get_by_text("end 1500")
    await expect(line).to_be_attached()
    await expect(line).not_to_be_in_viewport(ratio=1)

    await page.get_by_label("Wrap").check()
    await expect(line).to_be_in_viewport(ratio=1)
    await page.reload()
    await expect(page.get_by_label("Wrap")).to_be_checked()
    await expect(line).to_be_in_viewport(ratio=1)
    assert await page.locator("[data-kind]").count() < 200

    await log.press("End")
    await expect(log.get_by_text("the last line")).to_be_in_viewport(ratio=1)
    await page.get_by_label("Search the log").fill("end 777")
    await page.keyboard.press("Enter")
    await expect(page.locator("mark")).to_be_in_viewport(ratio=1)
    for distance in (-700, -5000, 9000):  # the lines there are measured on the way
        before = await first_visible_line(log)
        await log.evaluate("(log, distance) => log.scrollBy(0, distance)", distance)
        await page.wait_for_timeout(100)
        assert (await first_visible_line(log) - before) * distance > 0
        rows = await log.locator("[data-kind]").evaluate_all(
            "rows => rows.map(row => row.getBoundingClientRect()).map(({top, bottom}) => [top, bottom])"
        )
        assert all(bottom == pytest.approx(top) for (_, bottom), (top, _) in itertools.pairwise(rows))

    await page.get_by_label("Wrap").uncheck()
    await expect(log.get_by_text("end 777")).to_be_attached()
    heights = await log.locator("[data-kind]").evaluate_all("rows => rows.map(row => row.clientHeight)")
    assert set(heights) == {20}


async def first_visible_line(log: Locator) -> int:
    """Return the number of the first line of a log that is in the visible part."""
    return int(
        await log.evaluate(
            """log => [...log.querySelectorAll('[data-kind]')]
              .find(row => row.getBoundingClientRect().bottom > log.getBoundingClientRect().top)
              .querySelector('button').textContent.replace(',', '')"""
        )
    )


async def test_wrapped_log_follows_its_end_until_the_reader_scrolls_back(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    text = f"{'word ' * 120}end {{n}} of it"
    job = await admin.submit({"log": text, "times": 60}, {"log": f"later {text}", "times": 100_000, "everyMs": 100})
    await page.add_init_script("localStorage.setItem('labrats.log.wrap', 'on')")
    await sign_in(page, engine, f"/jobs/{job}/log")
    log = page.get_by_role("region", name="Log of attempt 1")
    await expect(page.get_by_role("button", name="Following")).to_be_visible()
    for size in ((1280, 720), (390, 844)):
        await page.set_viewport_size({"width": size[0], "height": size[1]})
        seen = await log.locator("[data-kind]").last.text_content()
        await expect(log.locator("[data-kind]").last).not_to_have_text(seen or "")
        await expect(log.locator("[data-kind]").last).to_be_in_viewport(ratio=0.9)
    await log.evaluate("log => { log.scrollTop -= 400; }")
    await expect(page.get_by_role("button", name="Paused")).to_be_visible()
    line = await first_visible_line(log)
    await page.wait_for_timeout(500)
    assert await first_visible_line(log) == line


async def test_search_counts_the_hits_of_the_attempt_that_is_shown(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    steps = [{"log": "hit {n}", "times": 1200}, {"onAttempt": 1, "steps": [{"fail": "no"}]}, {"log": "hit the end"}]
    job = await admin.run(*steps, config={"maxAttempts": 2})
    await sign_in(page, engine, f"/jobs/{job['id']}/log?q=hit")
    await expect(page.locator("[aria-live]", has_text="1,201")).to_be_visible()
    await page.keyboard.press("[")
    await expect(page).to_have_url(re.compile("attempt=1"))
    await expect(page.locator("[aria-live]", has_text="1,200")).to_be_visible()


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


@pytest.mark.core
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


async def test_changes_of_a_running_job_are_followed_to_its_end(page: Page, engine: LocalEngine, admin: User) -> None:
    steps = [
        {"write": {"path": "a.txt", "text": "one\n"}},
        {"sleepMs": 8000},
        {"write": {"path": "a.txt", "text": "one\nand more\n"}},
        {"write": {"path": "b.txt", "text": "two\n"}},
        {"sleepMs": 8000},
        {"write": {"path": "c.txt", "text": "three\n"}},
        {"result": 1},
    ]
    job = await admin.submit(*steps)
    while (await admin.get(f"/api/jobs/{job}/patch")).status_code == 404:
        await asyncio.sleep(POLL_SECONDS)
    await sign_in(page, engine, f"/jobs/{job}/changes")
    main, first = page.get_by_role("main"), page.get_by_role("region", name="Changes of a.txt")
    await expect(first).to_contain_text("one")
    await expect(main).to_contain_text("changes so far")
    await first.locator("table").evaluate("table => { table.dataset.kept = 'yes'; }")
    await expect(page.get_by_role("region", name="Changes of b.txt")).to_contain_text("two")
    await expect(first).to_contain_text("and more")
    await expect(page.get_by_role("region", name="Changes of c.txt")).to_contain_text("three")
    await expect(main).not_to_contain_text("changes so far")
    await expect(first.locator("table[data-kept]")).to_contain_text("and more")


async def test_running_job_without_changes_says_so(chromium: Browser, engine: LocalEngine, admin: User) -> None:
    page = await chromium.new_page()  # whose console reports the missing patch
    job = await admin.submit({"hang": True})
    await admin.wait(job, "active")
    await sign_in(page, engine, f"/jobs/{job}/changes")
    await expect(page.get_by_role("heading", name="No changes so far")).to_be_visible()
    await admin.cancel(job)
    await expect(page.get_by_text("The attempt changed no file")).to_be_visible()
    await page.close()


async def test_job_of_version_0_1_has_no_recorded_isolation(browser: BrowserContext, own_engine: LocalEngine) -> None:
    page = await browser.new_page()
    async with own_engine.admin() as admin:
        job = await admin.run({"result": 1})
        assert job["isolation"] is not None
        own_engine.kill()
        with closing(sqlite3.connect(own_engine.data_dir / "labrats.db")) as database, database:
            (body,) = database.execute("SELECT body FROM resources WHERE name = ?", (job["id"],)).fetchone()
            record = json.loads(body)
            del record["spec"]["resolved"]["isolation"]
            stored = (json.dumps(record).encode(), job["id"])
            database.execute("UPDATE resources SET body = ? WHERE name = ?", stored)
        own_engine.start()
        assert (await admin.job(job["id"]))["isolation"] is None
    await sign_in(page, own_engine, f"/jobs/{job['id']}/details")
    await expect(page.get_by_role("region", name="Outputs and session")).to_contain_text("Isolationnot recorded")


@pytest.mark.core
async def test_reply_to_an_ended_job_opens_the_job_that_answers(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run({"remember": True}, {"result": 1}, prompt="Do it.")
    await sign_in(page, engine, f"/jobs/{job['id']}")
    await page.get_by_role("button", name="Reply").click()
    await expect(page.get_by_role("button", name="Send")).to_be_disabled()
    await page.get_by_label("Message").fill("No, wait.")
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Reply").click()
    await expect(page.get_by_label("Message")).to_have_value("")
    await page.get_by_label("Message").fill("Now test it.")
    await page.reload()
    await page.get_by_role("button", name="Reply").click()
    await expect(page.get_by_label("Message")).to_have_value("Now test it.")
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_role("heading", name="Now test it.")).to_be_visible()
    await page.get_by_role("link", name="Log").click()
    await expect(page.get_by_text("remembered: Do it. | Now test it.")).to_be_visible()
    await page.get_by_role("link", name=f"follow-up of {job['id']}").click()
    await expect(page.get_by_role("heading", name="Do it.")).to_be_visible()


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


async def test_rerun_reports_to_github_as_the_first_job_did(page: Page, engine: LocalEngine, admin: User) -> None:
    source = {"name": "app", "type": "github", "secret": "s" * 32, "credentialsRef": "absent"}
    assert (await admin.post("/api/webhook-sources", source)).status_code == 201
    target = {"repository": "octo/demo", "issue": 1}
    job = await admin.run({"result": 1}, report={"target": target, "comment": "sticky", "mode": "preview"})
    await sign_in(page, engine, f"/jobs/new?from={job['id']}")
    await page.get_by_label("Report to GitHub").select_option("As the first job did")
    await page.get_by_role("button", name="Run again").click()
    await expect(page.get_by_text(f"rerun of {job['id']}")).to_be_visible()
    again = await admin.job(urlsplit(page.url).path.split("/")[2])
    assert (again["rerunOf"], again["report"]) == (job["id"], job["report"])


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


@pytest.fixture
def engine_of_repositories(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine that clones repositories below the test's folder."""
    with LocalEngine(tmp_path, LOCAL_REPO_ROOTS=str(tmp_path)) as engine:
        yield engine


async def test_activity_is_complete_after_another_tab_was_open(
    page: Page, engine_of_repositories: LocalEngine, tmp_path: Path
) -> None:
    engine = engine_of_repositories
    script = "seq -f 'early %.0f' 20; until [ -e go ]; do sleep 0.1; done; seq -f 'late %.0f' 1500"
    setup = {"gitRepo": str(make_repository(tmp_path / "hello.git")), "setup": [["sh", "-c", script]]}
    async with engine.admin() as admin:
        job = await admin.submit({"hang": True}, workspaceSetup=setup)
        await sign_in(page, engine, f"/jobs/{job}/activity")
        await expect(page.get_by_text("early 20", exact=True)).to_be_visible()
        await page.get_by_role("link", name="Input").click()
        (engine.workspace(job) / "go").touch()
        while "late 1500\n" not in (await admin.get(f"/api/jobs/{job}/logs", format="text")).text:
            await asyncio.sleep(0.2)
        await page.get_by_role("link", name="Activity").click()
        await expect(page.get_by_text("late 1500", exact=True)).to_be_visible()
        assert await page.get_by_text(re.compile("^(early|late) [0-9]+$")).count() == 1520
    await page.goto("about:blank")  # the engine stops before the page


REMOVES_A_SECRET: Final = """#!/bin/bash
echo '{"type": "system", "subtype": "init", "session_id": "0190-test"}'
echo "$NPM_TOKEN" > token.txt && git add token.txt && git commit -qm "Add the token"
git rm -q token.txt && git commit -qm "Remove the token"
[ -n "$ALSO" ] && echo new > new.txt
echo '{"type": "result", "subtype": "success", "is_error": false, "result": "done"}'
"""
"""A program in place of Claude Code whose commits have a secret, which its last commit removes."""


@pytest.fixture
def engine_of_a_leak(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine whose agent is `REMOVES_A_SECRET`."""
    program = tmp_path / "programs" / "claude"
    program.parent.mkdir()
    program.write_text(REMOVES_A_SECRET)
    program.chmod(0o755)
    settings = {"LABRATS_CLAUDE_PATH": str(program), "CLAUDE_CODE_OAUTH_TOKEN": "test-login-0123456789"}
    with LocalEngine(tmp_path, **settings, LOCAL_REPO_ROOTS=str(tmp_path)) as engine:
        engine.set_secret("npm", "token", "test-npm-token-0123456789")
        yield engine


async def test_changes_say_why_commits_have_no_bundle(
    page: Page, engine_of_a_leak: LocalEngine, tmp_path: Path
) -> None:
    engine = engine_of_a_leak
    setup = {"gitRepo": str(make_repository(tmp_path / "hello.git"))}
    env = {"NPM_TOKEN": {"secret": "npm", "key": "token"}}
    reason = "No bundle of the commits is stored: a secret is in the file token.txt."
    async with engine.admin() as admin:
        first, second = [
            await admin.run(config={"provider": "claude", "env": env | also}, workspaceSetup=setup)
            for also in ({}, {"ALSO": "1"})
        ]
    assert len(first["outputs"]["commits"]) == len(second["outputs"]["commits"]) == 2, first["logs"]
    main = page.get_by_role("main")
    await sign_in(page, engine, f"/jobs/{second['id']}/changes")
    await expect(page.get_by_role("region", name="Changes of new.txt")).to_be_visible()
    await expect(main).to_contain_text(reason)
    await page.goto(f"{engine.url}/jobs/{first['id']}/log")
    await page.get_by_role("link", name="Changes").click()
    await expect(main).to_contain_text(f"The attempt made commits that change no file together. {reason}")
    await expect(main).not_to_contain_text("No changes")
    await page.goto("about:blank")  # the engine stops before the page


async def test_missing_secret_gets_no_advice_about_a_refused_key(page: Page, engine: LocalEngine, admin: User) -> None:
    env = {"NPM_TOKEN": {"secret": "missing", "key": "token"}}
    job = await admin.run({"result": 1}, config={"env": env})
    assert job["failedCode"] == "auth"
    await sign_in(page, engine, f"/jobs/{job['id']}")
    failure = page.get_by_role("group", name="Failure")
    await expect(failure).to_contain_text("there is no Secret 'missing'")
    await expect(failure).to_contain_text("The credentials are not stored. Store them")
    await expect(failure).not_to_contain_text("refused")


async def test_commits_of_a_job_are_downloaded_as_a_bundle(
    page: Page, engine_of_repositories: LocalEngine, tmp_path: Path
) -> None:
    engine = engine_of_repositories
    setup = {"gitRepo": str(make_repository(tmp_path / "hello.git"))}
    async with engine.admin() as admin:
        job = await admin.run({"write": {"path": "new.txt", "text": "new\n"}}, {"result": 1}, workspaceSetup=setup)
    await sign_in(page, engine, f"/jobs/{job['id']}/changes")
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Commits").click()
    bundle = await download.value
    assert bundle.suggested_filename == f"{job['id']}-1.bundle"
    assert (await bundle.path()).read_bytes().startswith(b"# v2 git bundle")
    await page.goto("about:blank")  # the engine stops before the page


async def test_activity_finds_text_in_its_entries(page: Page, engine: LocalEngine, admin: User) -> None:
    steps = [{"log": "a needle in the log"}, {"log": "hay"}, {"fail": "The NEEDLE is lost"}]
    job = await admin.run(*steps)
    await sign_in(page, engine, f"/jobs/{job['id']}/activity")
    await expect(page.get_by_text("hay", exact=True)).to_be_visible()
    await page.keyboard.press("/")
    await page.keyboard.type("needle")
    await expect(page.get_by_text("2 found")).to_be_visible()
    await expect(page).to_have_url(re.compile("q=needle"))
    await page.get_by_label("Find in the activity").fill("straw")
    await expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()


@pytest.mark.parametrize("tab", ["activity", "log"])
async def test_scrolling_back_by_the_scroll_bar_stops_following(
    page: Page, engine: LocalEngine, admin: User, tab: str
) -> None:
    job = await admin.submit({"log": "begin {n}", "times": 80}, {"log": "line {n}", "times": 100_000, "everyMs": 300})
    await sign_in(page, engine, f"/jobs/{job}/{tab}")
    scroller = page.get_by_role("region", name="Log of attempt 1") if tab == "log" else page.locator("html")
    following = page.get_by_label("Follow") if tab == "activity" else page.get_by_role("button", name="Following")
    await expect(following).to_be_visible()
    while await scroller.evaluate("each => each.scrollTop") < 300:  # until the text is longer than the screen
        await asyncio.sleep(0.2)
    await scroller.evaluate("each => { each.scrollTop -= 280; }")
    if tab == "activity":
        await expect(following).not_to_be_checked()
    else:
        await expect(page.get_by_role("button", name="Paused")).to_be_visible()


async def test_keys_of_following_do_nothing_in_an_ended_log(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run({"log": "line {n}", "times": 200})
    await sign_in(page, engine, f"/jobs/{job['id']}/log?line=7")
    log = page.get_by_role("region", name="Log of attempt 1")
    await expect(log.get_by_text("line 7", exact=True)).to_be_visible()
    await page.keyboard.press("f")
    await page.keyboard.press("f")
    await page.keyboard.press("n")  # without a search, the key has no effect
    await expect(page).to_have_url(re.compile("line=7"))
    await log.focus()
    await page.keyboard.press("Home")
    await expect(log).to_have_js_property("scrollTop", 0)
    await page.keyboard.press(" ")
    await page.wait_for_function("log => log.scrollTop > 100", arg=await log.element_handle())


async def test_activity_shows_early_events_while_few_are_live(page: Page, engine: LocalEngine, admin: User) -> None:
    await sign_in(page, engine)
    early, late = {"log": "early {n}", "times": 1_700}, {"log": "late {n}", "times": 500, "everyMs": 30}
    job = await admin.submit(early, late, {"hang": True})
    await has_event(admin, job, "early 1700")
    await page.goto(f"{engine.url}/jobs/{job}/activity")
    await expect(page.get_by_text("early 1", exact=True)).to_be_visible()
    await expect(page.get_by_text("late 400", exact=True)).to_be_visible()
    await expect(page.get_by_role("button", name="earlier event")).to_have_count(0)


async def first_entry_of_activity(page: Page, engine: LocalEngine, admin: User, *, lines: int) -> Locator:
    """Open the activity of a job that logs a line each millisecond. Return the first entry."""
    await sign_in(page, engine)
    job = await admin.submit({"log": "line {n}", "times": lines, "everyMs": 1}, {"hang": True})
    await page.goto(f"{engine.url}/jobs/{job}/activity")
    return page.get_by_role("main").locator("ol > li").first


async def stop_following(page: Page) -> None:
    """Uncheck Follow by the keyboard: a click may first scroll the moving page, and so stop following by itself."""
    follow = page.get_by_label("Follow")
    await follow.press("Space")
    await expect(follow).not_to_be_checked()


async def test_activity_keeps_its_place_for_a_reader_until_the_latest_is_requested(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    entry = await first_entry_of_activity(page, engine, admin, lines=14_000)
    await stop_following(page)
    first = await entry.text_content()
    latest = page.get_by_role("button", name="Show the latest of")
    await expect(latest).to_be_visible()
    assert await entry.text_content() == first
    await latest.click()
    await expect(page.get_by_text("line 14000", exact=True)).to_be_visible()
    await expect(latest).to_have_count(0)


async def test_list_of_a_reader_is_not_replaced_by_what_was_requested_while_following(
    page: Page, engine: LocalEngine, admin: User
) -> None:
    entry = await first_entry_of_activity(page, engine, admin, lines=6_000)
    await expect(entry).to_be_visible()
    is_requested, may_answer = asyncio.Event(), asyncio.Event()

    async def answer_later(route: Route) -> None:
        is_requested.set()
        await may_answer.wait()
        await route.continue_()

    await page.route(re.compile(r"/events\?.*limit="), answer_later)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await is_requested.wait()  # the live events have become too many
    await stop_following(page)
    first = await entry.text_content()
    may_answer.set()
    await expect(page.get_by_text("line 6000", exact=True)).to_be_visible()
    assert await entry.text_content() == first


async def has_event(admin: User, job: str, text: str) -> None:
    """Wait until the log of a job has an event with this text."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (await admin.get(f"/api/jobs/{job}/events", q=text)).json()["events"]:
            await asyncio.sleep(POLL_SECONDS)


async def test_more_files_of_a_patch_appear_without_a_jump(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run(*({"write": {"path": f"{n:02}.txt", "text": "x\n"}} for n in range(60)), {"result": 1})
    await sign_in(page, engine, f"/jobs/{job['id']}/changes?file=00.txt")
    more = page.get_by_role("button", name="Show more files")
    await more.scroll_into_view_if_needed()
    before = await page.evaluate("scrollY")
    assert before > 0
    await more.click()
    await expect(page.get_by_role("region", name="Changes of 59.txt")).to_be_attached()
    assert await page.evaluate("scrollY") >= before
    await page.get_by_label("Viewed").first.check()
    await page.reload()
    await expect(page.get_by_label("Viewed").first).to_be_checked()


async def test_chosen_line_is_shown_in_full(page: Page, engine: LocalEngine, admin: User) -> None:
    job = await admin.run({"log": "short"}, {"log": f"{'long ' * 100}end of it"})
    await sign_in(page, engine, f"/jobs/{job['id']}/log")
    line = (await admin.get(f"/api/jobs/{job['id']}/events", q="end of it")).json()["events"][0]["id"].split("-")[1]
    await page.get_by_role("button", name=f"Select line {line}", exact=True).click()
    whole = page.get_by_role("region", name=f"Line {line} in full")
    await expect(whole).to_contain_text("end of it")
    assert await whole.locator("pre").evaluate("each => each.scrollWidth <= each.clientWidth")
    await whole.get_by_role("button", name="Close the line").click()
    await expect(whole).to_have_count(0)


@pytest.fixture
def claude_engine(tmp_path: Path) -> Iterator[LocalEngine]:
    """An engine whose Claude Code explains a command in Markdown, and then answers with two megabytes of it."""
    plan = "## The plan\n\n1. Run `cheese`\n2. Read <b>bread</b>\n\nThe first line\nand the second\n"
    text = "# A heading\n\n" + ("a word " * 300 + "\n") * 1000
    with (
        CLAUDE.serve(CLAUDE.shell("echo cheese; echo bread", text=plan), Says(text)) as server,
        LocalEngine(tmp_path, **CLAUDE.environment, ANTHROPIC_BASE_URL=server.url) as engine,
    ):
        yield engine


async def test_a_call_shows_what_it_has_used_and_a_result_of_megabytes_its_parts(
    page: Page, claude_engine: LocalEngine
) -> None:
    async with claude_engine.admin() as admin:
        job = await admin.wait(await admin.submit(config={"provider": "claude", "model": "sonnet"}), "completed")
    await sign_in(page, claude_engine, f"/jobs/{job['id']}/activity")
    await expect(page.locator("summary", has_text="Bash")).to_contain_text("+110 tok")
    activity = page.get_by_role("main")
    await expect(activity.get_by_role("heading", name="The plan", level=2)).to_be_visible()
    steps = activity.get_by_role("listitem").get_by_role("listitem")
    assert await steps.all_inner_texts() == ["Run cheese", "Read <b>bread</b>"]
    assert await activity.get_by_text("The first line").inner_text() == "The first line\nand the second"

    await page.get_by_role("link", name="Log").click()
    rows = page.get_by_role("region", name="Log of attempt 1").locator("[data-kind]")
    await expect(rows.filter(has_text="the attempt completed")).to_be_visible()
    await page.keyboard.press("Home")
    await expect(rows.filter(has_text="→ Bash: echo cheese")).to_have_count(1)
    await expect(rows.filter(has_text="Bash")).to_have_count(1)
    await expect(rows.filter(has_text='"command":"echo cheese; echo bread"')).to_have_count(1)
    await rows.filter(has_text="cheese ↵ bread").get_by_role("button").click()
    whole = page.get_by_role("region", name="in full")
    assert await whole.locator("pre").inner_text() == "cheese\nbread"

    await page.get_by_role("link", name="Result").click()
    await expect(page.get_by_text("This text has 2 MiB. It is shown as plain text, in parts.")).to_be_visible()
    parts = page.get_by_role("main").locator("pre")
    assert (await parts.evaluate_all("parts => parts.map(each => each.textContent.length)"))[0] <= 200_000
    await page.get_by_role("button", name="Show the next 195 KiB").click()
    await expect(parts).to_have_count(2)
    await page.goto("about:blank")  # the engine stops before the page


@pytest.mark.parametrize("size", [{"width": 1280, "height": 800}, {"width": 390, "height": 844}])
async def test_head_of_a_job_stays_in_view_while_its_end_is_followed(
    page: Page, engine: LocalEngine, admin: User, size: ViewportSize
) -> None:
    await page.set_viewport_size(size)
    steps = [{"log": "line {n}", "times": 200}, {"hang": True}]
    job = await admin.submit(metadata={"title": "Long and running", "mock": {"steps": steps}})
    await sign_in(page, engine, f"/jobs/{job}/activity")
    await expect(page.get_by_text("line 200")).to_be_in_viewport()
    head = page.get_by_role("group", name="Job", exact=True)
    await expect(head).to_contain_text("Running")
    await expect(head).to_contain_text("Long and running")
    await expect(head).to_be_in_viewport()
    await expect(page.get_by_label("Follow")).to_be_in_viewport()
    await expect(page.get_by_role("group", name="Kinds of activity")).to_be_in_viewport()
    assert await page.evaluate(SHIFT_OF_SCROLLING) == 0

    await head.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("The agent is stopped with all its processes.")
    await admin.post(f"/api/jobs/{job}/cancel")
    await expect(dialog).to_contain_text("The job has ended already.")
    await expect(dialog.get_by_role("button", name="Cancel the job")).to_have_count(0)
    await dialog.get_by_role("button", name="Back").click()
    await expect(head).to_contain_text("Cancelled")
    await expect(head.get_by_role("button")).to_have_count(0)


async def test_unknown_job_has_a_heading_and_a_way_back(browser: BrowserContext, engine: LocalEngine) -> None:
    page = await browser.new_page()  # the answer 404 is an error on its console
    await sign_in(page, engine, "/jobs/no-such-job/activity")
    await expect(page.get_by_role("heading", name="There is no such job")).to_be_visible()
    await page.get_by_role("main").get_by_role("link", name="Jobs").click()
    await expect(page).to_have_url(f"{engine.url}/jobs")


async def test_ages_are_counted_by_the_clock_of_the_engine(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"aged-{token_hex(4)}"
    await admin.run(metadata={"title": title, "mock": {"steps": [{"result": 1}]}})
    await page.clock.install(time=datetime.now(UTC) + timedelta(hours=5))
    await sign_in(page, engine, f"/jobs?q={title}")
    row = page.get_by_role("row").filter(has_text=title)
    await expect(row.locator("time")).to_have_text(re.compile(r"now|\d+s"))


async def test_type_of_a_job_is_not_shown_as_its_agent(page: Page, engine: LocalEngine, admin: User) -> None:
    title = f"typed-{token_hex(4)}"
    metadata = {"title": title, "mock": {"steps": [{"result": 1}]}}
    job = await admin.wait(await admin.submit(type="a-type", metadata=metadata), "completed")
    await page.set_viewport_size({"width": 1600, "height": 800})
    await sign_in(page, engine, f"/jobs?q={title}")
    row = page.get_by_role("row").filter(has_text=title)
    await expect(row).to_be_visible()
    await expect(row).not_to_contain_text("a-type")
    await page.goto(f"{engine.url}/jobs/{job['id']}/activity")
    await expect(page.get_by_title("Type").get_by_text("a-type")).to_be_visible()
    await expect(page.get_by_title("Agent")).to_have_count(0)
