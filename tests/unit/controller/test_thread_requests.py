"""Requests from threads on GitHub: each is carried out once, although a watch lags and a controller is killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from msgspec.structs import replace

from labrats.files.attachments import Attachments
from labrats.files.uploads import Uploads
from labrats.github.client.access import GitHubAccess
from labrats.github.client.app import GitHub
from labrats.github.events.comment_commands import MEMBERS_ONLY, REFUSED
from labrats.github.publisher.answers import GIVEN_UP_AFTER
from labrats.github.requests import loop
from labrats.github.requests.loop import ThreadRequests
from labrats.github.requests.replies import drop_replies
from labrats.github.requests.thread_jobs import DONE, STARTED, ThreadJobs
from labrats.index.catalog import Catalog
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.stored_jobs import StoredJobs
from labrats.intake.thread_requests import add_request, remove_request
from labrats.metrics import Metrics
from labrats.model.errors import Overloaded, RetryLater
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import Metadata, Resource
from labrats.model.report import Published, PullRequestReport, Report, ReportTarget
from labrats.model.thread_requests import (
    ANSWERED_KEPT,
    MOST_OPEN,
    MOST_UNTRUSTED,
    MOST_UNTRUSTED_OF_THREAD,
    NOTHING,
    ThreadAction,
    ThreadAnswer,
    ThreadRequest,
)
from labrats.model.webhook_source import WebhookSource, WebhookSourceSpec
from labrats.ports import Change, Changed
from labrats.settings import EngineSettings
from tests.fakes.clock import NOON, FakeClock
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job, a_spec
from tests.unit.controller.lab import Lab

R = TypeVar("R", bound=Resource)

TARGET: Final = ReportTarget(repository="octo/demo", issue=7, source="github", comment=1)


class LaggingStore(MemoryStore):
    """A store whose watch reports each source a second time as it was first."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.lose_updates_of_jobs = 0

    async def watch(self, kind: type[R], *, after: int = 0, unsettled_only: bool = False) -> AsyncIterator[Change[R]]:
        first: Change[R] | None = None
        async for change in super().watch(kind, after=after, unsettled_only=unsettled_only):
            yield change
            if kind is WebhookSource and isinstance(change, Changed):
                first = first or change
                yield first

    async def update(self, resource: R) -> R:
        updated = await super().update(resource)
        if isinstance(resource, Job) and self.lose_updates_of_jobs:
            self.lose_updates_of_jobs -= 1
            raise RetryLater("the answer was lost")
        return updated


class ThreadLab(Lab):
    """A lab that carries out requests but runs no jobs."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        super().__init__(lab.clock, lab.machine)
        self.store: LaggingStore = LaggingStore(lab.clock)
        self.folder = folder

    @asynccontextmanager
    async def requests(self) -> AsyncIterator[None]:
        """Carry out requests while the block runs, and then stop as in a crash."""
        async with self.thread_jobs() as jobs, asyncio.TaskGroup() as tasks:
            running = tasks.create_task(ThreadRequests(jobs).run())
            yield
            running.cancel()

    @asynccontextmanager
    async def thread_jobs(self) -> AsyncIterator[ThreadJobs]:
        """Follow the store while the block runs."""
        catalog, index, settings = Catalog(), JobIndex(), EngineSettings()
        attachments, uploads = Attachments(self.folder), Uploads(self.folder)
        admission = Admission(self.store, catalog, index, attachments, uploads, Metrics(), settings)
        access = GitHubAccess(self.store, GitHub("http://127.0.0.1:9", self.clock), _no_client, self.clock)
        stored_jobs = StoredJobs(self.store, self.folder, self.clock, labelled_only=False)
        jobs = ThreadJobs(self.store, self.runner, catalog, index, admission, access, stored_jobs, self.clock)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(catalog.follow(self.store)),
                tasks.create_task(index.follow(self.store)),
            ]
            await index.synced.wait()
            yield jobs
            for task in running:
                task.cancel()

    async def add_source(self, *requests: ThreadRequest) -> WebhookSource:
        spec = WebhookSourceSpec(type="github", credentials_ref="app")
        source = await self.store.create(WebhookSource(metadata=Metadata(name="github"), spec=spec))
        for request in requests:
            await add_request(self.store, source, request)
        return await self.source()

    async def source(self) -> WebhookSource:
        return await self.store.get(WebhookSource, "github")

    async def add(self, phase: Phase, **status: Any) -> Job:
        spec = a_spec(report=Report(target=TARGET), owner="webhook-source/github")
        return await self.store.create(a_job(phase, spec=spec, resource_version="", **status))

    async def answered(self) -> list[ThreadRequest]:
        """Wait until all requests have an answer, and the watch has reported all changes."""
        async with asyncio.timeout(3600):
            while any(each.answer is None for each in (await self.source()).status.thread_requests):
                await self.clock.sleep(0.1)
        for _ in range(50):
            await self.clock.sleep(0.1)
        return list((await self.source()).status.thread_requests)


def _no_client() -> Any:
    raise AssertionError("nothing is asked of GitHub")


def a_request(action: ThreadAction, number: int = 1, **fields: Any) -> ThreadRequest:
    usual: dict[str, Any] = {"event": "issue_comment.created", "target": TARGET, "received_at": NOON}
    return ThreadRequest(id=f"comment-{number}", action=action, **usual | fields)


@pytest.fixture
def threads(lab: Lab, tmp_path: Path) -> ThreadLab:
    return ThreadLab(lab, tmp_path)


async def test_a_lagging_watch_repeats_no_retry(threads: ThreadLab) -> None:
    job = await threads.add(Phase.FAILED, attempts=1)
    await threads.add_source(a_request(ThreadAction.RETRY))
    async with threads.requests():
        (request,) = await threads.answered()
    assert request.answer == DONE
    assert (await threads.job(job)).phase is Phase.PENDING


async def test_a_retry_whose_answer_was_lost_is_not_repeated(threads: ThreadLab) -> None:
    job = await threads.add(Phase.FAILED, attempts=1)
    await threads.add_source(a_request(ThreadAction.RETRY))
    threads.store.lose_updates_of_jobs = 1
    async with threads.requests():
        (request,) = await threads.answered()
    assert (request.answer, request.jobs, request.attempts) == (DONE, (job.id,), 1)
    assert (await threads.job(job)).phase is Phase.PENDING


async def test_a_further_run_that_is_not_possible_is_answered_with_the_reason(threads: ThreadLab) -> None:
    job = await threads.add(Phase.SUCCEEDED)
    await threads.add_source(a_request(ThreadAction.RERUN, job=job.id))
    async with threads.requests():
        (request,) = await threads.answered()
    assert request.answer
    assert (request.answer.text or "").startswith(f"The job {job.id} could not run once more: ")


async def test_a_button_in_another_repository_of_the_source_concerns_no_job(threads: ThreadLab) -> None:
    """A person who may write to one repository can create a check there that names any job."""
    job = await threads.add(Phase.FAILED, attempts=1)
    elsewhere = replace(TARGET, repository="octo/other", issue=None)
    await threads.add_source(a_request(ThreadAction.RETRY, target=elsewhere, job=job.id))
    async with threads.requests():
        await threads.answered()
    assert (await threads.store.get(Job, job.id)).phase is Phase.FAILED


async def test_a_cancel_concerns_the_jobs_that_its_author_saw(threads: ThreadLab) -> None:
    seen = await threads.add(Phase.PENDING)
    noted = a_request(ThreadAction.CANCEL, jobs=(seen.id,))  # an engine was killed after it had noted them
    await threads.add_source(noted)
    later = await threads.add(Phase.PENDING)
    async with threads.requests():
        (request,) = await threads.answered()
    assert request.answer == DONE
    assert (await threads.job(seen)).phase is Phase.CANCELLED
    assert (await threads.job(later)).phase is Phase.PENDING


REPLY_THEN_CANCEL: Final = (ThreadAction.REPLY, ThreadAction.CANCEL)


async def test_a_cancel_drops_the_replies_that_wait_for_the_jobs(threads: ThreadLab) -> None:
    """A reply that was not dropped would ask GitHub for the pull request, which fails here."""
    target, url = replace(TARGET, issue=None, pull_request=8), "https://github.com/octo/demo/pull/8"
    report = Report(target=target, pull_request=PullRequestReport())
    spec = a_spec(report=report, owner="webhook-source/github")
    opened = a_job(Phase.SUCCEEDED, spec=spec, resource_version="", published=Published(pull_request_url=url))
    await threads.store.create(opened)
    working = await threads.store.create(a_job(Phase.PENDING, spec=spec, resource_version=""))
    requests = (a_request(action, number, target=target, url=url) for number, action in enumerate(REPLY_THEN_CANCEL))
    await threads.add_source(*requests)
    async with threads.requests():
        cancelled, seen = await threads.answered()
    assert (seen.id, seen.answer, cancelled.answer) == ("comment-0-seen", STARTED, DONE)
    assert (await threads.job(working)).phase is Phase.CANCELLED
    assert (await threads.source()).status.answered_requests == ("comment-0",)


async def test_a_stored_run_of_an_external_contributor_starts_no_agent(threads: ThreadLab) -> None:
    await threads.add_source(a_request(ThreadAction.RUN, agent="ai-developer", untrusted=True))
    async with threads.requests():
        (request,) = await threads.answered()
    assert request.answer == ThreadAnswer(reaction=REFUSED, text=MEMBERS_ONLY)


@pytest.mark.parametrize(("untrusted", "dropped"), [(False, ()), (True, ("comment-0",))])
async def test_a_cancel_of_an_external_contributor_drops_no_reply_of_a_member(
    threads: ThreadLab, untrusted: bool, dropped: tuple[str, ...]
) -> None:
    source = await threads.add_source(a_request(ThreadAction.REPLY, 0, untrusted=untrusted))
    cancel = a_request(ThreadAction.CANCEL, 1, untrusted=True)
    await add_request(threads.store, source, cancel)
    async with threads.thread_jobs() as jobs:
        assert await drop_replies(jobs, await threads.source(), cancel) == bool(dropped)
    assert (await threads.source()).status.answered_requests == dropped


@pytest.mark.parametrize("action", [ThreadAction.REPLY, ThreadAction.REPAIR])
async def test_a_request_in_a_pull_request_of_a_person_leaves_nothing(threads: ThreadLab, action: ThreadAction) -> None:
    target = replace(TARGET, issue=None, pull_request=8)
    await threads.add_source(a_request(action, target=target, url="https://github.com/octo/demo/pull/8"))
    async with threads.requests():
        async with asyncio.timeout(3600):
            while (await threads.source()).status.thread_requests:
                await threads.clock.sleep(0.1)
    assert (await threads.source()).status.answered_requests == ()


async def test_an_error_in_one_request_does_not_stop_the_next(
    threads: ThreadLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await threads.add(Phase.FAILED, attempts=1)
    broken = a_request(ThreadAction.RUN, number=1, agent="ai-developer")
    monkeypatch.setattr(loop, "start_agent", _fail)
    await threads.add_source(broken, a_request(ThreadAction.RETRY, number=2))
    async with threads.requests():
        async with asyncio.timeout(3600):
            while (await threads.job(job)).phase is not Phase.PENDING:
                await threads.clock.sleep(0.1)
    first, second = (await threads.source()).status.thread_requests
    assert (first.answer, second.answer) == (None, DONE)


async def test_slow_request_delays_those_of_its_own_thread_only(
    threads: ThreadLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of three threads, the first of which takes an hour."""
    begun: list[str] = []

    async def work(_: ThreadJobs, __: WebhookSource, request: ThreadRequest) -> ThreadAnswer:
        begun.append(request.id)
        await threads.clock.sleep(3600 if request.id == "comment-0" else 0.3)
        return DONE

    monkeypatch.setattr(loop, "start_agent", work)
    targets = [replace(TARGET, issue=number % 3) for number in range(12)]
    requests = [a_request(ThreadAction.RUN, number, agent="a", target=target) for number, target in enumerate(targets)]
    await threads.add_source(*requests)
    async with threads.requests():
        await threads.clock.sleep(60)
        assert sorted(begun) == sorted(["comment-0", *(each.id for each in requests if each.target.issue != 0)])
        await threads.answered()
    for issue in range(3):
        of_thread = [each.id for each in requests if each.target.issue == issue]
        assert [each for each in begun if each in of_thread] == of_thread


async def test_a_request_that_cannot_be_carried_out_for_a_day_is_dropped(
    threads: ThreadLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "start_agent", _postpone)
    received_at = NOON - GIVEN_UP_AFTER + timedelta(seconds=45)
    await threads.add_source(a_request(ThreadAction.RUN, agent="ai-developer", received_at=received_at))
    started = threads.clock.now()
    async with threads.requests():
        assert await threads.answered() == []
    assert threads.clock.now() - started > timedelta(seconds=45)


async def _fail(*_: Any) -> Any:
    raise ValueError("a bug")


async def _postpone(*_: Any) -> Any:
    raise RetryLater("GitHub is unreachable", delay_seconds=10)


async def test_a_request_is_stored_once_and_not_again_once_answered(threads: ThreadLab) -> None:
    request = a_request(ThreadAction.HELP, answer=NOTHING)
    source = await threads.add_source(request, request)
    assert source.status.thread_requests == (request,)
    await remove_request(threads.store, source, request)
    await remove_request(threads.store, source, request)
    await add_request(threads.store, source, request)
    status = (await threads.source()).status
    assert (status.thread_requests, status.answered_requests) == ((), ("comment-1",))


async def test_open_and_answered_requests_are_bounded(threads: ThreadLab) -> None:
    source = await threads.add_source()
    for number in range(ANSWERED_KEPT + 10):
        await add_request(threads.store, source, a_request(ThreadAction.HELP, number))
        await remove_request(threads.store, source, a_request(ThreadAction.HELP, number))
    assert len((await threads.source()).status.answered_requests) == ANSWERED_KEPT
    for number in range(MOST_OPEN):
        await add_request(threads.store, source, a_request(ThreadAction.HELP, 1000 + number))
    with pytest.raises(Overloaded, match="too many commands are waiting"):
        await add_request(threads.store, source, a_request(ThreadAction.HELP, 5000))


async def test_external_contributors_leave_room_for_the_commands_of_members(threads: ThreadLab) -> None:
    source = await threads.add_source()

    async def add(number: int, issue: int) -> None:
        target = ReportTarget(repository="octo/demo", issue=issue, comment=number)
        request = a_request(ThreadAction.RUN, number, untrusted=True)
        await add_request(threads.store, source, replace(request, target=target))

    for number in range(MOST_UNTRUSTED_OF_THREAD):
        await add(number, issue=1)
    with pytest.raises(Overloaded):
        await add(100, issue=1)
    for number in range(MOST_UNTRUSTED - MOST_UNTRUSTED_OF_THREAD):
        await add(200 + number, issue=2 + number // MOST_UNTRUSTED_OF_THREAD)
    with pytest.raises(Overloaded):
        await add(300, issue=20)
    await add_request(threads.store, source, a_request(ThreadAction.CANCEL, 400))
