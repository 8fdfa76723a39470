"""The contract of a forge of git repositories."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.github.forge import GitHubForge
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.events import IncomingEvent
from labrats.intake.forge import Forge, ForgeWork
from labrats.metrics import Metrics
from labrats.model.core_resources import Secret
from labrats.model.job import Job, JobStatus
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.model.report import CommentMode, Report, ReportTarget
from labrats.model.thread_requests import ThreadAction
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from labrats.ports import SystemClock
from labrats.settings import EngineSettings
from tests.fakes.forge import MemoryForge
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.github.kills import SteppedStore, add_source
from tests.support.builders import a_spec
from tests.support.github import a_github

SOURCE = WebhookSource(metadata=Metadata(name="github"), spec=WebhookSourceSpec(type="github", credentials_ref="app"))


@dataclass
class ForgeCase:
    """A forge with a thread for reports. comments: returns the number of comments in it.

    say: writes a comment of the owner there.
    """

    forge: Forge
    comments: Callable[[], int]
    say: Callable[[str], object]
    issue: int = 7
    store: SteppedStore = field(default_factory=SteppedStore)

    def publishing(self) -> "asyncio.Task[None]":
        runner = MemoryRunner(self.store, MemoryMachine())
        return asyncio.ensure_future(self.forge.publish(self.store, runner, timedelta(0)))


@pytest.fixture
def anyio_backend() -> str:
    """The ordinary event loop, since the stand-in for GitHub is behind sockets."""
    return "asyncio"


@pytest.fixture(params=["memory", "github"])
def case(request: pytest.FixtureRequest) -> Iterator[ForgeCase]:
    clock = SystemClock()
    if request.param == "memory":
        fake = MemoryForge(clock)
        say = lambda text: fake.events.append(a_comment(text))  # noqa: E731
        yield ForgeCase(fake, lambda: sum(map(len, fake.comments.values())), say)
        return
    with a_github() as github:
        issue = github.demo.open_issue()
        settings = EngineSettings(github_api_url=github.url, report_interval_seconds=0.001)
        forge = GitHubForge(settings, clock, Metrics())
        comments = partial(github.comments_of, issue)
        yield ForgeCase(forge, lambda: len(comments()), partial(github.demo.comment, issue), issue.number)


def a_job(case: ForgeCase, **spec: Any) -> Job:
    target = ReportTarget(repository="octo/demo", issue=case.issue, source="github")
    report = Report(comment=CommentMode.STICKY, target=target)
    return Job(
        metadata=Metadata(name="ir-00000001", created_at=datetime.now(UTC)), spec=a_spec(**{"report": report} | spec)
    )


def a_comment(text: str, association: str = "MEMBER") -> IncomingEvent:
    author = {"login": "octocat", "type": "User"}
    payload = {
        "action": "created",
        "repository": {"full_name": "octo/demo", "owner": {"login": "octo"}},
        "issue": {"number": 7, "user": author, "author_association": association},
        "comment": {"id": 3, "body": text, "author_association": association, "user": author},
        "sender": author,
    }  # fmt: skip
    return IncomingEvent("github", "issue_comment.created", payload)


async def test_report_is_written_once_although_the_publisher_starts_again(case: ForgeCase) -> None:
    await add_source(case.store)
    job, now = await case.store.create(a_job(case)), datetime.now(UTC)
    status = JobStatus(phase=Phase.SUCCEEDED, attempts=1, started_at=now, finished_at=now, result="Done.")
    await case.store.update(replace(job, status=status))

    for _ in range(2):
        publisher = case.publishing()
        async with asyncio.timeout(30):
            while not (await case.store.get(Job, job.id)).is_published:
                await asyncio.sleep(0.01)
        publisher.cancel()
        await asyncio.wait([publisher])

    assert case.comments() == 1
    published = (await case.store.get(Job, job.id)).status.published
    assert published
    assert published.comment_url


async def test_preview_has_a_comment_and_a_job_without_a_report_has_none(case: ForgeCase) -> None:
    runner = MemoryRunner(case.store, MemoryMachine())
    preview = await case.forge.preview(runner, a_job(case))
    assert preview
    assert preview["comment"]
    assert await case.forge.preview(runner, a_job(case, report=None)) is None


async def test_job_that_uses_no_token_gets_none(case: ForgeCase) -> None:
    await case.forge.tokens(case.store).provide(a_job(case))
    assert await case.store.list(Secret) == []


def test_command_in_a_comment_is_a_request(case: ForgeCase) -> None:
    asked = case.forge.thread_event(a_comment("/labrats cancel"), SOURCE, Catalog(), "fingerprint")
    assert asked
    assert asked.command is ThreadAction.CANCEL
    assert (asked.requests[0].target.repository, asked.requests[0].target.issue) == ("octo/demo", 7)


def test_command_of_somebody_who_may_start_nothing_is_no_request(case: ForgeCase) -> None:
    asked = case.forge.thread_event(a_comment("/labrats cancel", "NONE"), SOURCE, Catalog(), "fingerprint")
    assert asked
    assert (list(asked.requests), asked.command) == ([], None)
    assert asked.note


def test_events_of_another_type_of_source_ask_for_nothing(case: ForgeCase) -> None:
    generic = replace(SOURCE, spec=replace(SOURCE.spec, type="generic"))
    assert case.forge.thread_event(a_comment("/labrats cancel"), generic, Catalog(), "fingerprint") is None


@dataclass
class Taken:
    """The events that a forge hands over."""

    events: list[IncomingEvent] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)

    async def take(self, source: WebhookSource, event: IncomingEvent, fingerprint: str) -> None:
        self.events.append(event)
        self.fingerprints.append(fingerprint)


@pytest.mark.parametrize("mode", ["poll", "webhook"])
async def test_events_are_read_once_for_a_source_that_polls(
    case: ForgeCase, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labrats.github.polling.poller.PASS_SECONDS", 0.01)
    monkeypatch.setattr("labrats.github.polling.poller.POLL_SECONDS", 0.05)
    stored = await add_source(case.store)
    spec = replace(stored.spec, mode=mode, repositories=("octo/demo",))
    catalog, taken = Catalog(), Taken()
    catalog.put(await case.store.update(replace(stored, spec=spec)))
    catalog.synced.set()
    parts: Any = (JobIndex(), None, None, taken)
    work = ForgeWork(case.store, MemoryRunner(case.store, MemoryMachine()), catalog, *parts)
    serving = asyncio.ensure_future(case.forge.serve(work))
    await asyncio.sleep(0.5)

    case.say("Hello.")

    await asyncio.sleep(1.5)
    serving.cancel()
    await asyncio.wait([serving])
    comments = [each for each in taken.events if each.name == "issue_comment.created"]
    assert [each.text("comment", "body") for each in comments] == (["Hello."] if mode == "poll" else [])


def test_notices_for_one_reason_have_one_id_a_day(case: ForgeCase) -> None:
    event = a_comment("hello")
    first, again = (case.forge.notice(event, SOURCE, "why", "Because.") for _ in range(2))
    other = case.forge.notice(event, SOURCE, "other", "Because.")
    assert first
    assert again
    assert other
    assert first.id == again.id != other.id
    keyless = replace(SOURCE, spec=replace(SOURCE.spec, credentials_ref=None))
    assert case.forge.notice(event, keyless, "why", "Because.") is None
