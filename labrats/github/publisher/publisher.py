"""The publisher: compares the report that each job wants with what GitHub has, and writes the difference.

The wanted report is a function of the job. Every step looks before it writes, so a publisher that is killed between any
two requests continues without a second comment, check, review or pull request.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

import structlog
from msgspec.structs import replace

from labrats.github.client.access import GitHubAccess, NoAccess
from labrats.github.client.repository import RefusedByGitHub
from labrats.github.publisher.branch import remove_leftovers
from labrats.github.publisher.comments import COMMENT_NAME, Comments
from labrats.github.publisher.creations import LISTED_AFTER
from labrats.github.publisher.git import in_git_thread, limited_scratch
from labrats.github.publisher.labels import write_labels
from labrats.github.publisher.pull_request import OPEN, PATCH_BYTES, PullRequest
from labrats.github.publisher.report_pass import DoneParts, ReportPass
from labrats.github.reports.reported_job import ReportedJob, reported_job
from labrats.intake.thread_requests import add_request, is_rerun_on_new_head, rerun_request_for
from labrats.metrics import Metrics
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.protocol import BUNDLE_BYTES
from labrats.model.report import CreatedObject, Published, Report, ReportMode, ReportTarget, StateLabels
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Changed, Clock, Deleted, Runner, Store, compare_and_set
from labrats.settings import EngineSettings
from labrats.work_queue import WorkQueue, work_forever

WORKERS: Final = 8
ACTIVITY_SECONDS: Final = 60.0
"""Interval of the reports of a running job, which show what its agent does."""

GIVEN_UP_AFTER: Final = timedelta(hours=96)
"""Time after the end of a job for which its report is tried."""

ACCESS_AWAITED: Final = timedelta(hours=1)
"""Time after the end of a job for which missing credentials are awaited: they may be replaced right now."""

ACCESS_SECONDS: Final = 30.0
LOCKED_SECONDS: Final = 0.2
"""Time after which a job is tried again while the report of another one is written in its thread."""

BUNDLE_AWAITED: Final = timedelta(minutes=2)
"""Time after the end of a job for which its bundle is awaited: a shared volume may show it late."""

MOST_FAILURES: Final = 8
FAILURE_SECONDS: Final = 5.0
"""Passes over the report of an ended job that may fail with an unexpected error, and the first delay after one. The
delay doubles each time.
"""

_GIVEN_UP: Final = "given up after four days: "
_FAILED: Final = "the engine could not write the report: its log says why"

log = structlog.get_logger()


@dataclass
class _Progress:
    """The report of a job so far, in this process.

    written_at: time of the last pass.
    done:       results of the parts that are complete for `state`: the phase and attempts of the job, and the last
                request to publish it again.
    failures:   passes in this state that have failed with an unexpected error.
    """

    published: Published
    written_at: datetime | None = None
    state: tuple[Phase, int, datetime | None] | None = None
    done: DoneParts = field(default_factory=DoneParts)
    failures: int = 0

    def begin(self, job: Job) -> bool:
        """Forget the complete parts if the job has another state than at the last pass. Return whether it has."""
        if (state := (job.phase, job.status.attempts, _requested_at(job))) == self.state:
            return False
        self.state, self.done, self.failures = state, DoneParts(), 0
        return True


class Publisher:
    """Writes the reports of jobs. Only one may run at a time."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        access: GitHubAccess,
        clock: Clock,
        settings: EngineSettings,
        metrics: Metrics,
        listed_after: timedelta = LISTED_AFTER,
    ) -> None:
        self._listed_after = listed_after
        self._store, self._runner, self._access, self._clock = store, runner, access, clock
        self._settings, self._metrics = settings, metrics
        self._comments = Comments()
        self._work = WorkQueue()
        self._jobs: dict[str, Job] = {}
        self._deleted: dict[str, Job] = {}
        self._progress: dict[str, _Progress] = {}
        self._locks: WeakValueDictionary[tuple[str, int | None], asyncio.Lock] = WeakValueDictionary()
        """A lock for each issue and pull request, whose comment several jobs may share."""
        self._suspects = asyncio.Lock()
        """Held while the report of a job is written whose commits may have ended a publisher: one at a time."""

    async def run(self) -> None:
        """Write reports until cancelled."""
        with limited_scratch(self._settings.publisher_scratch):
            await in_git_thread(remove_leftovers)
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._watch(), name="watch-reported-jobs")
                for number in range(WORKERS):
                    loops.create_task(work_forever(self._work, self._publish), name=f"publish-{number}")

    async def _watch(self) -> None:
        async for change in self._store.watch(Job, unsettled_only=True):
            match change:
                case Changed(job) if _is_reported(job) and not (job.ended and job.is_published):
                    before, self._jobs[job.id] = self._jobs.get(job.id), job
                    if before is None or _reason_to_report(before) != _reason_to_report(job):
                        self._work.add(job.id)
                case Changed(job):
                    self._forget(job.id)
                case Deleted(job):
                    self._forget(job.id)
                    if _is_reported(job) and not (job.ended and job.is_published):
                        self._deleted[job.id] = job
                        self._work.add(job.id)

    def _forget(self, job_id: str) -> None:
        if self._jobs.pop(job_id, None):
            self._work.cancel_timer(job_id)
            self._progress.pop(job_id, None)

    async def _publish(self, job_id: str) -> None:
        """Write the report of a job as it is now, and plan the next time."""
        if deleted := self._deleted.get(job_id):
            await self._remove_label(deleted)
            self._deleted.pop(job_id, None)
        if (job := self._jobs.get(job_id)) is None or (report := job.spec.report) is None or report.target is None:
            return
        progress = self._progress.setdefault(job_id, _Progress(job.status.published or Published()))
        target = report.target
        if target.repository_id is None:
            target = replace(target, repository_id=progress.published.repository_id)
        if any(lock.locked() for lock in self._locks_of(target, progress)):  # no worker waits for another one
            self._work.add_later(job_id, LOCKED_SECONDS)
            return
        if (wait := self._wait_of(progress)) > 0:
            self._work.add_later(job_id, wait)
            return
        if progress.begin(job) and _requested_at(job):
            self._comments.forget(target)
        try:
            published = await self._pass(job, report, target, progress)
        except NoAccess as error:
            await self._record(job, progress, replace(progress.published, refused=(str(error),)))
            self._work.add_later(job_id, ACCESS_SECONDS)
            return
        progress.written_at = self._clock.now()
        if job.ended:
            published = replace(published, attempts=job.status.attempts, finished_at=job.status.finished_at)
            self._metrics.report_tried(_outcome_of(published))
        await self._record(job, progress, published)
        if job.phase is Phase.RUNNING:
            self._work.add_later(job_id, ACTIVITY_SECONDS)

    async def _pass(self, job: Job, report: Report, target: ReportTarget, progress: _Progress) -> Published:
        """Write the report, and return what is published, also if the report is given up.

        Raises NoAccess while credentials of an ended job are awaited, and RetryLater.
        """
        try:
            return await self._write(job, report, target, progress)
        except NoAccess as error:
            if job.ended and not self._ended_before(job, ACCESS_AWAITED):
                raise
            return replace(progress.published, refused=(str(error),))
        except RetryLater as error:
            if not self._ended_before(job, GIVEN_UP_AFTER):
                self._metrics.report_tried("retried")
                raise
            reason = f"{_GIVEN_UP}{error}"
        except Exception:  # a defect that the output of one agent triggers must not use up the limits of GitHub
            progress.failures += 1
            if not job.ended or progress.failures < MOST_FAILURES:
                log.exception("report failed", job=job.id)
                delay = FAILURE_SECONDS * 2 ** (min(progress.failures, MOST_FAILURES) - 1)
                raise RetryLater("the report failed with an unexpected error", delay) from None
            log.exception("report given up", job=job.id)
            reason = _FAILED
        return replace(progress.published, refused=(*progress.published.refused, reason))

    async def _remove_label(self, job: Job) -> None:
        """Remove the label "running" of a job that was deleted before its last report, unless another job will do so.

        An earlier job of the thread may have left it to this one. Raises RetryLater.
        """
        report = job.spec.report
        if report is None or report.target is None or report.labels is None or self._leaves_labels(job):
            return
        async with self._lock_of(report.target):
            with suppress(NoAccess, RefusedByGitHub):
                access = await self._access.open(report.target, f"label of {job.id}")
                await write_labels(access, report.target, StateLabels(running=report.labels.running), Phase.CANCELLED)

    def _leaves_labels(self, job: Job) -> bool:
        """Return whether another job will write the labels of this one at its end."""
        return any(_shares_labels(job, other) for other in self._jobs.values() if other.id != job.id)

    def _wait_of(self, progress: _Progress) -> float:
        """Return the seconds until the job may be reported again."""
        if progress.written_at is None:
            return 0.0
        interval = self._settings.report_interval_seconds
        return min(interval, interval - (self._clock.now() - progress.written_at).total_seconds())

    def _ended_before(self, job: Job, time: timedelta) -> bool:
        """Return whether a job ended longer ago than that, or was last to be published again."""
        since = (_requested_at(job) or job.status.finished_at) if job.ended else None
        return since is not None and self._clock.now() - since > time

    async def _write(self, job: Job, report: Report, target: ReportTarget, progress: _Progress) -> Published:
        """Write all parts of the report, and return what is published. Raises NoAccess, RetryLater."""
        async with AsyncExitStack() as locks:
            for lock in self._locks_of(target, progress):
                await locks.enter_async_context(lock)
            access = await self._access.open(target, f"{job.id} {progress.state}")
            report_pass = ReportPass(
                access=access,
                report=report,
                target=target,
                reported=await self._reported(job, progress.published, access.described.homepage),
                published=await self._with_earlier_secrets(job, progress.published),
                comments=self._comments,
                record=partial(self._record, job, progress),
                patch=partial(self._patch, job),
                clock=self._clock,
                listed_after=self._listed_after,
                shared=self._comments_of_others(job, target),
                run_again=partial(self._run_again, job, target),
                others_work=self._leaves_labels(job),
                bundle=await self._bundle(job, report),
                done=progress.done,
            )
            return await report_pass.run()

    def _comments_of_others(self, job: Job, target: ReportTarget) -> Mapping[str, CreatedObject]:
        """Return the comments that the other jobs of the thread have created, or may have: some share one."""
        found: dict[str, CreatedObject] = {}
        for other in self._jobs.values():
            report = other.spec.report
            if other.id != job.id and report and report.target and _thread(report.target) == _thread(target):
                progress = self._progress.get(other.id)
                published = progress.published if progress else other.status.published
                for name, created in (published.objects if published else {}).items():
                    is_later = name not in found or created.created_at > found[name].created_at
                    if name.startswith(COMMENT_NAME) and is_later:
                        found[name] = created
        return found

    def _locks_of(self, target: ReportTarget, progress: _Progress) -> Sequence[asyncio.Lock]:
        """Return the locks that a pass over a report holds."""
        lock = self._lock_of(target)
        return [lock, self._suspects] if progress.published.commit_tries else [lock]

    def _lock_of(self, target: ReportTarget) -> asyncio.Lock:
        return self._locks.setdefault(_thread(target), asyncio.Lock())

    async def _reported(self, job: Job, published: Published, homepage: str | None) -> ReportedJob:
        activity = await self._runner.activity(job.attempt_name) if job.phase is Phase.RUNNING else None
        return await reported_job(
            self._runner,
            job,
            self._settings,
            activity=activity,
            pull_request_url=published.pull_request_url,
            homepage=homepage,
        )

    async def _with_earlier_secrets(self, job: Job, published: Published) -> Published:
        """Return what is published, with the secrets found in the job that this one continues or repeats.

        Its agent knows them, too, and may name them. A secret that cannot be recognised is left out.
        """
        names, found = filter(None, (job.spec.follow_up_of, job.spec.rerun_of)), [*published.secrets]
        for earlier in await self._store.get_many(Job, list(names)):
            of_earlier = earlier.status.published.secrets if earlier.status.published else ()
            found += [secret for secret in of_earlier if secret.digests]
        return replace(published, secrets=tuple(dict.fromkeys(found)))

    async def _bundle(self, job: Job, report: Report) -> bytes | None:
        if job.phase is not Phase.SUCCEEDED or report.pull_request is None:
            return None
        try:
            with await self._runner.bundle(job.attempt_name) as file:
                return await asyncio.to_thread(file.read, BUNDLE_BYTES)
        except NotFound:
            if job.status.outputs.bundle_bytes and not self._ended_before(job, BUNDLE_AWAITED):
                raise RetryLater("the agent's commits cannot be read yet", delay_seconds=1) from None
            return None

    async def _patch(self, job: Job) -> str | None:
        with suppress(NotFound), await self._runner.patch(job.attempt_name) as file:
            return (await asyncio.to_thread(file.read, PATCH_BYTES)).decode(errors="replace")
        return None

    async def _run_again(self, job: Job, target: ReportTarget, pull_request: PullRequest) -> bool:
        """Ask for one more run of a job on the new head of its pull request. Return whether there will be one.

        There is none after that, nor for a report that is written again. Raises RetryLater.
        """
        is_first = not is_rerun_on_new_head(job) and not _requested_at(job)
        if (source := target.source) is None or pull_request.state != OPEN or not is_first:
            return False
        target = replace(target, head_sha=pull_request.head.sha)
        request = rerun_request_for(job, target, pull_request.html_url, self._clock.now())
        try:
            await add_request(self._store, await self._store.get(WebhookSource, source), request)
        except NotFound:
            return False
        return True

    async def _record(self, job: Job, progress: _Progress, published: Published) -> None:
        """Store what is published, if that has changed."""
        if published == progress.published:
            return

        def change(stored: Job) -> Job:
            outputs, again = stored.status.outputs, replace(published, requested_at=_requested_at(stored))
            if _requested_at(stored) != _requested_at(job):  # a request has come while this report was written
                again = replace(again, attempts=0, finished_at=None)
            if published.pull_request_url:
                outputs = replace(outputs, pull_request_url=published.pull_request_url)
            return replace(stored, status=replace(stored.status, published=again, outputs=outputs))

        with suppress(NotFound):  # the job was deleted
            await compare_and_set(self._store, lambda: self._store.get(Job, job.id), change)
        progress.published = published


def _shares_labels(job: Job, other: Job) -> bool:
    """Return whether another job has yet to end, and will then write the same labels in the same thread."""
    ours, theirs = job.spec.report, other.spec.report
    if other.ended or not (ours and theirs and ours.target and theirs.target) or ours.labels != theirs.labels:
        return False
    return _thread(ours.target) == _thread(theirs.target)


def _reason_to_report(job: Job) -> tuple[Job, datetime | None]:
    """Return a job without the parts that the publisher stores, and the last request to publish it again."""
    status = replace(job.status, published=None, outputs=replace(job.status.outputs, pull_request_url=None))
    return replace(job, metadata=replace(job.metadata, resource_version=""), status=status), _requested_at(job)


def _requested_at(job: Job) -> datetime | None:
    return job.status.published.requested_at if job.status.published else None


def _thread(target: ReportTarget) -> tuple[str, int | None]:
    return target.repository.lower(), target.number


def _outcome_of(published: Published) -> str:
    if any(reason.startswith((_GIVEN_UP, _FAILED)) for reason in published.refused):
        return "given_up"
    return "refused" if published.refused else "written"


def _is_reported(job: Job) -> bool:
    """Return whether the report of a job is written."""
    report = job.spec.report
    if report is None or job.is_unchecked:
        return False
    return report.target is not None and report.mode is not ReportMode.PREVIEW
