"""The jobs of a thread on GitHub, and the parts of the engine with which requests from threads are carried out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from labrats.github.client.access import GitHubAccess
from labrats.index.catalog import Catalog
from labrats.index.job_filter import JobFilter
from labrats.index.job_table import thread_key
from labrats.index.jobs import JobIndex
from labrats.intake.admission import Admission
from labrats.intake.job_names import JobNames, names_from
from labrats.intake.stored_jobs import StoredJobs
from labrats.model.caller import SUBMIT, Caller
from labrats.model.job import OWNER_PREFIX, Job
from labrats.model.thread_requests import REQUEST_ANNOTATION, ThreadAction, ThreadAnswer, ThreadRequest
from labrats.model.webhook_source import WebhookSource
from labrats.ports import Clock, Runner, Store, compare_and_set

MOST_JOBS: Final = 100
"""The latest jobs of a thread, which a request may concern."""

WAIT_FOR_JOB_SECONDS: Final = 2.0
"""Time between two looks at a job for which a request waits. GitHub is not asked."""

PUBLICATION_AWAITED: Final = timedelta(minutes=10)
"""Time after the end of a job for which its report is awaited."""

DONE: Final = ThreadAnswer(reaction="+1")
STARTED: Final = ThreadAnswer(reaction="eyes")


class RequestFailed(Exception):
    """The request cannot be carried out. Its text tells the person why."""


class ForeignPullRequest(Exception):
    """The request is in a pull request that no job has made. It is dropped, and not remembered."""


class MustWait(Exception):
    """The request has to wait for something that ends by itself, a job or a check. It is tried again after a delay."""

    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"not before {delay_seconds} s")
        self.delay_seconds = delay_seconds


@dataclass(frozen=True)
class ThreadJobs:
    """The jobs of threads."""

    store: Store
    runner: Runner
    catalog: Catalog
    job_index: JobIndex
    admission: Admission
    access: GitHubAccess
    stored_jobs: StoredJobs
    clock: Clock

    async def of(self, source: WebhookSource, request: ThreadRequest) -> Sequence[Job]:
        """Return the latest jobs of the thread that the request may concern, the newest first, or the one it names."""
        if request.job:
            return _newest_first(await self.store.get_many(Job, [request.job]), source, request)
        target = request.target
        assert target.number is not None, "a request comes from an issue or a pull request"
        agent = None if request.action is ThreadAction.REPAIR else request.agent
        thread = JobFilter(thread=thread_key(target.repository, target.number), agent_role=agent)
        page = await self.job_index.find_page(thread, cursor=None, limit=MOST_JOBS)
        jobs = await self.store.get_many(Job, [each.id for each in page.jobs])
        return _newest_first([*jobs, *await self._of_pull_request(request, agent)], source, request)

    async def of_pull_request(self, source: WebhookSource, request: ThreadRequest) -> Sequence[Job]:
        """Return the latest jobs whose commits the pull request has, the newest first."""
        return _newest_first(await self._of_pull_request(request, None), source, request)

    async def is_about_untrusted_commits(self, source: WebhookSource, request: ThreadRequest) -> bool:
        """Return whether the pull request has commits of an untrusted job: an earlier version marked none."""
        return any(job.spec.untrusted for job in await self.of_pull_request(source, request))

    async def _of_pull_request(self, request: ThreadRequest, agent: str | None) -> Sequence[Job]:
        if request.target.pull_request is None or request.url is None:
            return []
        wanted = JobFilter(pull_request=request.url, agent_role=agent)
        page = await self.job_index.find_page(wanted, cursor=None, limit=MOST_JOBS)
        return await self.store.get_many(Job, [each.id for each in page.jobs])

    def is_busy(self, job: Job) -> bool:
        """Return whether a job works, or has just ended and the pull request may still lack its commits."""
        return not job.ended or self.is_publishing(job)

    def is_publishing(self, job: Job) -> bool:
        """Return whether a job has just ended, and its report is not complete."""
        finished_at = job.status.finished_at
        if not job.ended or finished_at is None or job.is_published:
            return False
        return self.clock.now() - finished_at < PUBLICATION_AWAITED

    async def change(self, job_id: str, change: Callable[[Job], Job]) -> None:
        """Store the change of a job. Raises NotFound, RetryLater and what `change` raises."""
        await compare_and_set(self.store, lambda: self.store.get(Job, job_id), change)


def _newest_first(jobs: Sequence[Job], source: WebhookSource, request: ThreadRequest) -> Sequence[Job]:
    by_id = {job.id: job for job in jobs if _may_concern(job, source, request)}
    return sorted(by_id.values(), key=lambda job: (job.created_at, job.id), reverse=True)


def _may_concern(job: Job, source: WebhookSource, request: ThreadRequest) -> bool:
    """Return whether a request may change a job: one of the source, and for an external contributor untrusted.

    A source may have several repositories, and who may write to one may name a job of another in a check there.
    """
    target = job.spec.report.target if job.spec.report else None
    is_of_source = job.spec.owner == f"{OWNER_PREFIX}{source.name}" or (target and target.source == source.name)
    is_of_repository = target.repository == request.target.repository if target else request.job is None
    return bool(is_of_source) and is_of_repository and (job.spec.untrusted or not request.untrusted)


def names_for(source: WebhookSource, request: ThreadRequest) -> JobNames:
    """Return the names for the job of a request: always the same, so that it starts one job."""
    return names_from(REQUEST_ANNOTATION, f"{source.metadata.uid}/{request.id}")


def owner_of(job: Job) -> Caller:
    """Return the caller that the jobs which follow `job` belong to: its owner."""
    return Caller(id=job.spec.owner, scopes=frozenset({SUBMIT}), secret=job.spec.api_key_ref)
