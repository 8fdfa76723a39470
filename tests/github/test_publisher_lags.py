"""Each part of a report is written once, although GitHub's lists lag behind its writes and answers are lost."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from labrats.github.client.access import ISSUES, GitHubAccess
from labrats.github.client.app import UNREACHABLE_SECONDS, GitHub
from labrats.github.client.repository import AnswerLost, github_client
from labrats.github.publisher.answers import Answers
from labrats.model.errors import RetryLater
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.model.report import ReportTarget
from labrats.model.thread_requests import ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import WebhookSource
from labrats.ports import SystemClock
from tests.github.kills import SteppedStore, add_source
from tests.github.test_publish_again import publish_again
from tests.github.test_publisher_kills import (  # noqa: F401, the fixture
    World,
    a_pull_request,
    a_world,
    anyio_backend,
    check_written_once,
    endless_tries,
)
from tests.github.test_publisher_waits import publishing, until
from tests.support.background import run_in_background
from tests.support.github import Fault, GitHubStandIn
from tests.support.github.faults import LOST

CHECKS = "POST /repos/{owner}/{repo}/check-runs"
COMMENTS = "POST /repos/{owner}/{repo}/issues/{issue_number}/comments"
PULLS = "POST /repos/{owner}/{repo}/pulls"
REVIEWS = "POST /repos/{owner}/{repo}/pulls/{pull_number}/reviews"

HOUR = timedelta(hours=1)
TARGET = ReportTarget(source="github", repository="octo/demo", issue=1)


def has_all_but_one(job: Job) -> bool:
    """Return whether a pass has come to its end, although one part was postponed."""
    published = job.status.published
    return published is not None and bool(published.comment_url or published.review_url)


async def kill_at(world: World, operation: str) -> None:
    """Kill a publisher once GitHub has acted on a request of this operation."""
    github, loop, acted = world.github, asyncio.get_running_loop(), asyncio.Event()

    def see(number: int) -> None:
        if github.calls[number - 1].operation == operation:
            loop.call_soon_threadsafe(acted.set)

    github.after_call = see
    async with publishing(world):
        await acted.wait()
    github.after_call = None


async def test_later_publisher_writes_to_what_no_list_shows(github: GitHubStandIn) -> None:
    github.world.lag_seconds = HOUR.total_seconds()
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    ended = await world.store.get(Job, world.job_id)
    await world.store.update(replace(ended, status=replace(ended.status, phase=Phase.RUNNING, finished_at=None)))
    async with publishing(world):
        await until(world, lambda job: bool(job.status.published and job.status.published.comment_url))
    issue.reactions.clear()
    running = await world.store.get(Job, world.job_id)
    await world.store.update(replace(running, status=replace(ended.status, published=running.status.published)))
    await world.publish()
    check_written_once(github, issue)
    await publish_again(world)
    check_written_once(github, issue)


@pytest.mark.timeout(120)
async def test_lost_answers_write_nothing_twice_where_lists_lag(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    github.world.lag_seconds = UNREACHABLE_SECONDS + 1
    world = await a_world(github, issue)
    world.listed_after = timedelta(seconds=UNREACHABLE_SECONDS + 2)
    for operation in (COMMENTS, CHECKS, REVIEWS, PULLS):
        github.faults.plan(LOST, operation)
    await world.publish()
    check_written_once(github, issue)


@pytest.mark.parametrize(
    ("fault", "is_lost"),
    [(LOST, True), (Fault(502), True), (Fault.secondary_limit(), False), (Fault.forbidden(), False)],
    ids=["lost", "502", "limit", "403"],
)
async def test_answer_is_lost_where_github_may_have_acted(github: GitHubStandIn, fault: Fault, is_lost: bool) -> None:
    store, clock = SteppedStore(), SystemClock()
    await add_source(store)
    github.demo.open_issue()
    async with github_client(github.url) as client:
        access = await GitHubAccess(store, GitHub(github.url, clock), client, clock).open(TARGET, "test")
        github.faults.plan(fault, COMMENTS)
        with pytest.raises(RetryLater) as error:
            await access.repository.add("/issues/1/comments", {"body": "Hi"}, ISSUES)
    assert isinstance(error.value, AnswerLost) == is_lost


@pytest.mark.parametrize("operation", [COMMENTS, CHECKS, REVIEWS, PULLS])
async def test_kill_before_the_answer_writes_nothing_twice_where_lists_lag(
    github: GitHubStandIn, operation: str
) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    await kill_at(world, operation)
    github.world.lag_seconds, world.listed_after = HOUR.total_seconds(), HOUR
    async with publishing(world):
        await until(world, has_all_but_one)
    github.world.lag_seconds = 0
    await world.publish()
    check_written_once(github, issue)


async def test_refused_object_is_not_awaited(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    world.listed_after = HOUR
    github.faults.plan(Fault(403, "Resource not accessible by integration"), CHECKS)
    await world.publish()
    check_written_once(github, issue)


async def test_jobs_share_a_comment_whose_answer_was_lost(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    first = await world.store.get(Job, world.job_id)
    assert first.spec.report
    report = replace(first.spec.report, check=None, review=None, pull_request=None)
    for name in ("ir-00000002", "ir-00000003"):
        created = await world.store.create(Job(metadata=Metadata(name=name), spec=replace(first.spec, report=report)))
        await world.store.update(replace(created, status=first.status))
    await world.store.delete(Job, first.id, first.metadata.resource_version)
    github.faults.plan(LOST, COMMENTS)
    github.world.lag_seconds, world.listed_after = HOUR.total_seconds(), HOUR

    async def until_both(condition: Callable[[Job], bool]) -> None:
        async with world.publisher():
            for world.job_id in ("ir-00000002", "ir-00000003"):
                await until(world, condition)

    await until_both(lambda job: job.status.published is not None and job.status.published.head_sha is not None)
    github.world.lag_seconds = 0
    await until_both(lambda job: job.is_published)
    assert len(github.comments_of(issue)) == 1


async def requests_of(store: SteppedStore) -> Sequence[ThreadRequest]:
    return (await store.get(WebhookSource, "github")).status.thread_requests


async def test_answer_to_a_command_is_written_once_where_lists_lag(github: GitHubStandIn) -> None:
    github.world.lag_seconds = UNREACHABLE_SECONDS + 1
    listed_after = timedelta(seconds=UNREACHABLE_SECONDS + 2)
    issue, store, clock = github.demo.open_issue(), SteppedStore(), SystemClock()
    assert issue.number == TARGET.issue
    source = await add_source(store)
    request = ThreadRequest(
        id="1",
        event="issue_comment.created",
        action=ThreadAction.HELP,
        target=TARGET,
        received_at=datetime.now(UTC),
        answer=ThreadAnswer(text="There are three commands."),
    )
    await store.update(replace(source, status=replace(source.status, thread_requests=(request,))))
    github.faults.plan(LOST, COMMENTS)
    async with github_client(github.url) as client, asyncio.timeout(60):
        for is_killed in (True, False):
            access = GitHubAccess(store, GitHub(github.url, clock), client, clock)
            async with run_in_background(Answers(store, access, clock, listed_after).run()):
                while not github.calls_of(COMMENTS) if is_killed else (await requests_of(store)):
                    await asyncio.sleep(0.01)
    assert len(github.comments_of(issue)) == 1
    assert len(github.calls_of(COMMENTS)) == 1
