"""Mentions of the engine's account: what they start, and what others than members get."""

from typing import Any, Final

import pytest

from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.github.reporting import an_issue_of, deliver, published, set_up, until
from tests.acceptance.github.test_comment_commands import (
    FAILING,
    REPORT,
    STRANGER,
    a_failed_job,
    answered,
    answers_in,
    comment,
    jobs_of,
    reactions_to,
    refused,
    until_jobs,
)
from tests.acceptance.github.test_pull_request_replies import a_pull_request, follow_up_of
from tests.support.github import APP_LOGIN, GitHubStandIn
from tests.support.github.calls import Actor

BOT: Final = f"@{APP_LOGIN.removesuffix('[bot]')}"


async def set_up_with_login(engine: LocalEngine, admin: User, login: str = APP_LOGIN, **source: Any) -> None:
    """Set up a source and an agent, and wait until the source knows its login."""
    await set_up(admin, REPORT, **source)
    await wait_for_login(engine, login)


async def wait_for_login(engine: LocalEngine, login: str = APP_LOGIN) -> None:
    await until(lambda: engine.resources_with(f'"login":"{login}"') == ["WebhookSource github"])


async def test_a_mention_on_an_issue_starts_the_agent(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up_with_login(engine, admin)
        written, received = await comment(engine, github, issue, f"{BOT} please fix this")
        assert received["ignored"] == "no trigger matches; it asks for a follow-up, or an agent"
        await answered(github, written, "eyes")
        (job,) = await until_jobs(admin, 1)
        assert (await published(admin, job["id"]))["agentRole"] == "ai-developer"
        assert "please fix this" in (await admin.get(f"/api/jobs/{job['id']}/prompt")).text
    assert answers_in(github, issue) == []


async def test_a_mention_of_a_command_is_the_command(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up_with_login(engine, admin)
        job = await a_failed_job(engine, github, admin, issue)
        written, received = await comment(engine, github, issue, f"{BOT} retry")
        assert received["command"] == "retry"
        await answered(github, written, "+1")
        await admin.wait(job, "failed")
        assert [each["id"] for each in await jobs_of(admin)] == [job]


async def test_a_mention_on_its_pull_request_makes_the_agent_add_a_commit(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin)
        await wait_for_login(engine)
        written, _ = await comment(engine, github, pull, f"{BOT} please make it blue.")
        await answered(github, written, "eyes")
        assert (await follow_up_of(admin, first))["status"] == "completed"


async def test_a_mention_by_somebody_else_gets_one_reaction(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up_with_login(engine, admin)
        written, received = await comment(engine, github, issue, f"{BOT} please fix this", STRANGER)
        assert received["ignored"] == "its author is not one of `allowedAssociations`"
        await answered(github, written, "confused")
        other, _ = await comment(engine, github, issue, "I agree with @octo", STRANGER)
        assert await jobs_of(admin) == []
        await until(lambda: not engine.resources_with(f'"comment-{written["id"]}"'))  # it displaces no command
    assert reactions_to(github, written) == ["confused"]
    assert reactions_to(github, other) == answers_in(github, issue) == []


async def test_an_external_contributor_whom_the_source_admits_gets_a_reaction(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up_with_login(engine, admin, allowedAssociations=["OWNER", "MEMBER", "COLLABORATOR", "NONE"])
        written, _ = await comment(engine, github, issue, f"{BOT} please fix this", STRANGER)
        await answered(github, written, "confused")
        assert await jobs_of(admin) == []
    assert answers_in(github, issue) == []


async def test_a_mention_starts_the_last_agent_of_the_thread_or_asks_for_a_name(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue, other = github.demo.open_issue(), github.demo.open_issue("It is slow")
    github.demo.git.commit({"agent.py": FAILING})
    trigger = {"source": "github", "events": ["pull_request.opened"]}
    async with engine.admin() as admin:
        await set_up_with_login(engine, admin)
        reviewer = {"name": "ai-reviewer", "eventTriggers": [trigger], "defaultProvider": "claude"}
        assert (await admin.post("/api/agents", reviewer)).status_code == 201
        await published(admin, await deliver(engine, "issues", an_issue_of(github, other)))
        written, _ = await comment(engine, github, other, f"{BOT} once more, please")
        await answered(github, written, "eyes")
        assert [each["agentRole"] for each in await until_jobs(admin, 2)] == ["ai-developer"] * 2
        unclear, _ = await comment(engine, github, issue, f"{BOT} please look")
        answer = await refused(github, issue, unclear)
    assert answer == "No agent is started. Name one of `ai-developer`, `ai-reviewer`: `/labrats run AGENT`."


@pytest.mark.parametrize("user", [None, STRANGER])
async def test_the_login_of_a_personal_token_is_mentioned(
    engine: LocalEngine, github: GitHubStandIn, user: Actor | None
) -> None:
    github.access.add_person("ghp_test_token", "robot", 7)
    engine.set_secret("person", "token", "ghp_test_token")
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up_with_login(engine, admin, "robot", credentialsRef="person")
        written, _ = await comment(engine, github, issue, "@robot please fix this", user)
        await answered(github, written, "confused" if user else "eyes")
        assert len(await jobs_of(admin)) == (0 if user else 1)


async def test_a_mention_that_starts_an_agent_by_a_trigger_starts_no_other(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT, ["issue_comment.created"])
        await wait_for_login(engine)
        _, received = await comment(engine, github, issue, f"{BOT} please fix this")
        assert received["matched"] == 1
        await published(admin, received["jobs"][0]["jobId"])
        assert len(await jobs_of(admin)) == 1
