"""Commits that GitHub creates and signs, where the report or the branch demands it, and pushes signed by a key."""

import subprocess
from pathlib import Path
from textwrap import indent
from typing import Any, Final

import pytest

from tests.acceptance.engine import LocalEngine
from tests.acceptance.github.reporting import REPORT, an_issue_of, deliver, published, set_up
from tests.acceptance.github.test_ci_loop import LOG, deliver_failure, head_of
from tests.acceptance.github.test_ci_loop import a_pull_request as a_pull_request_with_checks
from tests.acceptance.github.test_comment_commands import comment, until_jobs
from tests.acceptance.github.test_pull_request_replies import a_pull_request, follow_up_of
from tests.support.github import APP_LOGIN, Fault, GitHubStandIn
from tests.support.github.calls import Json

SIGNED: Final[dict[str, Any]] = REPORT | {"pullRequest": {"signCommits": True}}
PUSHED: Final[dict[str, Any]] = REPORT | {"pullRequest": {}}
BRANCH: Final = "labrats/ai-developer/1"
COMMITTING: Final = """
with open("image.bin", "wb") as file:
    file.write(bytes(range(256)) * 4096)
commit("Add files", a__txt="a\\n")
os.rename("a.txt", "b.txt")
os.remove("old.txt")
commit("Rename a file\\n\\nAnd delete one.")
"""
EXECUTABLE: Final = 'write("run.sh", "true\\n")\nos.chmod("run.sh", 0o755)\ncommit("Add a script")'
ELSE: Final = 'else:\n    commit("Add a file", a__txt="a")'
COMMITTER: Final = "Ada Example <ada@example.com>"
LINK: Final = 'os.symlink("agent.py", "link")\ncommit("Add a link")'


async def work(engine: LocalEngine, github: GitHubStandIn, program: str, report: dict[str, Any], **source: Any) -> Json:
    """Let an agent execute a program for an issue, and return its job with the complete report."""
    github.demo.git.commit({"agent.py": program, "old.txt": "old"})
    issue = github.demo.open_issue()
    async with engine.admin() as admin:
        await set_up(admin, report, **source)
        return await published(admin, await deliver(engine, "issues", an_issue_of(github, issue)))


def verified(github: GitHubStandIn, branch: str = BRANCH) -> list[bool]:
    git = github.demo.git
    return [git.verified(commit) for commit in git.commits("main", branch)]


def check_files(github: GitHubStandIn) -> None:
    """Check that the branch has the files and messages of COMMITTING."""
    git = github.demo.git
    assert sorted(git.git("diff", "--name-status", "main", BRANCH).splitlines()) == [
        "A\tb.txt",
        "A\timage.bin",
        "D\told.txt",
    ]
    assert git.git("cat-file", "-s", f"{BRANCH}:image.bin") == str(256 * 4096)
    messages = git.git("log", "--reverse", "--format=%B", f"main..{BRANCH}").split("\n")
    assert [line for line in messages if line] == ["Add files", "Rename a file", "And delete one."]


async def test_each_commit_is_created_and_signed_by_github(engine: LocalEngine, github: GitHubStandIn) -> None:
    job = await work(engine, github, COMMITTING, SIGNED)
    check_files(github)
    assert verified(github) == [True, True]
    assert github.demo.git.git("log", "-1", "--format=%an", BRANCH) == APP_LOGIN
    assert job["published"]["refused"] == []
    (pull_request,) = github.pulls_of(github.demo, BRANCH)
    assert job["published"]["pullRequestUrl"] == pull_request.url
    rights = {str(call.actor.permissions) for call in github.calls_of("POST /graphql")}
    assert rights == {"{'contents': 'write'}"}


async def test_commits_are_signed_where_github_takes_no_others(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.demand_verified_commits()
    job = await work(engine, github, COMMITTING, PUSHED)
    check_files(github)
    assert verified(github) == [True, True]
    assert job["published"]["refused"] == []


async def test_a_personal_token_gets_signed_commits(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.access.add_person("ghp_test_token", "octo")
    engine.set_secret("person", "token", "ghp_test_token")
    job = await work(engine, github, COMMITTING, SIGNED, credentialsRef="person")
    assert job["published"]["refused"] == []
    assert verified(github) == [True, True]
    assert github.demo.git.git("log", "-1", "--format=%an", BRANCH) == "octo"


@pytest.mark.parametrize(
    ("program", "problem"),
    [(EXECUTABLE, "`run.sh` is executable"), (LINK, "`link` is a symbolic link")],
    ids=["executable", "link"],
)
async def test_commits_that_github_cannot_create_are_pushed_with_a_reason(
    engine: LocalEngine, github: GitHubStandIn, program: str, problem: str
) -> None:
    job = await work(engine, github, program, SIGNED)
    assert verified(github) == [False]
    assert github.calls_of("POST /graphql") == []
    reason = f"GitHub can sign only changes of ordinary files, and {problem}"
    assert job["published"]["refused"] == [f"signed commits: {reason}, so the commits were pushed without a signature"]
    assert job["published"]["pullRequestUrl"]


@pytest.mark.parametrize("report", [SIGNED, PUSHED], ids=["signed", "pushed"])
async def test_commits_that_can_neither_be_signed_nor_pushed_become_a_patch(
    engine: LocalEngine, github: GitHubStandIn, report: dict[str, Any]
) -> None:
    github.demo.git.demand_verified_commits()
    job = await work(engine, github, EXECUTABLE, report)
    only = "GitHub accepts only verified commits on this branch"
    reason = "GitHub can sign only changes of ordinary files, and `run.sh` is executable"
    assert job["published"]["refused"] == [f"no pull request: {only}, and {reason}"]
    assert github.demo.git.resolve(f"refs/heads/{BRANCH}") is None
    assert "new file mode 100755" in github.demo.issues[1].comments[0]["body"]


async def test_a_refused_commit_leaves_no_branch(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.faults.plan(Fault.forbidden(), "POST /graphql", skip=1, times=5)
    job = await work(engine, github, 'commit("Add a file", a__txt="a")\ncommit("Add another", b__txt="b")', SIGNED)
    (refused,) = job["published"]["refused"]
    assert refused == "no pull request: GitHub refuses it with 403: Resource not accessible by integration"
    assert github.demo.git.resolve(f"refs/heads/{BRANCH}") is None
    assert "b/b.txt" in github.demo.issues[1].comments[0]["body"]


async def test_a_commit_of_a_person_is_never_overwritten(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.commit({"agent.py": COMMITTING, "old.txt": "old"})
    theirs = github.demo.git.commit({"theirs.txt": "theirs"}, BRANCH)
    job = await work(engine, github, COMMITTING, SIGNED)
    assert github.demo.git.resolve(f"refs/heads/{BRANCH}") == theirs
    (pull_request,) = github.pulls_of(github.demo, f"{BRANCH}-{job['id']}")
    assert job["published"]["pullRequestUrl"] == pull_request.url
    assert verified(github, f"{BRANCH}-{job['id']}") == [True, True]


async def test_commits_that_github_does_not_sign_are_reported(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.world.signs_commits = False
    job = await work(engine, github, COMMITTING, SIGNED)
    assert job["published"]["refused"] == ["signed commits: GitHub created the commits, but it did not sign them"]


async def test_a_query_that_github_cannot_finish_is_sent_again(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.faults.plan(Fault(502, "Server Error"), "POST /graphql", skip=1)
    job = await work(engine, github, COMMITTING, SIGNED)
    assert job["published"]["refused"] == []
    assert verified(github) == [True, True]


async def test_a_reply_continues_in_the_workspace_of_signed_commits(engine: LocalEngine, github: GitHubStandIn) -> None:
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin, pullRequest={"signCommits": True})
        await comment(engine, github, pull, "Please make it blue.")
        job = await follow_up_of(admin, first)
        resumed = f"[follow-up of {first['id']}: resuming its session in a copy of its workspace]"
        assert resumed in await admin.log_lines(job["id"])
    assert job["published"]["refused"] == []
    assert pull.pull
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Make it blue", "Add a colour"]
    assert verified(github, pull.pull.head) == [True, True]
    assert len(github.pulls_of(github.demo, pull.pull.head)) == 1


async def test_a_commit_that_github_cannot_create_is_pushed_onto_signed_ones(
    engine: LocalEngine, github: GitHubStandIn
) -> None:
    first = await work(engine, github, f'if "script" in prompt:\n{indent(EXECUTABLE, "    ")}\n{ELSE}', SIGNED)
    async with engine.admin() as admin:
        sent = await admin.post(f"/api/jobs/{first['id']}/messages", {"prompt": "Please add a script."})
        job = await published(admin, sent.json()["jobId"])
    (refused,) = job["published"]["refused"]
    assert "`run.sh` is executable" in refused
    assert job["published"]["pullRequestUrl"] == first["published"]["pullRequestUrl"]
    log = github.demo.git.git("log", "--format=%an %s", f"main..{BRANCH}").splitlines()
    assert log == ["Agent Add a script", f"{APP_LOGIN} Add a file"]
    assert verified(github) == [True, False]


async def test_failed_checks_of_signed_commits_are_repaired(engine: LocalEngine, github: GitHubStandIn) -> None:
    github.demo.git.demand_verified_commits()
    async with engine.admin() as admin:
        pull = await a_pull_request_with_checks(engine, github, admin)
        await deliver_failure(engine, github, pull, github.demo.end_check(head_of(github, pull), log=LOG))
        job = await published(admin, (await until_jobs(admin, 2))[0]["id"])
    assert (job["agentRole"], job["published"]["refused"]) == ("ci-fixer", [])
    assert pull.pull
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Repair the colour", "Add a colour"]
    assert verified(github, pull.pull.head) == [True, True]


async def test_pushed_commits_are_signed_by_the_key_of_the_source(
    engine: LocalEngine, github: GitHubStandIn, tmp_path: Path
) -> None:
    add_signing_key(engine, github, tmp_path)
    job = await work(engine, github, EXECUTABLE, PUSHED)
    assert job["published"]["refused"] == []
    assert verified(github) == [True]
    assert github.demo.git.git("log", "-1", "--format=%an %cn <%ce>", BRANCH) == f"Agent {COMMITTER}"
    assert github.calls_of("POST /graphql") == []


@pytest.mark.parametrize("report", [SIGNED, PUSHED], ids=["signed", "pushed"])
async def test_a_branch_of_verified_commits_takes_executable_files_signed_by_a_key(
    engine: LocalEngine, github: GitHubStandIn, tmp_path: Path, report: dict[str, Any]
) -> None:
    add_signing_key(engine, github, tmp_path)
    github.demo.git.demand_verified_commits()
    job = await work(engine, github, EXECUTABLE, report)
    assert job["published"]["refused"] == []
    assert verified(github) == [True]
    assert job["published"]["pullRequestUrl"]


async def test_a_reply_adds_commits_signed_by_the_key(
    engine: LocalEngine, github: GitHubStandIn, tmp_path: Path
) -> None:
    add_signing_key(engine, github, tmp_path)
    async with engine.admin() as admin:
        first, pull = await a_pull_request(engine, github, admin)
        await comment(engine, github, pull, "Please make it blue.")
        job = await follow_up_of(admin, first)
    assert pull.pull
    assert job["published"]["refused"] == []
    log = github.demo.git.git("log", "--format=%s", f"main..{pull.pull.head}").splitlines()
    assert log == ["Make it blue", "Add a colour"]
    assert verified(github, pull.pull.head) == [True, True]


async def test_a_key_that_github_does_not_know_is_reported(
    engine: LocalEngine, github: GitHubStandIn, tmp_path: Path
) -> None:
    add_signing_key(engine, github, tmp_path, is_known=False)
    job = await work(engine, github, EXECUTABLE, PUSHED)
    assert job["published"]["refused"] == ["signing key: GitHub does not verify the signatures: unknown_key"]
    assert job["published"]["pullRequestUrl"]


async def test_a_key_without_a_committer_is_reported_and_the_commits_are_pushed(
    engine: LocalEngine, github: GitHubStandIn, tmp_path: Path
) -> None:
    add_signing_key(engine, github, tmp_path, committer="")
    job = await work(engine, github, EXECUTABLE, PUSHED)
    (refused,) = job["published"]["refused"]
    assert refused.startswith("signing key: the Secret needs a `committer`")
    assert refused.endswith("so the commits were pushed without a signature")
    assert verified(github) == [False]


def add_signing_key(
    engine: LocalEngine, github: GitHubStandIn, folder: Path, *, is_known: bool = True, committer: str = COMMITTER
) -> None:
    """Give the source's Secret a key for signatures. is_known: whether GitHub has it for the committer's account."""
    engine.set_secret("app", "signingKey", a_signing_key(github, folder, is_known=is_known))
    if committer:
        engine.set_secret("app", "committer", committer)


def a_signing_key(github: GitHubStandIn, folder: Path, *, is_known: bool = True) -> str:
    key = folder / "test-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
    if is_known:
        github.demo.git.add_signing_key("ada@example.com", key.with_suffix(".pub").read_text().strip())
    return key.read_text().removesuffix("\n")
