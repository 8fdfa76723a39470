"""Reviews and checks are about the commit that the agent has seen, and only about what it has said."""

from pathlib import Path
from typing import Any, Final

import pytest

from tests.acceptance.engine import LocalEngine
from tests.acceptance.github.reporting import a_pull_request_of, deliver, published, set_up, until
from tests.acceptance.github.test_comment_commands import comment, jobs_of, until_jobs
from tests.support.github import APP_LOGIN, Fault, GitHubStandIn, Issue
from tests.support.github.calls import Json

REVIEW: Final[dict[str, Any]] = {"check": {}, "review": {"event": "APPROVE"}}
FINDING: Final[dict[str, Any]] = {"path": "new.txt", "line": 1, "severity": "error", "title": "Wrong"}
MOVED: Final = "review: the pull request has new commits, which the agent has not seen"
ONCE_MORE: Final = f"{MOVED}, so the job runs once more"


def open_pull(github: GitHubStandIn, program: str) -> Issue:
    """Open a pull request of a person, whose branch has the program of the agent."""
    github.demo.git.commit({"new.txt": "new\n", "agent.py": program}, "fix")
    return github.demo.open_pull("fix")


def moving_to(github: GitHubStandIn, commit: str, then: str) -> str:
    """Return a program that lets the branch have another head while the agent works."""
    command = ["git", "-C", str(github.demo.git.folder), "update-ref", "refs/heads/fix", commit]
    return f"import subprocess\nsubprocess.run({command!r}, check=True)\n{then}"


async def review(engine: LocalEngine, github: GitHubStandIn, issue: Issue, report: dict[str, Any] = REVIEW) -> Json:
    async with engine.admin() as admin:
        await set_up(admin, report, ["pull_request.opened"])
        return await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))


async def test_a_review_is_of_the_commit_that_was_cloned(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = open_pull(github, f"publish(findings=[{FINDING!r}])")
    event = a_pull_request_of(github, issue)
    pushed = github.demo.git.commit({"more.txt": "more\n"}, "fix")
    async with engine.admin() as admin:
        await set_up(admin, REVIEW, ["pull_request.opened"])
        job = await published(admin, await deliver(engine, "pull_request", event))
    assert issue.pull
    assert [each["commit_id"] for each in issue.pull.reviews] == [pushed]
    (check,) = github.check_runs_of(github.demo, event["pull_request"]["head"]["sha"])
    assert (check["status"], check["conclusion"]) == ("completed", "neutral")
    assert check["output"]["title"] == f"no verdict: the agent has seen {pushed[:7]} instead of this commit"
    assert job["published"]["refused"] == []


async def test_nothing_is_approved_when_the_head_moves_during_the_work(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    unseen = github.demo.git.commit({"unseen.txt": "unseen\n"}, "other")
    issue = open_pull(github, moving_to(github, unseen, "publish(findings=[])"))
    seen = a_pull_request_of(github, issue)["pull_request"]["head"]["sha"]
    job = await review(engine, github, issue)
    assert issue.pull
    assert job["published"]["refused"] == [ONCE_MORE]
    assert not [each for each in issue.pull.reviews if each["state"] == "APPROVED"]
    (check,) = github.check_runs_of(github.demo, seen)
    assert check["conclusion"] == "success"
    assert github.check_runs_of(github.demo, unseen) == []


async def test_a_review_runs_once_more_on_commits_that_were_pushed_meanwhile(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    approving = {"new.txt": "new\n", "agent.py": "publish(findings=[])"}
    rewritten = github.demo.git.commit(approving, "other")
    issue = open_pull(github, moving_to(github, rewritten, "publish(findings=[])"))
    first = await review(engine, github, issue)
    async with engine.admin() as admin:
        newest = (await until_jobs(admin, 2))[0]
        again = await published(admin, newest["id"])
    assert issue.pull
    assert [(each["state"], each["commit_id"]) for each in issue.pull.reviews] == [("APPROVED", rewritten)]
    assert (again["rerunOf"], again["published"]["refused"]) == (first["id"], [])
    (check,) = github.check_runs_of(github.demo, rewritten)
    assert check["conclusion"] == "success"


async def test_a_review_runs_at_most_once_more(engine: LocalEngine, github: GitHubStandIn) -> None:
    git = ["git", "-C", str(github.demo.git.folder), "-c", "user.name=Octo", "-c", "user.email=octo@example.com"]
    moving = (
        "import subprocess\n"
        f"git = {git!r}\n"
        "def run(*arguments):\n"
        "    return subprocess.run([*git, *arguments], check=True, capture_output=True, text=True).stdout.strip()\n"
        "new = run('commit-tree', 'fix^{tree}', '-p', 'fix', '-m', 'Theirs')\n"
        "run('update-ref', 'refs/heads/fix', new)\n"
        "publish(findings=[])\n"
    )
    first = await review(engine, github, open_pull(github, moving))
    async with engine.admin() as admin:
        again = await published(admin, (await until_jobs(admin, 2))[0]["id"])
        assert len(await jobs_of(admin)) == 2
    assert [job["published"]["refused"] for job in (first, again)] == [[ONCE_MORE], [MOVED]]


async def test_a_review_does_not_run_once_more_if_an_event_has_started_one_for_the_new_head(
    engine: LocalEngine, github: GitHubStandIn, tmp_path: Path
) -> None:
    has_started, is_pushed = tmp_path / "has-started", tmp_path / "is-pushed"
    waiting = f"import time\nwhile not os.path.exists({str(is_pushed)!r}):\n    time.sleep(0.02)\n"
    issue = open_pull(github, f"open({str(has_started)!r}, 'w').close()\n{waiting}publish(findings=[])")
    async with engine.admin() as admin:
        await set_up(admin, REVIEW, ["pull_request.opened", "pull_request.synchronize"])
        first = await deliver(engine, "pull_request", a_pull_request_of(github, issue))
        await until(has_started.exists)
        pushed = github.demo.git.commit({"more.txt": "more"}, "fix")
        second = await deliver(engine, "pull_request", a_pull_request_of(github, issue, "synchronize"))
        is_pushed.touch()
        assert (await published(admin, first))["published"]["refused"] == [ONCE_MORE]
        await published(admin, second)
        await until(lambda: not engine.resources_with('"action":"rerun"'))
        assert len(await jobs_of(admin)) == 2
    assert issue.pull
    assert [each["commit_id"] for each in issue.pull.reviews] == [pushed]


async def test_a_commit_that_was_hidden_from_the_agent_is_not_approved(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    bad = github.demo.git.commit({"bad.txt": "bad\n"}, "fix")
    issue = github.demo.open_pull("fix")
    event = a_pull_request_of(github, issue)
    github.demo.git.commit({"agent.py": moving_to(github, bad, "publish(findings=[])")}, "fix")
    async with engine.admin() as admin:
        await set_up(admin, REVIEW, ["pull_request.opened"])
        job = await published(admin, await deliver(engine, "pull_request", event))
    assert issue.pull
    assert job["published"]["refused"] == [ONCE_MORE]
    assert not [each for each in issue.pull.reviews if each["state"] == "APPROVED"]
    (check,) = github.check_runs_of(github.demo, bad)
    assert check["conclusion"] == "neutral"


async def test_the_check_of_a_job_without_a_commit_stays_on_the_first_one(
    engine: LocalEngine, github: GitHubStandIn, tmp_path: Path
) -> None:
    unseen = github.demo.git.commit({"unseen.txt": "unseen\n"}, "other")
    has_check = tmp_path / "has-check"
    waiting = f"import time\nwhile not os.path.exists({str(has_check)!r}):\n    time.sleep(0.02)\n"
    issue = open_pull(github, waiting + moving_to(github, unseen, "publish(findings=[])"))
    seen = github.demo.git.resolve("refs/heads/fix")
    assert seen
    async with engine.admin() as admin:
        await set_up(admin, REVIEW, ["issue_comment.created"], allowForks=True)
        _, answer = await comment(engine, github, issue, "Please review it.")
        await until(lambda: bool(github.check_runs_of(github.demo, seen)))
        has_check.touch()
        job = await published(admin, answer["jobs"][0]["jobId"])
    assert issue.pull
    assert job["published"]["refused"] == [ONCE_MORE]
    assert not [each for each in issue.pull.reviews if each["state"] == "APPROVED"]
    (check,) = github.check_runs_of(github.demo, seen)
    assert (check["status"], check["conclusion"]) == ("completed", "success")
    assert github.check_runs_of(github.demo, unseen) == []


@pytest.mark.parametrize(
    "program",
    ["publish(findings=[{'path': 'a', 'lines': 3}])", "publish(findings=[{'path': 'a'}] * 101)"],
    ids=["unknown field", "too many"],
)
async def test_an_invalid_publication_approves_and_resolves_nothing(
    engine: LocalEngine, github: GitHubStandIn, program: str
) -> None:
    issue = open_pull(github, f"publish(findings=[{FINDING!r}])")
    async with engine.admin() as admin:
        await set_up(admin, REVIEW, ["pull_request.opened"])
        await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
        github.demo.git.commit({"agent.py": program}, "fix")
        job = await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
    assert issue.pull
    assert ([each["state"] for each in issue.pull.reviews], issue.pull.resolved) == (["COMMENTED"], {})
    (reason,) = job["published"]["refused"]
    assert reason.startswith("publish.json: findings")
    (check,) = github.check_runs_of(github.demo, issue.pull.head_sha)
    assert check["conclusion"] == "action_required"
    assert check["output"]["title"].startswith("publish.json is ignored: findings")


async def test_a_verdict_on_our_own_pull_request_is_a_comment(engine: LocalEngine, github: GitHubStandIn) -> None:
    issue = open_pull(github, f"publish(findings=[{FINDING!r}])")
    issue.user = {"login": APP_LOGIN, "id": 4712, "type": "Bot"}
    job = await review(engine, github, issue, {"review": {"event": "REQUEST_CHANGES"}})
    assert issue.pull
    assert [each["state"] for each in issue.pull.reviews] == ["COMMENTED"]
    assert [each["path"] for each in issue.pull.comments] == ["new.txt"]
    problem = "GitHub accepts no verdict on one's own pull request, so the review is a comment"
    assert job["published"]["refused"] == [f"REQUEST_CHANGES: {problem}"]


async def test_a_finding_that_comes_back_is_reported_again(engine: LocalEngine, github: GitHubStandIn) -> None:
    wrong = f"publish(findings=[{FINDING!r}])"
    issue = open_pull(github, wrong)
    assert issue.pull
    async with engine.admin() as admin:
        await set_up(admin, REVIEW, ["pull_request.opened"])
        for program, comments, resolved in (
            (wrong, 1, 0),
            ("publish(findings=[])", 1, 1),
            (wrong, 2, 1),
            (wrong, 2, 1),
        ):
            github.demo.git.commit({"agent.py": program}, "fix")
            await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
            assert (len(issue.pull.comments), len(issue.pull.resolved)) == (comments, resolved)


async def test_findings_are_neither_lost_nor_repeated_where_threads_cannot_be_read(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    github.faults.plan_always(Fault.forbidden(), "POST /graphql")
    other = FINDING | {"title": "Wrong as well"}
    issue = open_pull(github, f"publish(findings=[{FINDING!r}])")
    async with engine.admin() as admin:
        await set_up(admin, REVIEW, ["pull_request.opened"])
        await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
        github.demo.git.commit({"agent.py": f"publish(findings=[{FINDING!r}, {other!r}])"}, "fix")
        job = await published(admin, await deliver(engine, "pull_request", a_pull_request_of(github, issue)))
    assert issue.pull
    assert job["published"]["refused"] == []
    titles = [each["body"].partition("\n")[0] for each in issue.pull.comments]
    assert titles == ["**error**: Wrong", "**error**: Wrong as well"]
