"""A publisher that is killed between any two requests, or loses answers, writes each part of a report once."""

import asyncio
import io
import os
import random
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from labrats.github.client.access import GitHubAccess
from labrats.github.client.app import GitHub
from labrats.github.client.repository import github_client
from labrats.github.publisher import report_pass
from labrats.github.publisher.publisher import Publisher
from labrats.metrics import Metrics
from labrats.model.attempt_name import AttemptName
from labrats.model.job import Job, JobStatus
from labrats.model.phases import Phase
from labrats.model.publication import Finding, Publication
from labrats.model.record import Metadata, encode
from labrats.model.report import (
    DEFAULT_BRANCH,
    CheckReport,
    CommentMode,
    PublishPolicy,
    PullRequestReport,
    Report,
    ReportTarget,
    ReviewReport,
    StateLabels,
)
from labrats.ports import SystemClock
from labrats.settings import EngineSettings
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import MemoryStore
from tests.github.kills import RandomKills, SteppedStore, add_source, run_with_kills
from tests.support.builders import a_spec
from tests.support.github import APP_LOGIN, GitHubStandIn, Issue
from tests.support.github.faults import LOST
from tests.support.random_seed import SEED
from tests.support.waiting import eventually

KILLS: Final = 10
MANY_KILLS: Final = int(os.environ.get("LABRATS_PUBLISHER_KILLS", "50"))
"""Kills of the long test; `make torture` sets more."""
MOST_STEPS: Final = 110
"""More than a pass over a complete report takes, so that a pass can end without a kill."""

BRANCH: Final = "labrats/ai-developer/{number}"
PUBLICATION: Final = Publication(
    title="Add a flag",
    comment="I added it.",
    labels=("bug",),
    findings=(Finding(path="long.txt", line=20, title="Wrong"),),
)


@pytest.fixture(autouse=True)
def endless_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no publisher give up the commits: these tests kill it more often than it may end."""
    monkeypatch.setattr(report_pass, "MOST_TRIES", 10**6)


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary event loop, since the tests use sockets."""
    return "asyncio"


class EndedRunner(MemoryRunner):
    """A runner whose attempts have ended with a bundle and a publication."""

    def __init__(self, store: MemoryStore, bundle: bytes, publication: bytes) -> None:
        super().__init__(store, MemoryMachine())
        self._bundle, self.publication_bytes = bundle, publication
        self.patch_bytes = b""

    async def bundle(self, name: AttemptName) -> BinaryIO:
        return io.BytesIO(self._bundle)

    async def publication(self, name: AttemptName) -> bytes:
        return self.publication_bytes

    async def patch(self, name: AttemptName) -> BinaryIO:
        return io.BytesIO(self.patch_bytes) if self.patch_bytes else await super().patch(name)


def a_bundle(github: GitHubStandIn, branch: str) -> bytes:
    """Return a bundle with two commits on top of a branch."""

    def git(folder: str, *arguments: str) -> None:
        identity = ["-c", "user.name=Agent", "-c", "user.email=agent@example.com"]
        subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)

    with tempfile.TemporaryDirectory() as folder:
        git(folder, "clone", "--quiet", "--branch", branch, str(github.demo.git.folder), "checkout")
        checkout = f"{folder}/checkout"
        Path(checkout, "flag.txt").write_text("on\n")
        git(checkout, "add", "--all")
        git(checkout, "commit", "--quiet", "--message", "Add a flag")
        Path(checkout, "flag.txt").rename(f"{checkout}/flags.txt")
        git(checkout, "add", "--all")
        git(checkout, "commit", "--quiet", "--message", "Rename the flag\n\nThere will be more.")
        git(checkout, "update-ref", "refs/heads/labrats", "HEAD")
        git(checkout, "bundle", "create", "../it.bundle", "refs/heads/labrats", f"^origin/{branch}")
        return Path(folder, "it.bundle").read_bytes()


def a_pull_request(github: GitHubStandIn) -> Issue:
    """Open a pull request of a person, with a file whose line 20 is changed."""
    lines = [f"line {number}\n" for number in range(1, 41)]
    github.demo.git.commit({"long.txt": "".join(lines)})
    lines[19] = "changed\n"
    github.demo.git.commit({"long.txt": "".join(lines)}, "fix")
    github.demo.label("bug")
    return github.demo.open_pull("fix")


@dataclass
class World:
    """A stored job that has ended, and the publishers that report it, one after the other."""

    github: GitHubStandIn
    store: SteppedStore
    runner: EndedRunner
    job_id: str
    scratch: int | None = None
    listed_after: timedelta = timedelta(0)

    async def publish(self) -> None:
        """Run a publisher until the report is complete."""
        async with self.publisher():
            while not (await self.store.get(Job, self.job_id)).is_published:
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[None]:
        """Run a publisher while the block runs."""
        clock = SystemClock()
        settings = EngineSettings(
            github_api_url=self.github.url, report_interval_seconds=0.001, publisher_scratch=self.scratch
        )
        async with github_client(self.github.url) as client, asyncio.TaskGroup() as tasks:
            access = GitHubAccess(self.store, GitHub(self.github.url, clock), client, clock)
            publisher = Publisher(self.store, self.runner, access, clock, settings, Metrics(), self.listed_after)
            running = tasks.create_task(publisher.run())
            yield
            running.cancel()

    async def publish_with_kills(self, kills: random.Random) -> int:
        """Kill a publisher at a random step, start the next one, and so on. Return the number of kills."""
        return await run_with_kills(self.github, self.store, RandomKills(kills, MOST_STEPS), self.publish)


async def a_world(
    github: GitHubStandIn,
    issue: Issue,
    *,
    sign: bool = False,
    branch: str = DEFAULT_BRANCH,
    bundle: bytes = b"",
    job_id: str = "ir-00000001",
    store: SteppedStore | None = None,
) -> World:
    """Return a world with a job about a pull request. bundle: by default two commits on top of the branch `fix`.

    store: with other jobs, and the source.
    """
    if store is None:
        store = SteppedStore()
        await add_source(store)
    assert issue.pull
    report = Report(
        comment=CommentMode.STICKY,
        check=CheckReport(),
        review=ReviewReport(),
        pull_request=PullRequestReport(labels=("ai",), reviewers=("reviewer",), branch=branch, sign_commits=sign),
        labels=StateLabels(running="ai-working", done="ai-done"),
        policy=PublishPolicy(labels=("bug",)),
        reactions=True,
        target=ReportTarget(
            repository="octo/demo", pull_request=issue.number, source="github", head_sha=issue.pull.head_sha
        ),
    )
    job = Job(metadata=Metadata(name=job_id), spec=a_spec(agent_role="ai-developer", report=report))
    now = datetime.now(UTC)
    status = JobStatus(phase=Phase.SUCCEEDED, attempts=1, started_at=now, finished_at=now, result="Done.")
    created = await store.create(job)
    await store.update(replace(created, status=status))

    runner = EndedRunner(store, bundle or a_bundle(github, "fix"), encode(to_builtins(PUBLICATION)))
    return World(github, store, runner, job.id)


def check_written_once(github: GitHubStandIn, issue: Issue) -> None:
    """Check that GitHub has exactly one of each part, in its final state."""
    assert issue.pull
    (comment,) = github.comments_of(issue)
    assert "has finished." in comment["body"]
    (check,) = github.check_runs_of(github.demo, issue.pull.head_sha)
    assert (check["status"], check["conclusion"]) == ("completed", "success")
    (review,) = issue.pull.reviews
    assert review["user"]["login"] == APP_LOGIN
    assert len(issue.pull.comments) == 1
    (pull_request,) = github.pulls_of(github.demo, BRANCH.format(number=issue.number))
    assert sorted(pull_request.labels) == ["ai", "bug"]
    assert comment["body"].count(f"Pull request: {pull_request.url}\n") == 1
    assert issue.labels == ["ai-done"]
    assert Counter(each["content"] for each in issue.reactions) == {"+1": 1}
    branch = BRANCH.format(number=issue.number)
    branches = github.demo.git.git("for-each-ref", "--format=%(refname:short)", "refs/heads/labrats").split()
    assert branches == [branch]
    messages = github.demo.git.git("log", "--format=%B", f"fix..{branch}").split("\n")
    assert [line for line in messages if line] == ["Rename the flag", "There will be more.", "Add a flag"]
    assert github.demo.git.git("diff", "--name-status", "fix", branch).split() == ["A", "flags.txt"]


def check_signed(github: GitHubStandIn, issue: Issue, *, signed: bool) -> None:
    """Check that GitHub has created all commits of the pull request, or none."""
    commits = github.demo.git.commits("fix", BRANCH.format(number=issue.number))
    assert [github.demo.git.verified(commit) for commit in commits] == [signed, signed]


async def kill_often(github: GitHubStandIn, kills: int, *, sign: bool = False) -> None:
    chance, killed = random.Random(SEED), 0
    while killed < kills:
        issue = a_pull_request(github)
        world = await a_world(github, issue, sign=sign)
        killed += await world.publish_with_kills(chance)
        check_written_once(github, issue)
        check_signed(github, issue, signed=sign)
        github.demo.git.git("branch", "-D", "fix", BRANCH.format(number=issue.number))


async def test_a_report_is_written_once(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    await world.publish()
    check_written_once(github, issue)
    job = await world.store.get(Job, world.job_id)
    assert job.status.published
    assert job.status.published.refused == ()
    before = len(github.writes())
    await world.publish()
    assert len(github.writes()) == before


SIGN: Final = pytest.mark.parametrize("sign", [False, True], ids=["pushed", "signed"])


@SIGN
@pytest.mark.timeout(240)
async def test_kills_between_requests_write_nothing_twice(github: GitHubStandIn, sign: bool) -> None:
    await kill_often(github, KILLS, sign=sign)


@SIGN
@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_many_kills_between_requests_write_nothing_twice(github: GitHubStandIn, sign: bool) -> None:
    await kill_often(github, MANY_KILLS // 2, sign=sign)  # half of them each


WRITES: Final = (
    "POST /repos/{owner}/{repo}/issues/{issue_number}/comments",
    "POST /repos/{owner}/{repo}/check-runs",
    "POST /repos/{owner}/{repo}/pulls/{pull_number}/reviews",
    "POST /repos/{owner}/{repo}/pulls",
    "POST git-receive-pack",
)
CREATE: Final = "POST /graphql"


@pytest.mark.parametrize(
    ("operation", "sign", "skip"),
    [*((operation, False, 0) for operation in WRITES), (WRITES[-1], True, 0), (CREATE, True, 0), (CREATE, True, 1)],
)
async def test_a_lost_answer_writes_nothing_twice(github: GitHubStandIn, operation: str, sign: bool, skip: int) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue, sign=sign)
    github.faults.plan(LOST, operation, skip=skip)
    publishing = asyncio.create_task(world.publish())
    await eventually(lambda: any(call.operation == operation for call in github.calls))
    done, _ = await asyncio.wait([publishing], timeout=1)
    if not done:  # the publisher waits before it tries again; another one need not
        publishing.cancel()
        with suppress(asyncio.CancelledError):
            await publishing
        await world.publish()
    check_written_once(github, issue)
    check_signed(github, issue, signed=sign)
