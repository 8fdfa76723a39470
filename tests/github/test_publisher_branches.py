"""A publisher writes to branches that it creates and to those of its open pull requests, and removes no other one."""

import asyncio
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

from labrats.model.job import Job
from labrats.model.report import Published
from tests.github.test_publisher_kills import (  # noqa: F401, the fixture
    BRANCH,
    SIGN,
    World,
    a_bundle,
    a_pull_request,
    a_world,
    anyio_backend,
    check_signed,
    check_written_once,
)
from tests.support.github import Fault, GitHubStandIn, Issue
from tests.support.github.faults import UNAVAILABLE

PULLS: Final = "POST /repos/{owner}/{repo}/pulls"
OTHER_JOB: Final = "ir-00000002"


def branches_of(github: GitHubStandIn) -> dict[str, str]:
    """Return the branches of the repository, with their last commits."""
    listed = github.demo.git.git("for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads")
    return dict(line.split() for line in listed.splitlines())


async def published_by(world: World) -> Published:
    return (await world.store.get(Job, world.job_id)).status.published or Published()


def a_bundle_of(github: GitHubStandIn, base: str, tip: str, *, more: bool) -> bytes:
    """Return a bundle with the commits of a branch after `base`, as an agent may forge it. more: and one on top."""

    def git(folder: Path, *arguments: str) -> None:
        identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example.com"]
        subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as name:
        folder, checkout = Path(name), Path(name, "checkout")
        git(folder, "clone", "--quiet", "--branch", tip, str(github.demo.git.folder), "checkout")
        git(checkout, "checkout", "--quiet", "--detach")
        git(checkout, "branch", "--quiet", "-D", tip)
        if more:
            git(checkout, "commit", "--quiet", "--allow-empty", "--message", "Add more")
        git(checkout, "update-ref", "refs/heads/labrats", "HEAD")
        git(checkout, "bundle", "create", "../it.bundle", "refs/heads/labrats", f"^origin/{base}")
        return (folder / "it.bundle").read_bytes()


def a_bundle_on(github: GitHubStandIn, ref: str) -> bytes:
    """Return a bundle with a harmless commit on top of a ref, such as `refs/pull/5/head`."""

    def git(folder: Path, *arguments: str) -> None:
        identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example.com"]
        subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        git(folder, "init", "--quiet")
        git(folder, "fetch", "--quiet", str(github.demo.git.folder), ref)
        git(folder, "checkout", "--quiet", "--detach", "FETCH_HEAD")
        (folder / "b").write_text("harmless")
        git(folder, "add", "b")
        git(folder, "commit", "--quiet", "--message", "Add b")
        git(folder, "update-ref", "refs/heads/labrats", "HEAD")
        git(folder, "bundle", "create", "it.bundle", "refs/heads/labrats", "^HEAD~1")
        return (folder / "it.bundle").read_bytes()


def a_pull_request_of_a_fork(github: GitHubStandIn) -> Issue:
    github.access.installed = {"octo/demo"}
    fork = github.add_repository("fork/demo", fork_of=github.demo)
    fork.git.commit({".github/workflows/x.yml": "on: push"}, branch="mend", message="fixes #1 @org/team")
    return github.demo.open_pull("mend", source=fork)


async def check_only_a_patch(world: World, before: dict[str, str], branch: str) -> None:
    """Publish, and check that no branch has changed. branch: the one that lacks the commit the agent started from."""
    await world.publish()
    assert branches_of(world.github) == before
    published = await published_by(world)
    assert published.pull_request_url is None
    problem = f"the branch `{branch}` does not have the commit that the agent started from"
    assert {problem, f"no pull request: {problem}"} & {*published.refused}
    comments = [each["body"] for issue in world.github.demo.issues.values() for each in issue.comments]
    assert any("+harmless" in body and problem in body for body in comments)


@SIGN
async def test_commits_of_a_fork_below_those_of_the_agent_are_not_pushed(github: GitHubStandIn, sign: bool) -> None:
    issue, fork = a_pull_request(github), a_pull_request_of_a_fork(github)
    bundle = a_bundle_on(github, f"refs/pull/{fork.number}/head")
    await check_only_a_patch(await a_world(github, issue, sign=sign, bundle=bundle), branches_of(github), "fix")


async def test_commits_of_a_closed_pull_request_do_not_return(github: GitHubStandIn) -> None:
    await (await a_world(github, a_pull_request(github))).publish()
    (closed,) = [each for each in github.demo.issues.values() if each.pull and each.pull.head.startswith("labrats/")]
    closed.state = "closed"
    bundle = a_bundle_on(github, f"refs/pull/{closed.number}/head")
    world = await a_world(github, closed, bundle=bundle, job_id=OTHER_JOB)
    await check_only_a_patch(world, branches_of(github), "fix")


async def test_commits_on_a_branch_that_was_rewritten_are_not_pushed(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    bundle = a_bundle_on(github, "refs/heads/fix")
    github.demo.git.commit({"long.txt": "rewritten"}, "fix", parent="main")
    await check_only_a_patch(await a_world(github, issue, bundle=bundle), branches_of(github), "fix")


async def test_commits_on_a_branch_that_has_moved_on_are_pushed(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    bundle = a_bundle_on(github, "refs/heads/fix")
    github.demo.git.commit({"more.txt": "more"}, "fix")
    world = await a_world(github, issue, bundle=bundle)
    await world.publish()
    branch = BRANCH.format(number=issue.number)
    (pull_request,) = github.pulls_of(github.demo, branch)
    assert (await published_by(world)).pull_request_url == pull_request.url
    assert github.demo.git.git("log", "--format=%s", f"fix..{branch}") == "Add b"


async def test_an_open_pull_request_of_the_engine_gets_no_commits_of_a_fork(github: GitHubStandIn) -> None:
    fork = a_pull_request_of_a_fork(github)
    await (await a_world(github, a_pull_request(github))).publish()
    (ours,) = [each for each in github.demo.issues.values() if each.pull and each.pull.head.startswith("labrats/")]
    assert ours.pull
    bundle = a_bundle_on(github, f"refs/pull/{fork.number}/head")
    world = await a_world(github, ours, bundle=bundle, job_id=OTHER_JOB)
    before = branches_of(github)
    await world.publish()
    assert branches_of(github) == before
    problem = f"the branch `{ours.pull.head}` does not have the commit that the agent started from"
    assert f"commits: {problem}, so the job runs once more" in (await published_by(world)).refused


@SIGN
async def test_a_branch_that_the_agent_started_from_gets_no_commits(github: GitHubStandIn, sign: bool) -> None:
    issue = a_pull_request(github)
    before = branches_of(github)
    world = await a_world(github, issue, sign=sign, branch="fix")
    await world.publish()
    after, own = branches_of(github), f"fix-{world.job_id}"
    assert after.keys() - before.keys() == {own}
    assert {name: after.get(name) for name in before} == before
    (pull_request,) = github.pulls_of(github.demo, own)
    assert pull_request.pull
    assert pull_request.pull.base == "fix"
    assert (await published_by(world)).pull_request_url == pull_request.url


async def test_the_default_branch_gets_no_commits(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    before = branches_of(github)
    world = await a_world(github, issue, branch="main", bundle=a_bundle(github, "main"))
    await world.publish()
    after = branches_of(github)
    assert {name: after.get(name) for name in before} == before
    assert after.keys() - before.keys() == {f"main-{world.job_id}"}


@pytest.mark.parametrize("more", [False, True], ids=["all of its commits", "further commits"])
@SIGN
async def test_a_branch_whose_commits_the_agent_has_copied_stays_as_it_is(
    github: GitHubStandIn, sign: bool, more: bool
) -> None:
    issue = a_pull_request(github)
    before = branches_of(github)
    world = await a_world(github, issue, sign=sign, branch="fix", bundle=a_bundle_of(github, "main", "fix", more=more))
    github.faults.plan_always(Fault.forbidden(), PULLS)
    await world.publish()
    assert branches_of(github) == before
    (refused,) = (await published_by(world)).refused
    assert refused.startswith("no pull request: GitHub refuses it with 403")


async def test_a_branch_of_the_same_name_as_a_closed_pull_request_gets_no_commits(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    first = await a_world(github, issue)
    await first.publish()
    branch = BRANCH.format(number=issue.number)
    (pull_request,) = github.pulls_of(github.demo, branch)
    pull_request.state = "closed"
    theirs = github.demo.git.commit({"theirs.txt": "theirs"}, branch)
    second = await a_world(github, issue, bundle=a_bundle_of(github, "fix", branch, more=True), job_id=OTHER_JOB)
    await second.publish()
    assert branches_of(github)[branch] == theirs
    assert branches_of(github).keys() >= {f"{branch}-{second.job_id}"}


@SIGN
async def test_an_open_pull_request_of_the_engine_gets_further_commits(github: GitHubStandIn, sign: bool) -> None:
    issue = a_pull_request(github)
    await (await a_world(github, issue, sign=sign)).publish()
    before, branch = branches_of(github), BRANCH.format(number=issue.number)
    (pull_request,) = github.pulls_of(github.demo, branch)
    bundle = a_bundle_of(github, branch, branch, more=True)
    world = await a_world(github, issue, sign=sign, bundle=bundle, job_id=OTHER_JOB)
    await world.publish()
    after = branches_of(github)
    assert after.keys() == before.keys()
    assert github.demo.git.git("log", "--format=%s", f"{before[branch]}..{after[branch]}") == "Add more"
    published = await published_by(world)
    assert (published.pull_request_url, published.refused) == (pull_request.url, ())


@SIGN
async def test_a_publisher_that_is_stopped_leaves_its_branch_to_the_next_one(github: GitHubStandIn, sign: bool) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue, sign=sign)
    github.faults.plan(UNAVAILABLE, PULLS)
    publishing, loop = asyncio.create_task(world.publish()), asyncio.get_running_loop()

    def stop(number: int) -> None:
        if github.calls[number - 1].operation == PULLS:
            loop.call_soon_threadsafe(publishing.cancel)

    github.after_call = stop
    with pytest.raises(asyncio.CancelledError):
        await publishing
    github.after_call = None
    await world.publish()
    check_written_once(github, issue)
    check_signed(github, issue, signed=sign)
