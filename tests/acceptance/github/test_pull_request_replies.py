"""Replies to pull requests of the engine: each is a follow-up of the job that made them."""

import asyncio
import threading
from typing import Any, Final

import pytest

from labrats.model.untrusted_commits import BRANCH_PREFIX
from tests.acceptance.engine import LocalEngine, User
from tests.acceptance.github.reporting import REPORT, SHORTER, an_issue_of, deliver, published, set_up
from tests.acceptance.github.test_comment_commands import (
    STRANGER,
    answered,
    comment,
    jobs_of,
    reactions_to,
    refused,
    until_jobs,
)
from tests.support.deliveries import github_headers, json_body
from tests.support.github import Fault, GitHubStandIn, Issue
from tests.support.github.calls import Json
from tests.support.github.state import OCTO, now
from tests.support.waiting import DEADLINE_SECONDS

PROGRAM: Final = """
if "Wait." in prompt:
    import time
    time.sleep(600)
elif "round" in prompt or "warm" in prompt:
    shape = "round" if "round" in prompt else "warm"
    commit(f"Make it {shape}", shape__txt=shape)
elif "blue" in prompt:
    commit("Make it blue", colour__txt="blue\\n")
    publish(comment=prompt)
else:
    commit("Add a colour", colour__txt="red\\n")
"""


async def a_pull_request(engine: LocalEngine, github: GitHubStandIn, admin: User, **report: Any) -> tuple[Json, Issue]:
    """Let an agent open a pull request. Return its job and the pull request."""
    github.demo.git.commit({"agent.py": PROGRAM})
    issue = github.demo.open_issue()
    await set_up(admin, REPORT | report)
    job = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
    (pull,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
    return job, pull


def losing_once(github: GitHubStandIn, branch: str) -> str:
    """Return a program during whose first run a person pushes a commit that conflicts with that of the agent."""
    theirs = {"agent.py": "commit('Make it blue', colour__txt='blue\\n')", "colour.txt": "green\n"}
    files = github.demo.git.commit(theirs, "theirs")
    git = ["git", "-C", str(github.demo.git.folder), "-c", "user.name=Octo", "-c", "user.email=octo@example.com"]
    return f"""
import subprocess
commit_tree = [*{git!r}, "commit-tree", "{files}^{{tree}}", "-p", {branch!r}, "-m", "Theirs"]
made = subprocess.run(commit_tree, check=True, capture_output=True, text=True).stdout.strip()
subprocess.run([*{git!r}, "update-ref", "refs/heads/{branch}", made], check=True)
commit("Make it blue", colour__txt="blue\\n")
"""


async def follow_up_of(admin: User, first: Json) -> Json:
    newest = (await until_jobs(admin, 2))[0]
    job = await published(admin, newest["id"])
    assert job["followUpOf"] == first["id"]
    return job


async def review(engine: LocalEngine, github: GitHubStandIn, pull: Issue, state: str, body: str, *lines: Json) -> None:
    """Submit a review with comments on lines, and deliver its event."""
    assert pull.pull
    submitted: Json = {"id": github.world.new_id(), "user": OCTO.user, "body": body, "state": state.upper()}
    submitted |= {"commit_id": pull.pull.head_sha, "submitted_at": now()}
    submitted["html_url"] = f"{pull.url}#pullrequestreview-{submitted['id']}"
    pull.pull.reviews.append(submitted)
    for line in lines:
        comment_id = github.world.new_id()
        anchor = {"original_line": 1, "original_start_line": None, "original_commit_id": pull.pull.head_sha}
        identity = {"id": comment_id, "pull_request_review_id": submitted["id"], "user": OCTO.user}
        identity["html_url"] = f"{pull.url}#discussion_r{comment_id}"
        pull.pull.comments.append(anchor | identity | line)
    payload = an_issue_of(github, pull, action="submitted")
    payload.pop("label")
    payload.pop("issue")
    payload["pull_request"] = pull.pull_json(pull.pull)
    payload["review"] = submitted | {"state": state, "author_association": "OWNER"}
    message = json_body(payload)
    async with engine.client() as client:
        headers = github_headers("pull_request_review", message)
        answer = await client.post("/webhooks/github", content=message, headers=headers)
    assert answer.status_code == 200, answer.text


async def test_a_comment_on_its_pull_request_makes_the_agent_add_a_commit(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin)
        pull.body = "A maintainer has rewritten this, without the hidden mark."
        written, _ = await comment(engine, github, pull, "Please make it blue.")
        await answered(github, written, "eyes")
        job = await follow_up_of(admin, first)
        assert (
            f"[follow-up of {first['id']}: resuming its session in a copy of its workspace]"
            in await admin.log_lines(job["id"])
        )
    assert job["status"] == "completed", job["failedReason"]
    assert job["published"]["refused"] == []
    assert job["outputs"]["pullRequestUrl"] == pull.url
    assert pull.pull
    assert github.demo.git.git("show", f"{pull.pull.head}:colour.txt") == "blue"
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Make it blue", "Add a colour"]
    assert len(github.pulls_of(github.demo, pull.pull.head)) == 1


async def test_a_reply_after_a_push_of_a_person_continues_from_the_branch(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin)
        assert pull.pull
        github.demo.git.commit({"more.txt": "of a person"}, branch=pull.pull.head, message="Add more")
        await comment(engine, github, pull, "Please make it blue.")
        job = await follow_up_of(admin, first)
        assert (
            f"[follow-up of {first['id']}: resuming its session in a new workspace with its changes]"
            in await admin.log_lines(job["id"])
        )
    assert job["published"]["refused"] == []
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Make it blue", "Add more", "Add a colour"]


async def test_a_reply_that_loses_the_race_with_a_conflicting_push_runs_once_more(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin)
        assert pull.pull
        program = {"agent.py": losing_once(github, pull.pull.head)}
        github.demo.git.commit(program, branch=pull.pull.head, message="Change the program")
        await comment(engine, github, pull, "Please make it blue.")
        again, lost = (await until_jobs(admin, 3))[:2]
        lost, again = [await published(admin, each["id"]) for each in (lost, again)]
    (refused,) = lost["published"]["refused"]
    assert refused.endswith("the changes conflict with the new commits in `colour.txt`, so the job runs once more")
    assert (again["rerunOf"], again["followUpOf"]) == (lost["id"], first["id"])
    assert again["published"]["refused"] == []
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Make it blue", "Theirs", "Change the program", "Add a colour"]


@pytest.fixture(params=[False, True], ids=["this version", "earlier version"])
def branches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The beginning of the branches of untrusted jobs. An earlier version did not mark them."""
    if not request.param:
        return BRANCH_PREFIX
    for name, value in {"BRANCH_PREFIX": "labrats/", "MARK": ""}.items():
        monkeypatch.setitem(SHORTER, f"labrats.github.reports.pull_request.{name}", value)
    return "labrats/"


@pytest.mark.parametrize("text", ["Please make it blue.", "/labrats run ai-developer", "/labrats retry model=opus"])
async def test_a_member_gives_the_code_of_an_external_contributor_no_trust(
    branches: str, engine: LocalEngine, github: GitHubStandIn, text: str
) -> None:
    github.demo.git.commit({"agent.py": PROGRAM})
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, REPORT, ["issues.opened"], allowedAssociations=["OWNER", "MEMBER", "COLLABORATOR", "NONE"])
        asked = an_issue_of(github, issue, action="opened", sender=STRANGER.user)
        first = await published(admin, await deliver(engine, "issues", asked))
        (pull,) = github.pulls_of(github.demo, f"{branches}ai-developer/{issue.number}")
        written, _ = await comment(engine, github, pull, text)
        await answered(github, written, "eyes")
        newest = (await until_jobs(admin, 2))[0]
        await admin.wait(newest["id"])
    assert sorted(engine.resources_with('"untrusted":true')) == sorted(
        f"InferenceRequest {each['id']}" for each in (first, newest)
    )


async def test_a_member_who_pushes_to_the_branch_for_an_external_contributor_gives_it_no_trust(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    github.demo.git.commit({"agent.py": PROGRAM})
    issue, admitted = github.demo.open_issue(), ["OWNER", "MEMBER", "COLLABORATOR", "NONE"]
    async with engine.admin() as admin:
        await set_up(admin, REPORT, ["issues.opened", "push"], allowedAssociations=admitted)
        asked = an_issue_of(github, issue, action="opened", sender=STRANGER.user)
        first = await published(admin, await deliver(engine, "issues", asked))
        branch = f"labrats-external/ai-developer/{issue.number}"
        github.demo.git.commit({"more.txt": "of a person"}, branch=branch, message="Add more")
        pushed = {key: value for key, value in an_issue_of(github, issue).items() if key in ("repository", "sender")}
        pushed |= {"commits": [], "pusher": {"name": "octo"}}
        pushes = [await deliver(engine, "push", pushed | {"ref": f"refs/heads/{each}"}) for each in (branch, "main")]
        for job_id in pushes:
            await admin.wait(job_id)
    assert sorted(engine.resources_with('"untrusted":true')) == sorted(
        f"InferenceRequest {each}" for each in (first["id"], pushes[0])
    )


async def test_commits_for_an_external_contributor_do_not_get_into_the_pull_request_of_a_member(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    github.demo.git.commit({"agent.py": PROGRAM})
    issue, admitted = github.demo.open_issue(), ["OWNER", "MEMBER", "COLLABORATOR", "NONE"]
    on_comments = {"source": "github", "events": ["issue_comment.created"], "filters": {"sender.login": "stranger"}}
    helper = {"name": "ai-helper", "eventTriggers": [on_comments], "defaultProvider": "claude", "report": REPORT}
    async with engine.admin() as admin:
        await set_up(admin, REPORT, allowedAssociations=admitted, allowForks=True)
        assert (await admin.post("/api/agents", helper)).status_code == 201
        first = await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))
        (pull,) = github.pulls_of(github.demo, f"labrats/ai-developer/{issue.number}")
        assert pull.pull
        before = github.demo.git.git("rev-parse", pull.pull.head)
        _, received = await comment(engine, github, pull, "Make it round.", STRANGER)
        helped = await published(admin, received["jobs"][0]["jobId"])
        assert github.demo.git.git("rev-parse", pull.pull.head) == before
        (theirs,) = github.pulls_of(github.demo, f"labrats-external/ai-helper/{pull.number}")
        assert theirs.pull
        assert (helped["outputs"]["pullRequestUrl"], theirs.pull.base) == (theirs.url, pull.pull.head)
        await comment(engine, github, pull, "Please make it blue.")
        job = await published(admin, (await until_jobs(admin, 3))[0]["id"])
    assert (job["status"], job["followUpOf"]) == ("completed", first["id"])
    assert job["published"]["pullRequestUrl"] == pull.url
    assert engine.resources_with('"untrusted":true') == [f"InferenceRequest {helped['id']}"]


async def test_the_commits_of_a_follow_up_have_its_check(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin, check={})
        assert pull.pull
        before = pull.pull.head_sha
        await comment(engine, github, pull, "Make it blue.")
        job = await follow_up_of(admin, first)
    assert github.demo.refresh(pull)
    checks = [check for head in (before, pull.pull.head_sha) for check in github.check_runs_of(github.demo, head)]
    assert [(check["external_id"], check["conclusion"]) for check in checks] == [
        (first["id"], "success"),
        (job["id"], "success"),
        (job["id"], "success"),
    ]
    assert job["published"]["checkUrl"] == checks[-1]["html_url"]


async def test_a_message_through_the_api_adds_a_commit_to_the_same_pull_request(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin)
        sent = await admin.post(f"/api/jobs/{first['id']}/messages", {"prompt": "Please make it blue."})
        job = await published(admin, sent.json()["jobId"])
    assert job["status"] == "completed", job["failedReason"]
    assert (job["published"]["refused"], job["published"]["pullRequestUrl"]) == ([], pull.url)
    assert pull.pull
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Make it blue", "Add a colour"]
    assert len(github.pulls_of(github.demo, pull.pull.head)) == 1


async def test_a_review_makes_the_agent_add_a_commit(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin)
        line = {
            "path": "colour.txt",
            "line": 1,
            "side": "RIGHT",
            "body": "Why red?",
            "diff_hunk": "@@ -0,0 +1 @@\n+red",
        }
        await review(engine, github, pull, "changes_requested", "It should be blue.", line)
        job = await follow_up_of(admin, first)
    assert job["outputs"]["pullRequestUrl"] == pull.url
    sticky = next(each["body"] for each in github.comments_of(pull) if "labrats:report" in each["body"])
    assert "It should be blue." in sticky
    assert "On colour.txt:1:\n> @@ -0,0 +1 @@\n> +red\n\nWhy red?" in sticky


async def test_an_approval_starts_nothing(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        _, pull = await a_pull_request(engine, github, admin)
        await review(engine, github, pull, "approved", "Very blue.")
        written, _ = await comment(engine, github, pull, "/labrats cancel")
        await refused(github, pull, written)
        assert len(await jobs_of(admin)) == 1


async def test_replies_that_are_no_follow_ups_start_nothing(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        _, pull = await a_pull_request(engine, github, admin)
        github.demo.git.commit({"flag.txt": "on"}, branch="mend")
        other = github.demo.open_pull("mend")
        ignored = [
            (await comment(engine, github, other, "Make it blue."))[0],
            (await comment(engine, github, pull, "Make it blue.", STRANGER))[0],
        ]
        pull.state = "closed"
        ignored.append((await comment(engine, github, pull, "Make it blue."))[0])
        last, _ = await comment(engine, github, other, "/labrats help")
        await answered(github, last, "+1")
        assert [reactions_to(github, each) for each in ignored] == [[], [], []]
        assert len(await jobs_of(admin)) == 1


async def test_a_report_without_follow_ups_ignores_replies(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        _, pull = await a_pull_request(engine, github, admin, pullRequest={"followUps": False})
        await comment(engine, github, pull, "Make it blue.")
        last, _ = await comment(engine, github, pull, "/labrats help")
        await answered(github, last, "+1")
        assert len(await jobs_of(admin)) == 1


async def test_replies_while_the_agent_works_follow_one_after_the_other(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        working, pull = await a_working_agent(engine, github, admin)
        replies = [(await comment(engine, github, pull, f"Make it {text}."))[0] for text in ("round", "warm")]
        for reply in replies:
            await answered(github, reply, "eyes")
        assert len(await jobs_of(admin)) == 2
        await admin.cancel(working["id"])
        warm, round_, _, _ = await until_jobs(admin, 4)
        ended = [await published(admin, each["id"]) for each in (round_, warm)]
    for job, text in zip(ended, ("round", "warm"), strict=True):
        assert job["published"]["refused"] == []
        assert github.demo.git.git("show", f"{job['outputs']['commit']}:shape.txt") == text
    assert ended[0]["finishedAt"] <= ended[1]["createdAt"]
    assert [reactions_to(github, each) for each in replies] == [["eyes", "+1"], ["eyes", "+1"]]


async def test_a_reply_waits_for_the_commits_of_the_last_one(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        _, pull = await a_pull_request(engine, github, admin)
        pushed = threading.Event()
        github.faults.plan(Fault(release=pushed), "POST git-receive-pack")
        await comment(engine, github, pull, "Make it round.")
        round_ = (await until_jobs(admin, 2))[0]["id"]
        await admin.wait(round_)
        reply, _ = await comment(engine, github, pull, "Make it warm.")
        await answered(github, reply, "eyes")
        assert len(await jobs_of(admin)) == 2
        pushed.set()
        warm = (await until_jobs(admin, 3))[0]["id"]
        jobs = [await published(admin, each) for each in (round_, warm)]
    assert [job["published"]["refused"] for job in jobs] == [[], []]
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head if pull.pull else ''}").splitlines()
    assert log == ["Make it warm", "Make it round", "Add a colour"]


async def test_an_agent_that_is_started_by_a_command_waits_for_commits_too(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    async with engine.admin() as admin:
        _, pull = await a_pull_request(engine, github, admin)
        pushed = threading.Event()
        github.faults.plan(Fault(release=pushed), "POST git-receive-pack")
        await comment(engine, github, pull, "Make it round.")
        await admin.wait((await until_jobs(admin, 2))[0]["id"])
        await comment(engine, github, pull, "/labrats run ai-developer\n\nMake it blue.")
        later, _ = await comment(engine, github, pull, "/labrats retry")  # carried out after the one before it
        await answered(github, later, "confused")
        assert len(await jobs_of(admin)) == 2
        pushed.set()
        blue = await published(admin, (await until_jobs(admin, 3))[0]["id"])
    assert blue["published"]["refused"] == []
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head if pull.pull else ''}").splitlines()
    assert log == ["Make it blue", "Make it round", "Add a colour"]


async def test_a_cancel_drops_the_replies_that_wait(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        working, pull = await a_working_agent(engine, github, admin)
        reply, _ = await comment(engine, github, pull, "Make it round.")
        await answered(github, reply, "eyes")
        cancel, _ = await comment(engine, github, pull, "/labrats cancel")
        await answered(github, cancel, "+1")
        assert (await published(admin, working["id"]))["status"] == "cancelled"
        last, _ = await comment(engine, github, pull, "/labrats help")
        await answered(github, last, "+1")
        assert len(await jobs_of(admin)) == 2


async def a_working_agent(engine: LocalEngine, github: GitHubStandIn, admin: User) -> tuple[Json, Issue]:
    """Let an agent open a pull request, and then work on a reply to it. Return the job that works."""
    _, pull = await a_pull_request(engine, github, admin)
    await comment(engine, github, pull, "Wait.")
    job = (await until_jobs(admin, 2))[0]
    async with asyncio.timeout(DEADLINE_SECONDS), admin.log_stream(job["id"]) as events:
        async for event in events:  # a job that is cancelled before its session has none to continue
            if event.data == {"log": "Claude Code 0, stand-in"}:
                break
    return job, pull
