"""Check runs of jobs: their annotations, and the buttons that people can click."""

import asyncio
from typing import Any, Final

import pytest

from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.github.reporting import a_pull_request_of, deliver, published, set_up, until
from tests.acceptance.github.test_comment_commands import WAITING, jobs_of, until_jobs
from tests.support.deliveries import github_headers, json_body
from tests.support.github import Fault, GitHubStandIn, Issue
from tests.support.github.calls import Json
from tests.support.github.state import OCTO
from tests.support.waiting import DEADLINE_SECONDS

REPORT: Final[dict[str, Any]] = {"check": {}}
FAILING_ONCE: Final = """
if not os.path.exists("tried"):
    write("tried", "")
    raise SystemExit(1)
"""
FINDINGS: Final = 60
FINDING: Final = f"""
publish(findings=[
    {{"path": "flag.txt", "line": n + 1, "severity": "info", "title": f"Finding {{n}}", "body": "Look."}}
    for n in range({FINDINGS})
])
"""
UPDATE: Final = "PATCH /repos/{owner}/{repo}/check-runs/{check_run_id}"


async def start(engine: LocalEngine, github: GitHubStandIn, admin: User, program: str) -> tuple[str, Issue]:
    """Start a job about a pull request. Return its id and the pull request."""
    github.demo.git.commit({"agent.py": program}, branch="mend")
    pull = github.demo.open_pull("mend")
    await set_up(admin, REPORT, ["pull_request.opened"])
    return await deliver(engine, "pull_request", a_pull_request_of(github, pull)), pull


def check_of(github: GitHubStandIn, pull: Issue) -> Json:
    assert pull.pull
    return github.check_runs_of(github.demo, pull.pull.head_sha)[-1]


async def click(
    engine: LocalEngine, pull: Issue, check: Json, action: str, sender: str = "User", **button: str
) -> Json:
    """Click a button of a check run, and return the answer to the delivery."""
    requested = {"requested_action": button} if button else {}
    payload = requested | {
        "action": action,
        "check_run": check | {"pull_requests": [{"number": pull.number}]},
        "repository": pull.repository.as_json(),
        "sender": OCTO.user | {"type": sender},
    }
    body = json_body(payload)
    async with engine.client() as client:
        answer = await client.post("/webhooks/github", content=body, headers=github_headers("check_run", body))
    received: Json = answer.json()
    return received


@pytest.mark.parametrize("fault", [Fault(), Fault(lost=True)], ids=["usual", "lost"])
async def test_each_finding_is_one_annotation(engine: LocalEngine, github: GitHubStandIn, fault: Fault) -> None:
    async with engine.admin() as admin:
        github.faults.plan(fault, UPDATE, times=3)
        job_id, pull = await start(engine, github, admin, FINDING)
        await published(admin, job_id)
    check = check_of(github, pull)
    annotations = github.demo.annotations[check["id"]]
    assert [each["title"] for each in annotations] == [f"Finding {number}" for number in range(FINDINGS)]
    assert annotations[0] | {"title": ""} == {
        "path": "flag.txt",
        "start_line": 1,
        "end_line": 1,
        "annotation_level": "notice",
        "message": "Look.",
        "title": "",
    }


async def test_the_cancel_button_cancels_the_job(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        job_id, pull = await start(engine, github, admin, WAITING)
        await admin.wait(job_id, "active")
        await until(lambda: bool(pull.pull and github.check_runs_of(github.demo, pull.pull.head_sha)))
        check = check_of(github, pull)
        assert [each["identifier"] for each in check["actions"]] == ["cancel"]
        received = await click(engine, pull, check, "requested_action", identifier="cancel")
        assert received["command"] == "cancel"
        assert (await published(admin, job_id))["status"] == "cancelled"
    assert check_of(github, pull)["conclusion"] == "cancelled"
    assert check_of(github, pull)["actions"] == []


@pytest.mark.parametrize("button", [{}, {"identifier": "retry"}], ids=["re-run", "retry"])
async def test_a_failed_job_is_retried_from_its_check(
    engine: LocalEngine, github: GitHubStandIn, button: dict[str, str]
) -> None:
    async with engine.admin() as admin:
        job_id, pull = await start(engine, github, admin, FAILING_ONCE)
        await published(admin, job_id)
        check = check_of(github, pull)
        assert [each["identifier"] for each in check["actions"]] == ["retry"]
        for _ in range(2):
            await click(engine, pull, check, "requested_action" if button else "rerequested", **button)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await admin.job(job_id))["attempts"] < 2:
                await asyncio.sleep(0.05)
        job = await published(admin, job_id)
    assert (job["attempts"], job["status"]) == (2, "completed")
    assert github.demo.check_runs[check["id"]]["conclusion"] == "success"


async def test_the_re_run_of_a_job_that_succeeded_is_a_new_job(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        job_id, pull = await start(engine, github, admin, "")
        await published(admin, job_id)
        await click(engine, pull, check_of(github, pull), "rerequested")
        newest = (await until_jobs(admin, 2))[0]
        job = await published(admin, newest["id"])
    assert job["rerunOf"] == job_id
    assert pull.pull
    checks = github.check_runs_of(github.demo, pull.pull.head_sha)
    assert [each["external_id"] for each in checks] == [job_id, newest["id"]]


async def test_a_bot_clicks_no_buttons(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        job_id, pull = await start(engine, github, admin, "")
        await published(admin, job_id)
        received = await click(engine, pull, check_of(github, pull), "rerequested", sender="Bot")
        assert "command" not in received
        assert len(await jobs_of(admin)) == 1
