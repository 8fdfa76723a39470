"""A publisher that cannot write a part of a report now writes the others, records them, and waits."""

import asyncio
import dataclasses
import io
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import BinaryIO

import pytest
from msgspec.structs import replace

from labrats.github.client.access import GitHubAccess
from labrats.github.client.app import GitHub
from labrats.github.client.repository import github_client
from labrats.github.publisher import publisher
from labrats.github.publisher.comments import Comments
from labrats.github.publisher.pull_request import CommitsPublisher, PullRequest, Pushed
from labrats.github.publisher.report_pass import ReportPass
from labrats.github.reports.reported_job import reported_job
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import Secret
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import Job
from labrats.model.record import Metadata
from labrats.model.report import Published, ReportTarget, StateLabels
from labrats.ports import SystemClock
from labrats.settings import EngineSettings
from labrats.work_queue import WorkQueue
from tests.github.kills import Step, run_with_kills
from tests.github.test_publisher_kills import (  # noqa: F401, the fixture
    World,
    a_pull_request,
    a_world,
    anyio_backend,
    check_written_once,
)
from tests.support.github import APP_ID, APP_KEY_PEM, Fault, GitHubStandIn
from tests.support.github.calls import Call
from tests.support.github.faults import UNAVAILABLE
from tests.support.waiting import eventually

PULL = "GET /repos/{owner}/{repo}/pulls/{pull_number}"
LABELS = "POST /repos/{owner}/{repo}/issues/{issue_number}/labels"
CHECKS = "POST /repos/{owner}/{repo}/check-runs"
REVIEWS = "POST /repos/{owner}/{repo}/pulls/{pull_number}/reviews"


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a publisher soon try again what GitHub cannot do now, unless GitHub names a delay."""
    monkeypatch.setattr("labrats.github.client.app._MIN_RETRY_SECONDS", 0.1)


async def published_by(world: World) -> Published:
    return (await world.store.get(Job, world.job_id)).status.published or Published()


async def until(world: World, condition: Callable[[Job], bool]) -> None:
    """Wait until a condition holds for the job."""
    async with asyncio.timeout(30):
        while not condition(await world.store.get(Job, world.job_id)):
            await asyncio.sleep(0.01)


def is_complete(job: Job) -> bool:
    return job.is_published


@asynccontextmanager
async def publishing(world: World) -> AsyncIterator[None]:
    """Run a publisher while the block runs."""
    task = asyncio.create_task(world.publish())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_one_part_that_fails_for_now_does_not_delay_the_others(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan_always(UNAVAILABLE, CHECKS)
    async with publishing(world):
        await eventually(lambda: bool(github.comments_of(issue)))
        await until(world, lambda job: bool(job.status.published and job.status.published.comment_url))
    assert "has finished." in github.comments_of(issue)[0]["body"]
    published = await published_by(world)
    assert published.review_url
    assert not (await world.store.get(Job, world.job_id)).is_published


async def test_a_report_that_fails_with_an_unexpected_error_is_given_up(
    github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output of an agent may trigger it. Each pass uses up a part of the limits of GitHub."""

    async def fail(*arguments: object, **options: object) -> None:
        raise RecursionError

    def add_later(queue: WorkQueue, key: str, delay_seconds: float) -> None:
        delays.append(delay_seconds)
        queue.add(key)

    delays = list[float]()
    monkeypatch.setattr(WorkQueue, "add_later", add_later)
    monkeypatch.setattr(publisher, "reported_job", fail)
    world = await a_world(github, a_pull_request(github))
    async with publishing(world):
        await until(world, is_complete)
    assert delays == [5, 10, 20, 40, 80, 160, 320]
    assert (await published_by(world)).refused == ("the engine could not write the report: its log says why",)


async def test_parts_that_depend_on_the_commits_wait_for_them(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan(UNAVAILABLE, "POST /repos/{owner}/{repo}/pulls")
    await world.publish()
    check_written_once(github, issue)


async def test_a_pull_request_is_recorded_before_the_other_parts_are_written(github: GitHubStandIn) -> None:
    world = await a_world(github, a_pull_request(github))
    release = threading.Event()
    github.faults.plan(Fault(release=release), CHECKS)
    try:
        async with publishing(world):
            await eventually(lambda: bool(github.calls_of(CHECKS)))
            published = await published_by(world)
    finally:
        release.set()
    assert published.pull_request_url
    assert published.commit
    assert published.comment_url is None


async def test_no_verdict_is_written_if_the_head_moves_while_the_review_waits(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan(UNAVAILABLE, REVIEWS)
    async with publishing(world):
        await eventually(lambda: bool(github.calls_of(REVIEWS)))
        github.demo.git.commit({"more.txt": "more\n"}, "fix")
        await until(world, is_complete)
    assert issue.pull
    assert issue.pull.reviews == []
    assert (await published_by(world)).refused == (
        "review: the pull request has new commits, which the agent has not seen",
    )


async def test_a_bundle_that_a_volume_shows_late_is_awaited(
    github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    job = await world.store.get(Job, world.job_id)
    outputs = replace(job.status.outputs, files_changed=1, bundle_bytes=1000)
    await world.store.update(replace(job, status=replace(job.status, outputs=outputs)))
    bundles = [world.runner.bundle, world.runner.bundle]

    async def bundle(name: AttemptName) -> BinaryIO:
        if len(bundles) == 2:
            bundles.pop()
            raise NotFound("no bundle")
        return await bundles[0](name)

    monkeypatch.setattr(world.runner, "bundle", bundle)
    await world.publish()
    check_written_once(github, issue)


@pytest.mark.parametrize("operation", [LABELS, CHECKS], ids=["labels of the new pull request", "checks"])
async def test_nothing_is_sent_after_a_limit_is_used_up(github: GitHubStandIn, operation: str) -> None:
    world = await a_world(github, a_pull_request(github))
    github.faults.plan_always(Fault.secondary_limit(77), operation)
    job, recorded = await world.store.get(Job, world.job_id), list[Published]()
    report = job.spec.report
    assert report
    assert report.target

    async def record(published: Published) -> None:
        recorded.append(published)

    async def no_patch() -> None:
        raise AssertionError("the commits are pushed")

    async def no_run(_: PullRequest) -> bool:
        raise AssertionError("the head has not moved")

    clock = SystemClock()
    async with github_client(github.url) as client:
        access = GitHubAccess(world.store, GitHub(github.url, clock), client, clock)
        one_pass = ReportPass(
            access=await access.open(report.target, job.id),
            report=report,
            target=report.target,
            reported=await reported_job(world.runner, job, EngineSettings()),
            published=Published(),
            comments=Comments(),
            clock=clock,
            record=record,
            patch=no_patch,
            run_again=no_run,
            bundle=(await world.runner.bundle(job.attempt_name)).read(),
        )
        with pytest.raises(RetryLater) as later:
            await one_pass.run()
    assert later.value.delay_seconds == 77
    assert github.calls[-1].operation == operation
    assert recorded[-1].pull_request_url
    assert recorded[-1].commit


@pytest.mark.parametrize("operation", [PULL, CHECKS], ids=["before the commits", "after the commits"])
async def test_publisher_sends_nothing_until_a_limit_is_over(github: GitHubStandIn, operation: str) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan(Fault.secondary_limit(2), operation)
    times: dict[int, float] = {}
    github.before_call = lambda number: times.update({number: monotonic()})
    await world.publish()
    limited = 1 + next(index for index, call in enumerate(github.calls) if call.operation == operation)
    assert times[limited + 1] - times[limited] >= 2
    check_written_once(github, issue)


async def test_limit_before_the_commits_changes_no_number_of_tries(github: GitHubStandIn) -> None:
    world = await a_world(github, a_pull_request(github))
    job, stored = await world.store.get(Job, world.job_id), list[Published | None]()
    await world.store.update(replace(job, status=replace(job.status, published=Published(commit_tries=2))))
    github.faults.plan_always(Fault.secondary_limit(77), PULL)

    async def on_step(step: Step) -> None:
        if isinstance(step.subject, Job) and step.is_done:
            stored.append(step.subject.status.published)

    world.store.on_step = on_step
    async with publishing(world):
        await until(world, lambda job: bool(job.status.published and job.status.published.head_sha))
    assert [each.commit_tries for each in stored if each] == [2]


async def test_credentials_that_are_replaced_are_awaited(
    github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "ACCESS_SECONDS", 0.05)
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    secret = await world.store.get(Secret, "app")
    await world.store.delete(Secret, "app", secret.metadata.resource_version)
    async with publishing(world):
        missing = ("the Secret 'app' with the credentials is missing",)
        await until(world, lambda job: bool(job.status.published and job.status.published.refused == missing))
        assert not (await world.store.get(Job, world.job_id)).is_published
        await world.store.create(
            Secret(metadata=Metadata(name="app"), data={"appId": APP_ID, "privateKey": APP_KEY_PEM})
        )
        await until(world, is_complete)
    check_written_once(github, issue)
    assert (await published_by(world)).refused == ()


async def test_missing_credentials_are_not_awaited_for_ever(github: GitHubStandIn) -> None:
    world = await a_world(github, a_pull_request(github))
    job = await world.store.get(Job, world.job_id)
    assert job.status.finished_at
    long_ago = job.status.finished_at - 2 * publisher.ACCESS_AWAITED
    await world.store.update(replace(job, status=replace(job.status, finished_at=long_ago)))
    secret = await world.store.get(Secret, "app")
    await world.store.delete(Secret, "app", secret.metadata.resource_version)
    await world.publish()
    assert (await published_by(world)).refused == ("the Secret 'app' with the credentials is missing",)


@pytest.mark.parametrize(
    ("labels", "shown"),
    [(StateLabels(running="ai-working", done="ai-done"), "ai-working"), (None, "ai-done")],
    ids=["same labels", "no labels"],
)
async def test_the_label_of_a_thread_stays_while_another_job_will_replace_it(
    github: GitHubStandIn, labels: StateLabels | None, shown: str
) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    ended = await world.store.get(Job, world.job_id)
    assert ended.spec.report
    spec = replace(ended.spec, agent_role="ai-reviewer", report=replace(ended.spec.report, labels=labels))
    await world.store.create(Job(metadata=Metadata(name="ir-00000002"), spec=spec))
    await world.publish()
    assert issue.labels == [shown]


async def test_label_that_was_left_to_a_job_goes_when_that_job_is_deleted(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    ended = await world.store.get(Job, world.job_id)
    for number in (2, 3):
        spec = replace(ended.spec, agent_role="ai-reviewer")
        await world.store.create(Job(metadata=Metadata(name=f"ir-0000000{number}"), spec=spec))
    async with world.publisher():
        await until(world, is_complete)
        assert issue.labels == ["ai-working"]
        await world.store.delete(Job, "ir-00000002")
        await asyncio.sleep(0)
        await world.store.delete(Job, "ir-00000003")
        await eventually(lambda: issue.labels == [])


async def test_label_of_a_job_that_is_deleted_before_its_last_report_is_removed(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    issue.labels.append("ai-working")
    github.faults.plan(Fault.secondary_limit(1), PULL)
    async with world.publisher():
        await until(world, lambda job: job.status.published is not None)
        await world.store.delete(Job, world.job_id)
        await eventually(lambda: issue.labels == [])


class KillsAtFetch:
    """Kills each publisher before git gets the commit that the agent's are based on."""

    def begin(self) -> None:
        """Do nothing: all publishers are killed at the same step."""

    def hits(self, step: Step) -> bool:
        return step.is_done and isinstance(step.subject, Call) and step.subject.template == "git-upload-pack"


async def test_commits_that_end_three_publishers_become_a_patch(
    github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)

    async def patch(_: AttemptName) -> BinaryIO:
        return io.BytesIO(b"+++ the changes")

    monkeypatch.setattr(world.runner, "patch", patch)
    killed = await run_with_kills(github, world.store, KillsAtFetch(), world.publish)
    published = await published_by(world)
    assert (killed, published.commit_tries, published.pull_request_url) == (3, 0, None)
    assert "the publisher ended 3 times while it read the commits" in published.refused[0]
    assert "+++ the changes" in github.comments_of(issue)[0]["body"]


async def test_tries_that_come_to_an_end_are_not_counted(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan(UNAVAILABLE, "POST /repos/{owner}/{repo}/pulls", times=3)
    await world.publish()
    check_written_once(github, issue)
    assert (await published_by(world)).commit_tries == 0


@pytest.mark.parametrize("error", [None, ValueError("unexpected")], ids=["stopped", "unexpected error"])
async def test_tries_of_a_publisher_that_is_not_killed_are_not_counted(
    github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    world = await a_world(github, a_pull_request(github))
    counted = asyncio.Queue[int]()

    async def publish(_: CommitsPublisher, bundle: bytes) -> Pushed:
        counted.put_nowait((await published_by(world)).commit_tries)
        if error:
            raise error
        await asyncio.Event().wait()
        raise AssertionError("the publisher is stopped")

    monkeypatch.setattr(CommitsPublisher, "publish", publish)
    async with publishing(world):
        assert await counted.get() == 1
        if error:
            await until(world, lambda job: job.status.published == Published())
    assert await published_by(world) == Published()


async def test_commits_that_may_have_ended_a_publisher_are_published_one_at_a_time(
    github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world(github, a_pull_request(github))
    first = await world.store.get(Job, world.job_id)
    assert first.spec.report
    suspected = replace(first.status, published=Published(commit_tries=1))
    await world.store.update(replace(first, status=suspected))
    target = ReportTarget(repository="octo/demo", issue=github.demo.open_issue().number, source="github")
    spec = replace(first.spec, report=replace(first.spec.report, target=target))
    second = await world.store.create(Job(metadata=Metadata(name="ir-00000002"), spec=spec))
    await world.store.update(replace(second, status=suspected))
    at_a_time, busy, both = list[int](), set[str](), asyncio.Event()

    async def publish(commits: CommitsPublisher, bundle: bytes) -> Pushed:
        busy.add(commits.reported.job.id)
        at_a_time.append(len(busy))
        if len(busy) == 2:
            both.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(both.wait(), 1)
        busy.remove(commits.reported.job.id)
        return Pushed(patch="+++ the changes")

    monkeypatch.setattr(CommitsPublisher, "publish", publish)
    await world.publish()
    await dataclasses.replace(world, job_id=second.id).publish()
    assert set(at_a_time) == {1}


async def test_commits_of_a_repository_that_would_fill_the_disk_become_a_patch(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    github.demo.git.commit({"large.txt": os.urandom(3 * 2**20).hex()}, "fix")
    world = dataclasses.replace(await a_world(github, issue), scratch=2 * 2**20)
    await world.publish()
    published = await published_by(world)
    assert published.pull_request_url is None
    assert "the repository needs more than 2 MiB of temporary files" in published.refused[0]
