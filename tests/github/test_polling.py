"""Events are read from GitHub's API, once each, whatever GitHub answers in between."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from msgspec.structs import replace

from labrats.github.client.access import GitHubAccess
from labrats.github.client.app import GitHub
from labrats.github.client.repository import github_client
from labrats.github.polling import poller
from labrats.github.polling.poller import Poller
from labrats.index.catalog import Catalog
from labrats.intake.event_authorization import is_by_external_contributor, reason_to_ignore
from labrats.intake.events import IncomingEvent
from labrats.intake.report_targets import target_of
from labrats.model.core_resources import Secret
from labrats.model.errors import RetryLater
from labrats.model.record import Metadata
from labrats.model.webhook_source import PollCursor, WebhookSource, WebhookSourceSpec
from tests.fakes.store import MemoryStore
from tests.github.test_report_rights import Enough, PassClock
from tests.support.builders import a_trigger, an_agent
from tests.support.github import APP_ID, APP_KEY_PEM, APP_LOGIN, Fault, GitHubStandIn, Issue
from tests.support.github.calls import Actor

STRANGER: Final = Actor("person", "stranger", 2)
BOT: Final = Actor("installation", APP_LOGIN, 4712)
LIST: Final = "GET /repos/{owner}/{repo}/issues"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def one_pass_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "PASS_SECONDS", poller.POLL_SECONDS)


@dataclass
class Taken:
    """The events that were taken. before: called with each one first."""

    events: list[IncomingEvent] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)
    before: Callable[[IncomingEvent], None] = lambda _: None

    async def take(self, source: WebhookSource, event: IncomingEvent, fingerprint: str) -> None:
        self.before(event)
        self.events.append(event)
        self.fingerprints.append(fingerprint)

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.events]


@dataclass
class Engine:
    """An engine that reads the stand-in, minute by minute. Its clock differs from that of GitHub by years."""

    github: GitHubStandIn
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: PassClock = field(default_factory=PassClock)
    taken: Taken = field(default_factory=Taken)

    async def add_source(self, *repositories: str, **status: Any) -> None:
        await self.store.create(
            Secret(metadata=Metadata(name="app"), data={"appId": APP_ID, "privateKey": APP_KEY_PEM})
        )
        spec = WebhookSourceSpec(
            type="github", mode="poll", credentials_ref="app", repositories=repositories or ("octo/demo",)
        )
        source = await self.store.create(WebhookSource(metadata=Metadata(name="github"), spec=spec))
        if status:
            await self.store.update(replace(source, status=replace(source.status, **status)))

    async def source(self) -> WebhookSource:
        return await self.store.get(WebhookSource, "github")

    async def read(self, passes: int = 1) -> None:
        """Read for some minutes."""
        catalog = Catalog()
        triggers = ["pull_request.*", "check_run.completed", "pull_request_review_comment.created"]
        catalog.put(an_agent("a", *(a_trigger(each) for each in triggers)))
        catalog.put(await self.source())
        catalog.synced.set()
        app = GitHub(self.github.url, self.clock)
        self.clock.passes = passes
        async with github_client(self.github.url) as client, asyncio.timeout(60):
            access = GitHubAccess(self.store, app, client, self.clock)
            reader = Poller(self.store, catalog, access, self.taken, self.clock)
            with pytest.raises(Enough):
                await reader.run()

    async def condition(self) -> tuple[str, str, str]:
        (found,) = [each for each in (await self.source()).status.conditions if each.type == "Polling"]
        return found.status, found.reason, found.message


@pytest.fixture
def engine(github: GitHubStandIn) -> Engine:
    return Engine(github)


def ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def an_old_issue(github: GitHubStandIn, **fields: Any) -> Issue:
    issue = github.demo.open_issue(**fields)
    issue.created_at = issue.updated_at = ago(72)
    return issue


async def test_each_event_is_taken_once_and_as_a_webhook_describes_it(
    engine: Engine, github: GitHubStandIn, pull: Issue
) -> None:
    old = an_old_issue(github)
    github.demo.comment(old, "Long ago.", STRANGER)["created_at"] = ago(48)
    pull.created_at = pull.updated_at = ago(72)
    old.updated_at = ago(48)
    await engine.add_source()
    await engine.read()
    assert engine.taken.names == []

    new = github.demo.open_issue("It crashes", user=STRANGER)
    old.add_label("ai")
    comment = github.demo.comment(old, "/labrats retry")
    github.demo.git.commit({"new.txt": "three\n"}, "fix")
    github.demo.push(pull)
    assert pull.pull
    pull.pull.reviews.append(a_review(pull))
    await engine.read(3)

    found = {each.name: each for each in engine.taken.events}
    assert sorted(engine.taken.names) == sorted(found)
    assert sorted(found) == [
        "issue_comment.created",
        "issues.labeled",
        "issues.opened",
        "pull_request.synchronize",
        "pull_request_review.submitted",
    ]
    assert found["issues.labeled"].text("label", "name") == "ai"
    assert found["issues.opened"].find("issue", "number") == new.number
    assert found["issue_comment.created"].find("comment", "id") == comment["id"]
    assert found["pull_request_review.submitted"].find("review", "state") == "commented"
    assert found["pull_request.synchronize"].find("pull_request", "head", "sha") == pull.pull.head_sha
    spec = (await engine.source()).spec
    admitted = {name for name, each in found.items() if reason_to_ignore(each, spec) is None}
    assert admitted == set(found) - {"issues.opened"}  # of a stranger
    assert is_by_external_contributor(found["issues.opened"], spec)


def a_review(issue: Issue, review_id: int = 77) -> dict[str, Any]:
    return {
        "id": review_id,
        "state": "COMMENTED",
        "body": "Please.",
        "user": {"id": 1, "login": "octo", "type": "User"},
        "author_association": "OWNER",
        "submitted_at": ago(0),
    }


async def test_a_quiet_repository_costs_one_unchanged_answer_a_minute(engine: Engine, github: GitHubStandIn) -> None:
    an_old_issue(github)
    await engine.add_source()
    await engine.read(3)
    lists = github.calls_of(LIST)
    assert [call.status for call in lists] == [200, 304, 304]
    assert not github.calls_of("GET /repos/{owner}/{repo}/issues/comments")
    assert (await engine.source()).status.rate_remaining == github.remaining


async def test_source_is_written_once_for_the_readings_of_all_its_repositories(engine: Engine) -> None:
    await engine.add_source("octo/demo", "octo/gone")
    before = int((await engine.source()).metadata.resource_version or 0)
    await engine.read(3)
    assert int((await engine.source()).metadata.resource_version or 0) - before == 3


async def test_pages_of_lists_are_read_to_the_cursor(engine: Engine, github: GitHubStandIn) -> None:
    issue = an_old_issue(github)
    await engine.add_source()
    await engine.read()
    for number in range(230):
        github.demo.comment(issue, f"comment {number}")
    await engine.read()
    assert len(engine.taken.events) == 230
    assert len(set(engine.taken.fingerprints)) == 230


@pytest.mark.parametrize(
    "fault", [Fault(502, "Server Error"), Fault(lost=True), Fault.secondary_limit(60), Fault(401, "Bad credentials")]
)
async def test_an_event_is_not_lost_by_an_error(engine: Engine, github: GitHubStandIn, fault: Fault) -> None:
    issue = an_old_issue(github)
    await engine.add_source()
    await engine.read()
    github.demo.comment(issue, "Hello.")
    github.faults.plan(fault, "GET /repos/{owner}/{repo}/issues/comments")
    await engine.read()
    assert engine.taken.names == []
    assert (await engine.condition())[0] == "False"
    await engine.read(2)
    assert engine.taken.names == ["issue_comment.created"]
    assert await engine.condition() == ("True", "UpToDate", "all repositories are read")


async def test_a_token_that_is_seconds_old_is_tried_again(engine: Engine, github: GitHubStandIn) -> None:
    github.access.lag_seconds = 0.3
    await engine.add_source()
    await engine.read()
    assert (await engine.condition())[:2] == ("False", "Refused")
    await asyncio.sleep(0.4)
    github.access.lag_seconds = 0
    await engine.read(2)
    assert (await engine.condition())[0] == "True"


async def test_a_repository_that_github_refuses_does_not_stop_the_others(engine: Engine, github: GitHubStandIn) -> None:
    issue = an_old_issue(github)
    await engine.add_source("octo/gone", "octo/demo")
    await engine.read()
    github.demo.comment(issue, "Hello.")
    await engine.read()
    assert engine.taken.names == ["issue_comment.created"]
    status, reason, message = await engine.condition()
    assert (status, reason) == ("False", "Refused")
    assert message.startswith("octo/gone: ")
    assert "install" in message


async def test_events_of_a_stop_are_read_and_those_older_than_a_day_are_counted(
    engine: Engine, github: GitHubStandIn
) -> None:
    issue = an_old_issue(github)
    github.demo.comment(issue, "Two days ago.")["created_at"] = ago(48)
    github.demo.comment(issue, "An hour ago.")["created_at"] = ago(1)
    since = datetime.now(UTC) - timedelta(hours=60)
    await engine.add_source(polled={"octo/demo": PollCursor(since=since)})
    await engine.read()
    assert [each.text("comment", "body") for each in engine.taken.events] == ["An hour ago."]
    status, reason, message = await engine.condition()
    assert (status, reason) == ("True", "EventsSkipped")
    assert message.endswith(": 1")


async def test_an_event_that_is_read_again_after_a_crash_has_the_same_fingerprint(
    engine: Engine, github: GitHubStandIn
) -> None:
    issue = an_old_issue(github)
    await engine.add_source()
    await engine.read()
    issue.add_label("ai")
    github.demo.comment(issue, "Hello.")
    fingerprints = engine.taken.fingerprints

    def refuse_second(event: IncomingEvent) -> None:
        if len(fingerprints) == 1:
            engine.taken.before = lambda _: None
            raise RetryLater("the store is gone")

    engine.taken.before = refuse_second
    await engine.read()
    assert len(fingerprints) == 1
    await engine.read()
    assert len(fingerprints) == 3
    assert len(set(fingerprints)) == 2


async def test_an_event_that_cannot_be_stored_is_read_again_although_nothing_has_changed(
    engine: Engine, github: GitHubStandIn
) -> None:
    issue = an_old_issue(github)
    github.demo.comment(issue, "Hello.")["created_at"] = ago(0.5)
    issue.updated_at = ago(0.5)
    await engine.add_source(polled={"octo/demo": PollCursor(since=datetime.now(UTC) - timedelta(hours=1))})

    def refuse_once(event: IncomingEvent) -> None:
        engine.taken.before = lambda _: None
        raise RetryLater("the queue is full")

    engine.taken.before = refuse_once
    await engine.read(3)
    assert engine.taken.names == ["issue_comment.created"]
    assert [call.status for call in github.calls_of(LIST)] == [200, 200, 304]


async def test_failed_checks_of_the_engines_pull_requests_are_read(
    engine: Engine, github: GitHubStandIn, pull: Issue
) -> None:
    pull.user = BOT.user
    pull.created_at = pull.updated_at = ago(72)
    assert pull.pull
    await engine.add_source(login=APP_LOGIN)
    await engine.read()
    github.demo.end_check(pull.pull.head_sha)
    await engine.read(3)
    assert engine.taken.names == ["check_run.completed"]
    target = target_of(engine.taken.events[0], await engine.source())
    assert target
    assert (target.pull_request, target.head_sha) == (pull.number, pull.pull.head_sha)


async def test_an_action_without_an_actor_starts_nothing(engine: Engine, github: GitHubStandIn) -> None:
    issue = an_old_issue(github)
    await engine.add_source()
    await engine.read()
    issue.happen("labeled", label={"name": "ai"})["actor"] = None
    await engine.read()
    assert engine.taken.names == []
