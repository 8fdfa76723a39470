"""A report that is written again: what is missing is added, and what GitHub has stays as it is."""

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from labrats.model.job import Job, after_publish_request
from tests.github.test_publisher_kills import (  # noqa: F401, the fixture
    World,
    a_pull_request,
    a_world,
    anyio_backend,
    check_written_once,
)
from tests.github.test_publisher_waits import published_by
from tests.support.github import Fault, GitHubStandIn
from tests.support.github.faults import UNAVAILABLE


async def publish_again(world: World) -> None:
    job = await world.store.get(Job, world.job_id)
    await world.store.update(after_publish_request(job, datetime.now(UTC)))
    await world.publish()


async def test_refused_parts_are_written(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan(Fault.gone(), "POST /repos/{owner}/{repo}/pulls/{pull_number}/reviews")
    github.faults.plan(Fault.gone(), "POST /repos/{owner}/{repo}/check-runs")
    await world.publish()
    assert len((await published_by(world)).refused) == 2
    await publish_again(world)
    check_written_once(github, issue)
    assert (await published_by(world)).refused == ()


async def test_complete_report_is_not_written_twice(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    await world.publish()
    await publish_again(world)
    check_written_once(github, issue)


async def test_no_second_pull_request_follows_one_that_was_merged(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    await world.publish()
    url = (await published_by(world)).pull_request_url
    (pull_request,) = [each for each in github.demo.issues.values() if each.url == url]
    assert pull_request.pull
    pull_request.state, pull_request.pull.merged = "closed", True
    github.demo.git.git("branch", "-D", pull_request.pull.head)
    await publish_again(world)
    published = await published_by(world)
    assert (published.pull_request_url, published.refused) == (url, ())
    assert github.demo.git.resolve(f"refs/heads/{pull_request.pull.head}") is None


async def test_old_report_is_tried_as_long_as_a_new_one(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    await world.publish()
    job = await world.store.get(Job, world.job_id)
    long_ago = datetime.now(UTC) - timedelta(days=20)
    await world.store.update(replace(job, status=replace(job.status, finished_at=long_ago)))
    github.faults.plan(UNAVAILABLE, "GET /repos/{owner}/{repo}/pulls/{pull_number}")
    await publish_again(world)
    check_written_once(github, issue)
    assert (await published_by(world)).refused == ()
