"""Creation of jobs: each once, under a free name and with all its parts, although the store may fail halfway."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import structlog
from msgspec.structs import replace

from labrats.files.attachments import Attachments
from labrats.intake.events import IncomingEvent
from labrats.intake.immediate_starts import ImmediateStarts
from labrats.intake.job_names import JobNames
from labrats.intake.job_parts import create_missing_parts, create_with_parts, has_all_parts
from labrats.intake.job_spec import PreparedJob, parts_of, spec_of
from labrats.metrics import Metrics
from labrats.model.errors import Conflict, NotFound, RetryLater, Taken
from labrats.model.job import DEFAULT_BRANCH_ANNOTATION, Job, retried
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.ports import Store

log = structlog.get_logger()


class JobCreator:
    """Creates prepared jobs in the store, with their files on the uploads volume."""

    def __init__(
        self, store: Store, attachments: Attachments, metrics: Metrics, immediate_starts: ImmediateStarts
    ) -> None:
        self._store, self._attachments, self._metrics = store, attachments, metrics
        self._immediate_starts = immediate_starts

    async def find(self, names: JobNames) -> Job | None:
        """Return the job that an earlier request stored under one of `names`, if all its parts are stored too."""
        found = await self._store.get_many(Job, names.candidates)
        job = next((job for job in found if names.is_same(job)), None)
        return job if job and await has_all_parts(self._store, job) else None

    async def create(self, prepared: PreparedJob, names: JobNames) -> Job:
        """Create the job under the first free one of `names`. Raises Conflict, Taken if none is free, RetryLater.

        Return the stored job instead if the same request has created it before, and add the parts it lacks.
        """
        for name in names.candidates:
            if job := await self._try_to_create(prepared, name, names):
                return job
        raise Taken("no free name was found for the job; submit it again")

    async def create_all(self, all_prepared: Iterable[tuple[PreparedJob, JobNames]]) -> list[Job]:
        """Create all jobs or none. Raises Conflict, RetryLater.

        Jobs with reproducible names stay after a failure, because another engine may already have reported them to the
        caller. The same request, sent again, creates the rest.
        """
        created: list[tuple[Job, JobNames]] = []
        try:
            for prepared, names in all_prepared:
                created.append((await self.create(prepared, names), names))
        except (Conflict, RetryLater):
            await self._delete_all([job for job, names in created if not names.are_reproducible])
            raise
        return [job for job, _ in created]

    async def _delete_all(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                await self._store.delete(Job, job.id)
            except NotFound:
                pass
            except RetryLater as error:
                log.warning("job of a failed request not deleted", job=job.id, reason=str(error))

    async def _try_to_create(self, prepared: PreparedJob, name: str, names: JobNames) -> Job | None:
        """Return the job; None when another job has the name."""
        contents = prepared.contents.files
        files = await self._attachments.save(name, contents) if contents else ()
        spec = spec_of(prepared, name, files)
        annotations = {**names.annotations, **_default_branch_of(prepared.request.event)}
        job = Job(metadata=Metadata(name=name, annotations=annotations), spec=spec)
        try:
            with self._immediate_starts.creation(job) as new:
                created = await create_with_parts(self._store, new, parts_of(job, prepared))
        except Conflict:
            await self._attachments.remove(name, files)
            holder = await self._find(name)
            return await self._complete(holder, prepared) if holder and names.is_same(holder) else None
        except RetryLater:
            await self._remove_traces(job, names)
            raise
        self._metrics.job_submitted(created)
        if new.phase is Phase.RUNNING:
            self._metrics.job_moved(replace(created, status=job.status), created, created.created_at)
        return created

    async def _find(self, name: str) -> Job | None:
        """Return the job with that name from the storage itself: another engine may have stored it just now."""
        try:
            return await self._store.get(Job, name)
        except NotFound:
            return None

    async def _complete(self, job: Job, prepared: PreparedJob) -> Job:
        """Add the parts that a stored job lacks, and requeue it if it has failed without them."""
        if not await create_missing_parts(self._store, job, parts_of(job, prepared)):
            return job
        job = await self._store.get(Job, job.id)
        if job.phase is not Phase.FAILED:
            return job
        return await self._store.update(retried(job))  # no caller has been told about the job yet

    async def _remove_traces(self, job: Job, names: JobNames) -> None:
        """Remove a job that was stored without some of its parts, and its files, as far as the store responds.

        A job with reproducible names stays, because the same request can complete it. If that request never comes
        again, the job fails for lack of its prompt.
        """
        with suppress(RetryLater):
            stored = await self._find(job.id)
            if stored and stored.spec == job.spec:
                if names.are_reproducible:
                    return
                with suppress(NotFound):
                    await self._store.delete(Job, job.id)
            await self._attachments.remove(job.id, job.spec.workspace_files)


def _default_branch_of(event: IncomingEvent | None) -> dict[str, str]:
    """Return the annotation with the default branch of an event's repository, if the event names it."""
    branch = event.text("repository", "default_branch") if event else None
    return {DEFAULT_BRANCH_ANNOTATION: branch} if branch else {}
