"""A refusal of GitHub that may not last is tried again with a new token, and one that lasts is final."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from labrats.github.client.access import TokenCache
from labrats.github.client.app import Token
from labrats.model.job import Job
from labrats.model.record import Metadata
from tests.fakes.clock import FakeClock
from tests.github.test_publisher_kills import (  # noqa: F401, the fixture
    a_pull_request,
    a_world,
    anyio_backend,
    check_written_once,
)
from tests.github.test_publisher_waits import published_by, publishing, until
from tests.support.github import Fault, GitHubStandIn

CHECKS = "POST /repos/{owner}/{repo}/check-runs"
COMMENTS = "POST /repos/{owner}/{repo}/issues/{issue_number}/comments"
PULL = "GET /repos/{owner}/{repo}/pulls/{pull_number}"
PULLS = "POST /repos/{owner}/{repo}/pulls"
REVIEWS = "POST /repos/{owner}/{repo}/pulls/{pull_number}/reviews"
LABEL = "DELETE /repos/{owner}/{repo}/issues/{issue_number}/labels/{name}"
TOKENS = "POST /app/installations/{installation_id}/access_tokens"
PUSH = "POST git-receive-pack"
FETCH = "GET info/refs"

TOO_QUICKLY = Fault(422, "Validation Failed", errors=[{"message": "body was submitted too quickly"}])
UNKNOWN = Fault(401, "Bad credentials")
ABSENT = Fault(404, "Not Found")


@pytest.mark.parametrize(
    ("fault", "operation"),
    [
        *((fault, PULLS) for fault in (UNKNOWN, Fault.forbidden(), ABSENT, TOO_QUICKLY)),
        (Fault.forbidden(), CHECKS),
        (TOO_QUICKLY, COMMENTS),
        (ABSENT, PULL),
        (UNKNOWN, REVIEWS),
        *((fault, PUSH) for fault in (UNKNOWN, Fault.forbidden(), ABSENT)),
        (ABSENT, FETCH),
    ],
)
async def test_refusal_that_does_not_last_loses_no_part(github: GitHubStandIn, operation: str, fault: Fault) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan(fault, operation, times=2)
    await world.publish()
    check_written_once(github, issue)
    assert (await published_by(world)).refused == ()


@pytest.mark.parametrize("status", [401, 404])
async def test_token_that_cannot_be_created_at_first_loses_no_part(github: GitHubStandIn, status: int) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan(Fault(status), TOKENS, times=2)
    github.faults.plan(Fault(404, "Not Found"), "GET /repos/{owner}/{repo}/installation", skip=1)
    await world.publish()
    check_written_once(github, issue)


async def test_token_that_github_knows_late_is_used_once_it_is_known(
    github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labrats.github.client.repository.FIRST_DOUBT_SECONDS", 0.5)
    github.access.lag_seconds = 0.4
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    await world.publish()
    check_written_once(github, issue)


async def test_label_stays_known_where_its_removal_was_refused(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    issue.labels.append("ai-working")
    world = await a_world(github, issue)
    github.faults.plan(Fault(404, "Not Found"), LABEL)
    await world.publish()
    check_written_once(github, issue)


async def test_comment_says_what_is_being_published(github: GitHubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labrats.github.client.repository.FIRST_DOUBT_SECONDS", 60)
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    github.faults.plan(Fault.forbidden(), PULLS)
    async with publishing(world):
        await until(world, lambda job: bool(job.status.published and job.status.published.comment_url))
    (comment,) = github.comments_of(issue)
    assert "The rest is being published: commits." in comment["body"]
    assert not (await world.store.get(Job, world.job_id)).is_published
    await world.publish()
    check_written_once(github, issue)
    assert "is being published" not in comment["body"]


def forbid(github: GitHubStandIn) -> None:
    github.faults.plan_always(Fault.forbidden(), CHECKS)


def withhold(github: GitHubStandIn) -> None:
    github.access.withheld.add("checks")


def not_granted(github: GitHubStandIn) -> None:
    del github.access.permissions["checks"]


@pytest.mark.parametrize(
    ("refuse", "tries", "reason"),
    [
        (forbid, 5, "check: GitHub refuses it with 403"),
        (withhold, 1, "check: GitHub refuses it with 403"),
        (not_granted, 0, "check: GitHub refuses the App a token for the repository; it needs the permissions checks"),
    ],
)
async def test_refusal_that_lasts_is_final(
    github: GitHubStandIn, refuse: Callable[[GitHubStandIn], None], tries: int, reason: str
) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    refuse(github)
    await world.publish()
    assert [each for each in (await published_by(world)).refused if each.startswith(reason)]
    of_commits = Counter(str(call.body or call.path) for call in github.calls if call.status == 403)
    assert set(of_commits.values()) == ({tries} if tries else set())
    (comment,) = github.comments_of(issue)
    published = await published_by(world)
    assert f"[Review]({published.review_url})." in comment["body"]


async def test_each_try_has_a_new_token(github: GitHubStandIn) -> None:
    world = await a_world(github, a_pull_request(github))
    github.faults.plan(Fault.forbidden(), REVIEWS, times=3)
    await world.publish()
    of_reviews = [each for each in github.access.grants if each["permissions"] == {"pull_requests": "write"}]
    assert len(of_reviews) == 4


async def test_tokens_are_shared_by_reports_to_a_repository(github: GitHubStandIn) -> None:
    issue = a_pull_request(github)
    world = await a_world(github, issue)
    first = await world.store.get(Job, world.job_id)
    second = await world.store.create(Job(metadata=Metadata(name="ir-00000002"), spec=first.spec))
    await world.store.update(replace(second, status=replace(first.status, published=None)))
    async with world.publisher(), asyncio.timeout(60):
        for job_id in (first.id, second.id):
            while not (await world.store.get(Job, job_id)).is_published:
                await asyncio.sleep(0.01)
    granted = [str(each["permissions"]) for each in github.access.grants]
    assert sorted(set(granted)) == sorted(granted)


async def test_token_is_used_until_five_minutes_before_its_end() -> None:
    clock = FakeClock()
    cache = TokenCache(clock)
    key = ("app", "1", "octo/demo", frozenset({("issues", "write")}))
    cache.add(key, Token("test-token", expires_at=clock.now() + timedelta(hours=1)))
    clock.step(54 * 60)
    assert cache.find(key)
    clock.step(2 * 60)
    assert cache.find(key) is None
