"""Stories of the pages about agents, their triggers and their instructions."""

import asyncio
import re

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.acceptance.engine import PATIENCE_SECONDS, POLL_SECONDS, LocalEngine, User
from tests.dashboard.conftest import sign_in
from tests.support.deliveries import SECRET, hub_signature, json_body


@pytest.fixture
async def story_agent(admin: User) -> str:
    """An agent with one trigger, as its own resource version."""
    trigger = {"source": "story", "events": ["issues.labeled"], "instruction": "Say hello.", "filters": {"n": 3}}
    await admin.http.delete("/api/agents/story-agent")
    answer = await admin.post("/api/agents", {"name": "story-agent", "eventTriggers": [trigger]})
    assert answer.status_code == 201, answer.text
    return "story-agent"


async def stored(admin: User, path: str) -> dict[str, object]:
    answer: dict[str, object] = (await admin.get(path)).json()
    return answer


async def test_list_of_agents_shows_their_network_and_isolation(
    page: Page, own_engine: LocalEngine, own_admin: User
) -> None:
    network = {"allow": ["npm", "pypi", "a.example.com", "b.example.com", "c.example.com"]}
    for fields in (
        {"name": "without"},
        {"name": "closed", "defaultNetwork": "none"},
        {"name": "both", "defaultNetwork": network, "defaultIsolation": "sandbox"},
    ):
        answer = await own_admin.post("/api/agents", fields)
        assert answer.status_code == 201, answer.text
    await sign_in(page, own_engine, "/agents")
    cards = page.get_by_role("listitem")
    await expect(cards.filter(has_text="without")).to_contain_text("default network and isolation")
    await expect(cards.filter(has_text="closed")).to_contain_text("network none · default isolation")
    both = "network npm, pypi, a.example.com and 2 more · at least sandbox"
    await expect(cards.filter(has_text="both")).to_contain_text(both)


async def test_default_agents_are_added_and_a_trigger_is_edited(
    page: Page, own_engine: LocalEngine, own_admin: User
) -> None:
    await sign_in(page, own_engine, "/agents")
    await expect(page.get_by_role("heading", name="No agents")).to_be_visible()
    await page.get_by_role("button", name="Add default agents").click()
    await expect(page.get_by_text("issues.labeled from github, if label.name is ai-implement")).to_be_visible()
    await page.get_by_role("link", name="ai-developer").click()
    await page.get_by_role("button", name="Edit the trigger").click()
    await page.get_by_label("Events").fill("issues.labeled\nissues.reopened")
    await page.get_by_label("Value of filter 1").fill('["ai-implement", "ai-*"]')
    await page.get_by_role("button", name="Add filter").click()
    await page.get_by_label("Path of filter 2").fill("issue.locked")
    await page.get_by_label("Value of filter 2").fill("false")
    await page.get_by_label("Next agent").select_option("ai-reviewer")
    await page.get_by_label("After a failure").select_option("retry")
    await page.get_by_label("Turns").fill("7")
    await page.get_by_role("button", name="Save trigger").click()

    card = page.get_by_role("main")
    await expect(card).to_contain_text("issues.labeled or issues.reopened from github")
    await expect(card).to_contain_text("if label.name is ai-implement or ai-*")
    await expect(card).to_contain_text("then ai-reviewer on success, with one more attempt after a failure")
    await expect(card).to_contain_text("7 turns")
    agent = await stored(own_admin, "/api/agents/ai-developer")
    assert isinstance(agent["eventTriggers"], list)
    [trigger] = agent["eventTriggers"]
    assert trigger["filters"] == {"label.name": ["ai-implement", "ai-*"], "issue.locked": False}
    assert trigger["config"]["maxTurns"] == 7
    assert trigger["instruction"] == "implement-issue"


@pytest.mark.core
async def test_edited_trigger_starts_a_job_that_the_agent_shows(
    page: Page, engine: LocalEngine, admin: User, story_agent: str
) -> None:
    await sign_in(page, engine, f"/agents/{story_agent}/triggers")
    await page.get_by_role("button", name="Add trigger").click()
    await page.get_by_label("Source").fill("shop")
    await page.get_by_label("Events").fill("order.*")
    await page.get_by_label("Text of the task").fill("Pack the order.")
    await page.get_by_label("Provider").select_option("mock")
    await page.get_by_role("button", name="Save trigger").click()
    await expect(page.get_by_text("order.* from shop")).to_be_visible()

    event = {"source": "shop", "event": "order.paid", "payload": {}}
    assert (await admin.post("/api/events/ingest", event)).json()["matched"] == 1
    await page.get_by_role("link", name="Jobs", exact=True).last.click()
    await expect(page.get_by_role("table", name="Latest jobs")).to_contain_text("Completed")

    await page.get_by_role("link", name="Triggers").click()
    await page.get_by_role("switch", name="The trigger for order.* from shop is enabled").click()
    await expect(page.get_by_text("order.* from shop (off)")).to_be_visible()
    assert (await admin.post("/api/events/ingest", event)).json()["matched"] == 0
    await page.get_by_role("button", name="Remove the trigger for order.* from shop").click()
    await page.get_by_role("button", name="Remove the trigger", exact=True).click()
    await expect(page.get_by_text("order.* from shop")).to_have_count(0)


async def test_report_of_an_agent_and_the_repair_of_checks_are_edited(
    browser: BrowserContext, engine: LocalEngine, admin: User, story_agent: str
) -> None:
    page = await browser.new_page()  # the answer 422 is an error on the console
    await sign_in(page, engine, f"/agents/{story_agent}/settings")
    report = page.get_by_role("group", name="Report to GitHub").get_by_label("Report", exact=True)
    await report.fill('{"pullRequest": {"followUps": false, "signCommits": true}, "policy": {"maxPullRequests": 2}}')
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_text("policy.maxPullRequests: must be at most 1")).to_be_visible()
    await report.fill('{"pullRequest": {"followUps": false, "signCommits": true}, "policy": {"maxPullRequests": 0}}')
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_text("story-agent is saved.")).to_be_visible()
    agent = await stored(admin, f"/api/agents/{story_agent}")
    assert agent["report"] == {
        "pullRequest": {"followUps": False, "signCommits": True},
        "policy": {"maxPullRequests": 0},
    }

    await page.goto(f"{engine.url}/agents/{story_agent}/triggers")
    await page.get_by_role("button", name="Edit the trigger").click()
    await page.get_by_label("Repair failed checks").check()
    await page.get_by_label("Attempts at a pull request").fill("2")
    await page.get_by_label("Label after the last attempt").fill("")
    await page.get_by_label("Source").fill("github")
    await page.get_by_label("Events").fill("check_run.completed")
    report = page.get_by_role("group", name="Report to GitHub")
    await report.get_by_label("Comment").select_option("At the end of a job")
    await report.get_by_label("Pull request").select_option("Off")
    await report.get_by_label("Pull request").select_option("Not set")
    await page.get_by_role("button", name="Save trigger").click()
    await expect(page.get_by_text("The trigger is saved.")).to_be_visible()
    agent = await stored(admin, f"/api/agents/{story_agent}")
    assert isinstance(agent["eventTriggers"], list)
    [trigger] = agent["eventTriggers"]
    assert trigger["ciLoop"] == {"attemptsPerPullRequest": 2, "label": ""}
    assert trigger["report"] == {"comment": "final"}

    await page.get_by_role("button", name="Edit the trigger").click()
    await page.get_by_label("Repair failed checks").uncheck()
    await page.get_by_role("button", name="Save trigger").click()
    await expect(page.get_by_role("dialog")).to_be_hidden()
    agent = await stored(admin, f"/api/agents/{story_agent}")
    assert isinstance(agent["eventTriggers"], list)
    assert "ciLoop" not in agent["eventTriggers"][0]


async def test_trigger_that_others_changed_is_merged_field_by_field(
    browser: BrowserContext, engine: LocalEngine, admin: User, story_agent: str
) -> None:
    page = await browser.new_page()  # the answer 409 is an error on the console
    await sign_in(page, engine, f"/agents/{story_agent}/triggers")
    await page.get_by_role("button", name="Edit the trigger").click()
    await page.get_by_label("Events").fill("mine")
    theirs = {"source": "story", "events": ["theirs"], "instruction": "Say bye.", "filters": {"n": 3}}
    await admin.http.patch(f"/api/agents/{story_agent}", json={"eventTriggers": [theirs]})
    await page.get_by_role("button", name="Save trigger").click()

    meanwhile = page.get_by_role("alert", name="Changed meanwhile")
    await expect(meanwhile.get_by_role("button", name="Theirs theirs")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Text of the task")).to_have_value("Say bye.")
    await page.get_by_role("button", name="Save trigger").click()
    await expect(page.get_by_text("mine from story, if n is 3")).to_be_visible()


@pytest.mark.core
async def test_agent_is_created_switched_off_and_removed(page: Page, engine: LocalEngine, admin: User) -> None:
    await sign_in(page, engine, "/agents/new")
    await page.get_by_role("button", name="Create agent").click()
    await expect(page.get_by_label("Name", exact=True)).to_be_focused()
    await page.get_by_label("Name", exact=True).fill("short-lived")
    await page.get_by_label("Model").fill("opus")
    await page.get_by_role("button", name="Create agent").click()
    await expect(page.get_by_role("heading", name="No event starts this agent")).to_be_visible()
    await page.get_by_role("switch", name="short-lived is enabled").click()
    await expect(page.get_by_text("Off", exact=True)).to_be_visible()
    agent = await stored(admin, "/api/agents/short-lived")
    assert (agent["enabled"], agent["defaultModel"], agent["triggerName"]) == (False, "opus", "short-lived")

    await page.get_by_role("navigation", name="Parts of the agent").get_by_role("link", name="Settings").click()
    await page.get_by_label("Effort").select_option("high")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("short-lived is saved.")).to_be_visible()
    await page.get_by_role("button", name="Remove agent…").click()
    await page.get_by_role("button", name="Remove the agent").click()
    await expect(page.get_by_role("heading", name="Agents", exact=True)).to_be_visible()
    assert (await admin.get("/api/agents/short-lived")).status_code == 404


async def test_unsaved_changes_stay_in_the_tab(page: Page, engine: LocalEngine, story_agent: str) -> None:
    await sign_in(page, engine, f"/agents/{story_agent}/settings")
    await page.get_by_label("Model").fill("half-typed")
    await page.get_by_role("link", name="Triggers").click()
    await page.reload()
    await page.get_by_role("navigation", name="Parts of the agent").get_by_role("link", name="Settings").click()
    await expect(page.get_by_label("Model")).to_have_value("half-typed")
    await page.get_by_role("button", name="Discard changes").click()
    await expect(page.get_by_label("Model")).to_have_value("")


@pytest.mark.core
async def test_instruction_is_written_assigned_and_its_removal_explained(
    browser: BrowserContext, engine: LocalEngine, admin: User, story_agent: str
) -> None:
    page = await browser.new_page()  # the answer 409 is an error on the console
    await sign_in(page, engine, "/instructions")
    await page.get_by_role("button", name="New instruction").first.click()
    await page.get_by_label("Name").fill("be-kind")
    await page.get_by_label("Text").fill("Be kind to {{ payload.user }}.")
    await page.get_by_role("button", name="Create instruction").click()
    await expect(page.get_by_role("region", name="Used by")).to_contain_text("No agent and no trigger names it.")

    await page.goto(f"{engine.url}/agents/{story_agent}/instructions")
    await page.get_by_label("Add an instruction").select_option("be-kind")
    await page.get_by_role("button", name="Add", exact=True).click()
    await page.get_by_role("button", name="Save").click()
    preview = page.get_by_role("region", name="Beginning of its prompts")
    await expect(preview).to_contain_text("Be kind to {{ payload.user }}.")

    await preview.get_by_role("link", name="be-kind").click()
    await expect(page.get_by_role("region", name="Used by")).to_contain_text(story_agent)
    await page.get_by_label("Text").fill("Be very kind.")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("be-kind is saved.")).to_be_visible()
    await page.get_by_role("button", name="Remove instruction…").click()
    await page.get_by_role("button", name="Remove the instruction").click()
    await expect(page.get_by_role("dialog")).to_contain_text(f"It is used by {story_agent}. If it is removed")
    await page.get_by_role("button", name="Remove it all the same").click()
    await expect(page.get_by_role("heading", name="Instructions", exact=True)).to_be_visible()
    assert (await admin.get("/api/instructions/be-kind")).status_code == 404


async def deliver(engine: LocalEngine, number: int) -> None:
    """Deliver an event to the webhook source `recorder`."""
    body = json_body({"type": "issues.labeled", "n": number})
    async with engine.client() as sender:
        headers = {"X-Hub-Signature-256": hub_signature(body), "Content-Type": "application/json"}
        assert (await sender.post("/webhooks/recorder", content=body, headers=headers)).status_code == 200


async def test_recorded_delivery_is_tested_again(
    page: Page, engine: LocalEngine, admin: User, story_agent: str
) -> None:
    source = {"name": "recorder", "type": "generic", "secret": SECRET}
    assert (await admin.post("/api/webhook-sources", source)).status_code == 201
    await deliver(engine, 17)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := (await admin.get("/api/webhook-sources/recorder/deliveries")).json()["deliveries"]):
            await asyncio.sleep(POLL_SECONDS)

    await sign_in(page, engine, f"/agents/{story_agent}/test")
    await expect(page.get_by_label("Source", exact=True)).to_have_value("story")
    await expect(page.get_by_label("Event", exact=True)).to_have_value("issues.labeled")
    await page.get_by_label("Webhook source").select_option("recorder")
    await expect(page.get_by_label("Source", exact=True)).to_have_value("recorder")
    await expect(page.get_by_role("option", name="issues.labeled, ")).to_have_count(1)
    await page.get_by_label("Recorded delivery").select_option(found[0]["id"])
    await expect(page.get_by_label("Payload")).to_have_value(re.compile('"n": 17'))
    await expect(page.get_by_label("Event", exact=True)).to_have_value("issues.labeled")
    await page.get_by_role("button", name="Test", exact=True).click()
    await expect(page.get_by_label("Result")).to_contain_text("this one is from recorder")

    await page.get_by_label("Payload").fill('{"n": 3}')
    await page.get_by_role("link", name="Triggers").click()
    await page.get_by_role("button", name="Edit the trigger").wait_for()
    await page.go_back()
    await expect(page.get_by_label("Event", exact=True)).to_have_value("issues.labeled")
    await expect(page.get_by_label("Payload")).to_have_value('{"n": 3}')

    await page.evaluate("sessionStorage.clear()")
    await page.goto(f"{engine.url}/sources/recorder")
    deliveries = page.get_by_role("list", name="Deliveries").get_by_role("listitem")
    await deliveries.get_by_role("button", name="Test an agent with this event").click()
    await deliver(engine, 18)
    await expect(deliveries).to_have_count(2)
    await deliveries.last.get_by_role("menuitem", name=story_agent, exact=True).click()
    await expect(page).to_have_url(f"{engine.url}/agents/{story_agent}/test?delivery=recorder%2F{found[0]['id']}")
    payload = page.get_by_label("Payload")
    await expect(page.get_by_label("Source", exact=True)).to_have_value("recorder")
    await expect(payload).to_have_value(re.compile('"n": 17'))

    await payload.fill('{"n": 3}')  # another choice of the delivery drops the edit
    await page.get_by_label("Recorded delivery").select_option("None")
    await page.get_by_label("Recorded delivery").select_option(found[0]["id"])
    await expect(payload).to_have_value(re.compile('"n": 17'))

    await page.get_by_role("button", name="Labelled issue").click()  # an example is not the delivery
    await expect(page).to_have_url(f"{engine.url}/agents/{story_agent}/test")
    await payload.fill('{"n": 4}')
    await page.get_by_role("link", name="Triggers").click()
    await page.get_by_role("button", name="Edit the trigger").wait_for()
    await page.go_back()
    await expect(payload).to_have_value('{"n": 4}')


async def test_agent_and_instruction_that_others_remove_are_shown_as_removed(
    browser: BrowserContext, engine: LocalEngine, admin: User, story_agent: str
) -> None:
    page = await browser.new_page()  # the answer 404 is an error on the console
    await sign_in(page, engine, f"/agents/{story_agent}/settings")
    await expect(page.get_by_role("switch", name=f"{story_agent} is enabled")).to_be_visible()
    assert (await admin.http.delete(f"/api/agents/{story_agent}")).status_code == 204
    await expect(page.get_by_role("heading", name="The agent was removed")).to_be_visible()
    await expect(page.get_by_role("switch")).to_have_count(0)
    await expect(page.get_by_role("navigation", name="Parts of the agent")).to_have_count(0)

    await admin.post("/api/instructions", {"name": "short-lived", "content": "Be brief."})
    await page.goto(f"{engine.url}/instructions/short-lived")
    await expect(page.get_by_role("button", name="Save")).to_be_visible()
    assert (await admin.http.delete("/api/instructions/short-lived")).status_code == 204
    await expect(page.get_by_role("heading", name="The instruction was removed")).to_be_visible()
    await expect(page.get_by_role("button", name="Save")).to_have_count(0)


async def test_form_that_is_wrong_leads_to_its_first_wrong_field(
    page: Page, engine: LocalEngine, story_agent: str
) -> None:
    await sign_in(page, engine, f"/agents/{story_agent}/triggers")
    await page.get_by_role("button", name="Add trigger").click()
    await page.get_by_label("Events").fill("issues.*")
    await page.get_by_label("Time, minutes").fill("20000")
    await page.get_by_label("Other settings").fill("none")
    await page.get_by_role("button", name="Save trigger").click()
    await expect(page.get_by_label("Time, minutes")).to_be_focused()
    await expect(page.get_by_text("must be at most 10,080 minutes, 7 days")).to_be_visible()


async def test_name_that_exists_is_reported_at_its_field(
    browser: BrowserContext, engine: LocalEngine, story_agent: str
) -> None:
    page = await browser.new_page()  # the answer 409 is an error on the console
    await sign_in(page, engine, "/agents/new")
    name = page.get_by_label("Name", exact=True)
    await name.fill(story_agent)
    await page.get_by_role("button", name="Create agent").click()
    await expect(page.get_by_text("is taken: choose another name")).to_be_visible()
    await expect(name).to_be_focused()
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_agents_show_their_figures_and_the_palette_finds_resources(
    page: Page, own_engine: LocalEngine, own_admin: User
) -> None:
    for path, body in (
        ("/api/agents", {"name": "counted"}),
        ("/api/ai-models", {"name": "palette-model", "provider": "mock", "model": "fast"}),
        ("/api/webhook-sources", {"name": "palette-source", "type": "generic", "secret": "a-secret-of-24-characters"}),
        ("/api/instructions", {"name": "palette-text", "displayName": "Palette text", "content": "Be brief."}),
    ):
        answer = await own_admin.post(path, body)
        assert answer.status_code == 201, answer.text
    for _ in range(3):
        await own_admin.run({"result": 1}, agentRole="counted")
    failed = await own_admin.run({"fail": "broken"}, agentRole="counted")
    running = await own_admin.submit({"hang": True}, agentRole="counted")
    await sign_in(page, own_engine, "/agents")
    card = page.get_by_role("listitem").filter(has_text="counted").first
    await expect(card).to_contain_text("1 running · 75 % of 4 jobs succeeded in 7 days · $0.00 · median 0")
    await expect(card.get_by_role("link", name="last failure")).to_have_attribute(
        "href", f"/jobs/{failed['id']}/activity"
    )
    for text, entry, address in (
        ("palette-mod", "palette-model: mock/fast", "/models?edit=palette-model"),
        ("palette-sou", "palette-source", "/sources/palette-source"),
        ("palette te", "Palette text", "/instructions/palette-text"),
        ("counted", "counted", "/agents/counted/triggers"),
    ):
        await page.keyboard.press("Control+k")
        await page.keyboard.insert_text(text)
        await expect(page.get_by_role("option", name=entry)).to_be_visible()
        await page.get_by_role("option", name=entry).first.click()
        await expect(page).to_have_url(own_engine.url + address)
        await page.keyboard.press("Escape")
    await own_admin.post(f"/api/jobs/{running}/cancel")
