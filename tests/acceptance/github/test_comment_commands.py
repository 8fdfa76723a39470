"""Commands in comments: what each does, who may give it, and what the thread gets as an answer."""

import asyncio
import threading
from typing import Any, Final

import pytest

from labrats.github.events.comment_commands import MEMBERS_ONLY
from tests.acceptance.engine import Engine, LocalEngine, User
from tests.acceptance.github.reporting import (
    an_issue_of,
    deliver,
    published,
    set_up,
    until,
)
from tests.support.deliveries import github_headers, json_body
from tests.support.github import APP_LOGIN, Fault, GitHubStandIn, Issue
from tests.support.github.calls import Actor, Json
from tests.support.waiting import DEADLINE_SECONDS

REPORT: Final[dict[str, Any]] = {"comment": "sticky"}
ON_COMMENTS: Final = ["issues.labeled", "pull_request.opened", "issue_comment.created"]
STRANGER: Final = Actor("person", "stranger", 2)
FAILING: Final = "raise SystemExit(1)"
WAITING: Final = "import time\ntime.sleep(600)"


async def comment(
    engine: Engine, github: GitHubStandIn, issue: Issue, text: str, user: Actor | None = None, **fields: Any
) -> tuple[Json, Json]:
    """Write a comment, deliver its event, and return the comment and the answer to the delivery."""
    written = github.demo.comment(issue, text, *([user] if user else []))
    if user:
        written["author_association"] = "NONE"
    return written, await deliver_comment(engine, github, issue, written, **fields)


async def deliver_comment(engine: Engine, github: GitHubStandIn, issue: Issue, written: Json, **fields: Any) -> Json:
    payload = an_issue_of(github, issue, action="created", **fields)
    payload.pop("label")
    payload["comment"] = written
    payload["sender"] = written["user"] | {"type": "User"}
    payload["issue"] |= {"html_url": issue.url} | ({"pull_request": {"html_url": issue.url}} if issue.pull else {})
    body = json_body(payload)
    async with engine.client() as client:
        answer = await client.post("/webhooks/github", content=body, headers=github_headers("issue_comment", body))
    assert answer.status_code == 200, answer.text
    received: Json = answer.json()
    return received


def reactions_to(github: GitHubStandIn, written: Json) -> list[str]:
    return [each["content"] for each in github.demo.reactions_to(written)]


def answers_in(github: GitHubStandIn, issue: Issue) -> list[str]:
    """Return the answers of the engine to commands, as people see them."""
    return [
        each["body"].partition("<!-- labrats:agent -->\n")[2]
        for each in github.comments_of(issue)
        if each["user"]["login"] == APP_LOGIN and "labrats:answer" in each["body"]
    ]


async def answered(github: GitHubStandIn, written: Json, reaction: str) -> None:
    await until(lambda: reaction in reactions_to(github, written))


async def refused(github: GitHubStandIn, issue: Issue, written: Json) -> str:
    """Wait for the answer to a command that is not carried out, and return it."""
    await until(lambda: bool(answers_in(github, issue)))
    assert reactions_to(github, written) == ["confused"]
    (answer,) = answers_in(github, issue)
    return answer


async def a_failed_job(engine: LocalEngine, github: GitHubStandIn, admin: User, issue: Issue) -> str:
    github.demo.git.commit({"agent.py": FAILING})
    job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    assert job["status"] == "failed"
    return str(job["id"])


async def jobs_of(admin: User) -> list[Json]:
    found: list[Json] = (await admin.get("/api/jobs")).json()["jobs"]
    return found


async def until_jobs(admin: User, count: int) -> list[Json]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(found := await jobs_of(admin)) < count:
            await asyncio.sleep(0.05)
    return found


async def test_cancel_stops_the_jobs_of_the_thread_alone(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.commit({"agent.py": WAITING})
    issue, other = github.demo.open_issue(), github.demo.open_issue("It is slow")
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job, others = [await deliver(engine, "issues", an_issue_of(github, each)) for each in (issue, other)]
        await admin.wait(job, "active")
        written, received = await comment(engine, github, issue, "Wrong branch, sorry.\n\n/labrats cancel\n")
        assert received == {"ok": True, "command": "cancel", "matched": 0, "jobs": []}
        cancelled = await published(admin, job)
        assert cancelled["status"] == "cancelled"
        assert (await admin.job(others))["status"] in ("waiting", "active")
        await answered(github, written, "+1")
        assert answers_in(github, issue) == []
        await admin.post(f"/api/jobs/{others}/cancel")
        await admin.wait(others)


async def test_retry_retries_the_failed_job_once_however_often_it_is_delivered(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job_id = await a_failed_job(engine, github, admin, issue)
        written, _ = await comment(engine, github, issue, "/labrats retry")
        await answered(github, written, "+1")
        job = await published(admin, job_id)
        assert (job["status"], job["attempts"]) == ("failed", 2)
        assert (await deliver_comment(engine, github, issue, written))["command"] == "retry"
        github.demo.git.commit({"agent.py": ""})
        again, _ = await comment(engine, github, issue, "/labrats retry")
        await answered(github, again, "+1")
        job = await published(admin, job_id)
        assert (job["status"], job["attempts"]) == ("completed", 3)


async def test_retry_with_a_model_runs_the_job_again_with_it(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        first = await a_failed_job(engine, github, admin, issue)
        github.demo.git.commit({"agent.py": ""})
        written, _ = await comment(engine, github, issue, "/labrats retry model=claude-opus-5-5")
        await answered(github, written, "eyes")
        newest = (await until_jobs(admin, 2))[0]
        job = await published(admin, newest["id"])
        assert (job["model"], job["status"], job["rerunOf"]) == ("claude-opus-5-5", "completed", first)
        sticky = [each for each in github.comments_of(issue) if "labrats:report" in each["body"]]
        assert [newest["id"] in each["body"] for each in sticky] == [True, True]


@pytest.mark.parametrize(
    ("program", "text", "answer"),
    [
        ("", "/labrats retry", "has not failed: it is completed. `/labrats run AGENT` starts a new one."),
        ("", "/labrats cancel", "No job of this thread is waiting or running."),
        ("", "/labrats cancel ai-writer", "No job of `ai-writer` here is waiting or running."),
    ],
)
async def test_a_command_without_a_fitting_job_is_answered_with_the_reason(
    engine: LocalEngine, github: GitHubStandIn, program: str, text: str, answer: str
) -> None:
    github.demo.git.commit({"agent.py": program})
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
        written, _ = await comment(engine, github, issue, text)
        assert answer in await refused(github, issue, written)


async def test_run_starts_an_agent_on_the_pull_request_as_it_is(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.commit({"agent.py": "publish(comment=prompt[-20000:])"})
    github.demo.git.commit({"flag.txt": "on"}, branch="mend")
    pull = github.demo.open_pull("mend")
    async with engine.admin() as admin:
        await set_up(admin, REPORT | {"check": {}})
        written, received = await comment(engine, github, pull, "/labrats run ai-developer model=claude-opus-5-5")
        assert received["matched"] == 0
        await answered(github, written, "eyes")
        (newest,) = await until_jobs(admin, 1)
        job = await published(admin, newest["id"])
    assert (job["status"], job["model"], job["agentRole"]) == ("completed", "claude-opus-5-5", "ai-developer")
    assert job["metadata"]["number"] == pull.number
    assert pull.pull
    (check,) = github.check_runs_of(github.demo, pull.pull.head_sha)
    assert check["conclusion"] == "success"
    sticky = next(each["body"] for each in github.comments_of(pull) if "labrats:report" in each["body"])
    assert "Do it." in sticky
    assert "/labrats run ai-developer" in sticky


async def test_run_on_a_closed_pull_request_does_not_publish_its_commits_again(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue = github.demo.open_issue()
    program = 'write("AGENTS.md", "x") if not os.path.exists("AGENTS.md") else write("b", "harmless")\ncommit("Change")'
    github.demo.git.commit({"agent.py": program})
    async with engine.admin() as admin:
        await set_up(admin, REPORT | {"pullRequest": {}})
        await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
        (closed,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
        closed.state = "closed"
        await comment(engine, github, closed, "/labrats run ai-developer")
        newest, _ = await until_jobs(admin, 2)
        job = await published(admin, newest["id"])
    problem = "no pull request: the branch `main` does not have the commit that the agent started from"
    assert job["published"]["refused"] == [problem]
    assert sum(each.pull is not None for each in github.demo.issues.values()) == 1


async def test_run_starts_nothing_on_the_code_of_a_fork(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.access.installed = {"octo/demo"}
    fork = github.add_repository("fork/demo", fork_of=github.demo)
    fork.git.commit({"flag.txt": "on"}, branch="mend")
    pull = github.demo.open_pull("mend", source=fork)
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        written, _ = await comment(engine, github, pull, "/labrats run ai-developer")
        answer = await refused(github, pull, written)
        assert "it is about the code of a fork, and `allowForks` is false" in answer
        granted = [each["permissions"] for each in github.access.grants]
        read, write = {"pull_requests": "read"}, {"pull_requests": "write"}
        assert granted == [{"metadata": "read"}, read, {"metadata": "read"}, write]
        assert await jobs_of(admin) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("/labrats run ai-painter", "No agent `ai-painter` can be started here."),
        ("/labrats run", "`/labrats run` needs the name of an agent."),
        ("/labrats dance", "`dance` is no command."),
        ("/labrats retry effort=high", "`effort=high` is no option: there is only `model=MODEL`."),
    ],
)
async def test_a_wrong_command_is_answered_with_what_would_be_right(
    engine: LocalEngine, github: GitHubStandIn, text: str, problem: str
) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        written, _ = await comment(engine, github, issue, text)
        answer = await refused(github, issue, written)
        assert answer.startswith(problem)
        assert "`/labrats run AGENT` starts an agent" in answer
        assert answer.endswith("Agents: `ai-developer`.")


async def test_help_lists_the_commands_and_agents(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        written, _ = await comment(engine, github, issue, "/labrats help")
        await answered(github, written, "+1")
        await until(lambda: bool(answers_in(github, issue)))
        assert answers_in(github, issue)[0].endswith("Agents: `ai-developer`.")


@pytest.mark.parametrize("text", ["> /labrats cancel", "```\n/labrats cancel\n```", "I wrote /labrats cancel."])
async def test_a_quoted_command_is_none(engine: LocalEngine, github: GitHubStandIn, text: str) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        _, received = await comment(engine, github, issue, text)
    assert "command" not in received


async def test_a_command_starts_no_agent_by_a_trigger(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.commit({"agent.py": ""})
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT, ON_COMMENTS)
        _, received = await comment(engine, github, issue, "/labrats cancel")
        assert received["jobs"] == []
        _, received = await comment(engine, github, issue, "Please mend it.")
        (job,) = received["jobs"]
        await published(admin, job["jobId"])


async def test_a_stranger_gives_no_commands(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        written, received = await comment(engine, github, issue, "/labrats help", STRANGER)
    assert received["ignored"] == "its author is not one of `allowedAssociations`"
    assert reactions_to(github, written) == []


async def test_an_external_contributor_commands_no_jobs_of_members(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.commit({"agent.py": WAITING})
    issue = github.demo.open_issue()
    associations = ["OWNER", "MEMBER", "COLLABORATOR", "NONE"]
    async with engine.admin() as admin:
        await set_up(admin, REPORT, allowedAssociations=associations)
        job = await deliver(engine, "issues", an_issue_of(github, issue))
        await admin.wait(job, "active")
        written, _ = await comment(engine, github, issue, "/labrats cancel", STRANGER)
        assert "No job of this thread is waiting or running." in await refused(github, issue, written)
        assert (await admin.job(job))["status"] == "active"
        await admin.post(f"/api/jobs/{job}/cancel")
        await admin.wait(job)


async def test_an_external_contributor_runs_no_agent(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT, allowedAssociations=["OWNER", "MEMBER", "COLLABORATOR", "NONE"])
        written, _ = await comment(engine, github, issue, "/labrats run ai-developer", STRANGER)
        assert await refused(github, issue, written) == MEMBERS_ONLY
        assert await jobs_of(admin) == []


async def test_run_starts_no_agent_of_another_repository(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    trigger = {"source": "github", "events": ["issues.labeled"], "filters": {"repository.full_name": "octo/other"}}
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        answer = await admin.post("/api/agents", {"name": "ai-deployer", "eventTriggers": [trigger]})
        assert answer.status_code == 201, answer.text
        written, _ = await comment(engine, github, issue, "/labrats run ai-deployer")
        assert "No agent `ai-deployer` can be started here." in await refused(github, issue, written)
        assert await jobs_of(admin) == []


async def test_a_source_without_credentials_takes_no_commands(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT, credentialsRef=None)
        _, received = await comment(engine, github, issue, "/labrats help")
    assert "credentialsRef" in received["ignored"]


async def test_the_preview_mode_answers_nothing(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT, repoOverrides={"octo/demo": {"report": {"mode": "preview"}}})
        written, _ = await comment(engine, github, issue, "/labrats help")
        handled = f'"answeredRequests":["comment-{written["id"]}"]'
        await until(lambda: engine.resources_with(handled) == ["WebhookSource github"])
    assert github.writes() == []


async def test_an_answer_is_written_once_although_the_engine_is_killed_while_it_is_written(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    issue, release = github.demo.open_issue(), threading.Event()
    create = "POST /repos/{owner}/{repo}/issues/{issue_number}/comments"
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        github.faults.plan(Fault(release=release), create)
        written, _ = await comment(engine, github, issue, "/labrats help")
        await until(lambda: bool(answers_in(github, issue)))
    engine.kill()
    release.set()
    engine.start()
    handled = f'"answeredRequests":["comment-{written["id"]}"]'
    await until(lambda: engine.resources_with(handled) == ["WebhookSource github"])
    assert len(answers_in(github, issue)) == 1


async def test_a_command_to_run_an_agent_starts_one_job_although_the_engine_is_killed(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    github.demo.git.commit({"agent.py": ""})
    issue, release = github.demo.open_issue(), threading.Event()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        github.faults.plan(Fault(release=release), "GET /repos/{owner}/{repo}")
        written, _ = await comment(engine, github, issue, "/labrats run ai-developer")
        await until(lambda: bool(github.calls_of("GET /repos/{owner}/{repo}/issues/{issue_number}")))
    engine.kill()
    release.set()
    engine.start()
    async with engine.admin() as admin:
        (job,) = await until_jobs(admin, 1)
        await published(admin, job["id"])
        await answered(github, written, "eyes")
        assert len(await jobs_of(admin)) == 1


async def test_publish_writes_the_report_of_the_last_job_again(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT)
        job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
        github.comments_of(issue).clear()
        asked, _ = await comment(engine, github, issue, "/labrats publish")
        await until(lambda: any(f"`{job['id']}`" in each["body"] for each in github.comments_of(issue)))
        await until(lambda: reactions_to(github, asked) == ["eyes"])
        github.comments_of(issue).clear()
        assert (await admin.post(f"/api/jobs/{job['id']}/publish")).status_code == 200
        await until(lambda: any(f"`{job['id']}`" in each["body"] for each in github.comments_of(issue)))
        assert len(await jobs_of(admin)) == 1
