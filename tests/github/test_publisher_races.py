"""A publisher that loses the race with the push of a person: it picks the commits, or lets the job run once more."""

import subprocess
import tempfile
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from labrats.model.job import Job
from labrats.model.thread_requests import REQUEST_ANNOTATION, ThreadAction, ThreadRequest
from labrats.model.webhook_source import WebhookSource
from tests.github.test_publish_again import publish_again
from tests.github.test_publisher_branches import published_by
from tests.github.test_publisher_kills import (  # noqa: F401, the fixture
    SIGN,
    World,
    a_pull_request,
    a_world,
    anyio_backend,
)
from tests.support.github import GitHubStandIn, Issue
from tests.support.github.faults import LOST

NEXT_JOB: Final = "ir-00000002"
FLAGS: Final = "flags.txt"


def a_bundle_of_changes(github: GitHubStandIn, branch: str, *changes: tuple[str, str]) -> bytes:
    """Return a bundle on top of a branch. changes: a file and its content for each commit."""

    def git(folder: Path, *arguments: str) -> None:
        identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example.com"]
        subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as name:
        folder, checkout = Path(name), Path(name, "checkout")
        git(folder, "clone", "--quiet", "--branch", branch, str(github.demo.git.folder), "checkout")
        git(checkout, "checkout", "--quiet", "--detach")
        git(checkout, "branch", "--quiet", "-D", branch)
        for path, content in changes:
            (checkout / path).write_text(content)
            git(checkout, "add", "--all")
            git(checkout, "commit", "--quiet", "--message", f"Change {path}")
        git(checkout, "update-ref", "refs/heads/labrats", "HEAD")
        git(checkout, "bundle", "create", "../it.bundle", "refs/heads/labrats", f"^origin/{branch}")
        return (folder / "it.bundle").read_bytes()


async def a_follow_up(github: GitHubStandIn, *changes: tuple[str, str], sign: bool = False) -> tuple[World, Issue, str]:
    """Let a job open a pull request. Return the world of a follow-up of it, the pull request, and its branch."""
    await (await a_world(github, a_pull_request(github), sign=sign)).publish()
    (ours,) = [each for each in github.demo.issues.values() if each.pull and each.pull.head.startswith("labrats/")]
    assert ours.pull
    bundle = a_bundle_of_changes(github, ours.pull.head, *changes)
    world = await a_world(github, ours, sign=sign, bundle=bundle, job_id=NEXT_JOB)
    job = await world.store.get(Job, NEXT_JOB)
    report = job.spec.report and replace(job.spec.report, review=None, check=None)
    await world.store.update(replace(job, spec=replace(job.spec, report=report)))
    return world, ours, ours.pull.head


async def requests_in(world: World) -> tuple[ThreadRequest, ...]:
    return (await world.store.get(WebhookSource, "github")).status.thread_requests


def log_of(github: GitHubStandIn, branch: str, since: str) -> list[str]:
    return github.demo.git.git("log", "--format=%s", f"{since}..{branch}").splitlines()


@SIGN
async def test_commits_are_picked_onto_those_of_a_person(github: GitHubStandIn, sign: bool) -> None:
    world, _, branch = await a_follow_up(github, ("one.txt", "1"), (FLAGS, "on\nand on\n"), ("one.txt", "2"), sign=sign)
    theirs = github.demo.git.commit({"theirs.txt": "theirs"}, branch, "Theirs")
    await world.publish()
    assert log_of(github, branch, theirs) == ["Change one.txt", f"Change {FLAGS}", "Change one.txt"]
    files = ("one.txt", FLAGS, "theirs.txt")
    assert [github.demo.git.text_of(branch, name) for name in files] == ["2", "on\nand on", "theirs"]
    published = await published_by(world)
    assert published.refused == ()
    assert published.commit == github.demo.git.resolve(branch)
    assert await requests_in(world) == ()


async def test_a_lost_answer_picks_no_commit_twice(github: GitHubStandIn) -> None:
    world, _, branch = await a_follow_up(github, ("one.txt", "1"), ("two.txt", "2"))
    theirs = github.demo.git.commit({"theirs.txt": "theirs"}, branch, "Theirs")
    github.faults.plan(LOST, "POST git-receive-pack", skip=1)  # the first one is refused
    await world.publish()
    assert log_of(github, branch, theirs) == ["Change two.txt", "Change one.txt"]
    assert (await published_by(world)).refused == ()


async def test_a_renamed_file_is_not_followed_beyond_what_the_policy_has_judged(github: GitHubStandIn) -> None:
    world, _, branch = await a_follow_up(github, (FLAGS, "on\nand on\n"))
    moved = {FLAGS: None, ".github/workflows/flags.yml": github.demo.git.text_of(branch, FLAGS) + "\n"}
    theirs = github.demo.git.commit(moved, branch, "Theirs")
    await world.publish()
    assert github.demo.git.resolve(branch) == theirs
    assert [each.action for each in await requests_in(world)] == [ThreadAction.RERUN]


async def test_conflicting_commits_let_the_job_run_once_more(github: GitHubStandIn) -> None:
    world, issue, branch = await a_follow_up(github, (FLAGS, "agent\n"))
    theirs = github.demo.git.commit({FLAGS: "theirs\n"}, branch, "Theirs")
    await world.publish()
    assert github.demo.git.resolve(branch) == theirs
    (request,) = await requests_in(world)
    assert (request.action, request.job, request.target.head_sha) == (ThreadAction.RERUN, NEXT_JOB, theirs)
    (refused,) = [each for each in (await published_by(world)).refused if each.startswith("commits: ")]
    assert f"the changes conflict with the new commits in `{FLAGS}`, so the job runs once more" in refused
    (comment,) = github.comments_of(issue)
    assert "has finished, but the branch has moved meanwhile; it runs once more." in comment["body"]
    assert "```diff" not in comment["body"]
    await publish_again(world)
    assert await requests_in(world) == (request,)


async def test_a_rewritten_branch_lets_the_job_run_once_more(github: GitHubStandIn) -> None:
    world, _, branch = await a_follow_up(github, ("one.txt", "1"))
    rewritten = github.demo.git.commit({"theirs.txt": "theirs"}, branch, "Theirs", parent="main")
    await world.publish()
    assert github.demo.git.resolve(branch) == rewritten
    assert [each.action for each in await requests_in(world)] == [ThreadAction.RERUN]


async def test_the_second_run_that_loses_says_that_nothing_was_pushed(github: GitHubStandIn) -> None:
    world, issue, branch = await a_follow_up(github, (FLAGS, "agent\n"))
    job = await world.store.get(Job, NEXT_JOB)
    annotations = {REQUEST_ANNOTATION: "uid/rerun-uid-1"}
    await world.store.update(replace(job, metadata=replace(job.metadata, annotations=annotations)))
    theirs = github.demo.git.commit({FLAGS: "theirs\n"}, branch, "Theirs")
    await world.publish()
    assert github.demo.git.resolve(branch) == theirs
    assert await requests_in(world) == ()
    (refused,) = [each for each in (await published_by(world)).refused if each.startswith("nothing was pushed: ")]
    assert f"`labrats patch {NEXT_JOB}`" in refused
    (comment,) = github.comments_of(issue)
    assert "has finished, but nothing was pushed." in comment["body"]
    assert "```diff" not in comment["body"]
