"""An engine that no webhook can reach: it reads the events of GitHub, and reports as usual."""

from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.conftest import EngineFactory
from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.github.reporting import (
    COMMITTING,
    an_issue_of,
    deliver,
    published,
    set_up,
    start_reporting,
    until,
)
from tests.acceptance.github.test_comment_commands import answered, jobs_of, until_jobs
from tests.support.deliveries import SECRET
from tests.support.github import Fault, GitHubStandIn

REPORT: Final[dict[str, Any]] = {"comment": "sticky", "pullRequest": {}}


@pytest.fixture
def engine(start_engine: EngineFactory, github: GitHubStandIn, claude_program: Path) -> LocalEngine:
    github.demo.git.commit({"agent.py": COMMITTING})
    return start_reporting(start_engine, github, LABRATS_CLAUDE_PATH=str(claude_program))


async def set_up_polling(admin: User, **source: Any) -> None:
    polling = {"mode": "poll", "repositories": ["octo/demo"], "secret": None}
    await set_up(admin, REPORT, None, **(polling | source))
    await until_read(admin)


async def until_read(admin: User) -> None:
    """Wait until the source has been read, as its status says."""
    while True:
        source = (await admin.get("/api/webhook-sources/github")).json()
        if source["lastPolledAt"]:
            return


async def test_a_label_is_read_and_its_job_opens_a_pull_request(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    issue.add_label("older")
    async with engine.admin() as admin:
        await set_up_polling(admin)
        github.faults.plan(Fault(502, "Server Error"), "GET /repos/{owner}/{repo}/issues/events")
        issue.add_label("ai")
        (job,) = await until_jobs(admin, 1)
        assert (await published(admin, job["id"]))["published"]["pullRequestUrl"]
        source = (await admin.get("/api/webhook-sources/github")).json()
    conditions = {each["type"]: each["status"] for each in source["conditions"]}
    assert conditions["Polling"] == conditions["Ready"] == "True"
    assert "Provisioned" not in conditions
    assert source["nextPollAt"] >= source["lastPolledAt"]
    assert source["rateRemaining"] > 4000
    assert source["url"] is None
    assert len(github.comments_of(issue)) == 1


async def test_an_event_starts_one_job_although_the_engine_is_killed_and_a_webhook_delivers_it(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up_polling(admin, secret=SECRET)
        issue.add_label("ai")
        labeled_at = issue.updated_at  # the engine's comments change the time
        (job,) = await until_jobs(admin, 1)
        payload = an_issue_of(github, issue, label={"name": "ai"})
        payload["issue"] |= {"id": issue.id, "updated_at": labeled_at}
        assert await deliver(engine, "issues", payload) == job["id"]
        await published(admin, job["id"])
    engine.kill()
    written = github.demo.comment(issue, "/labrats retry model=opus")
    engine.start()
    async with engine.admin() as admin:
        await answered(github, written, "eyes")
        jobs = await until_jobs(admin, 2)
        await published(admin, jobs[0]["id"])
        await until(lambda: len(github.calls_of("GET /repos/{owner}/{repo}/issues/events")) > 3)
        assert len(await jobs_of(admin)) == 2
