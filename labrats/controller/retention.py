"""Retention: deletes the workspaces of ended jobs, and later the jobs themselves with all their files.

disk_limits.py deletes workspaces and outputs of ended jobs earlier when they take too much space.

Collects orphaned attempts and files, too: a job may be deleted with kubectl while no engine runs.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import PurePath
from typing import Final, TypeVar

import structlog

from labrats.controller.cleanup_passes import repeat
from labrats.controller.history_bound import HistoryBound
from labrats.files.attachments import Attachments, job_of
from labrats.index.jobs import JobIndex
from labrats.intake.stored_jobs import existing_jobs
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import Secret
from labrats.model.errors import BecameUnreadable, Conflict, NotFound, RetryLater, Unreadable
from labrats.model.job import TOKEN_LIFETIME, Job
from labrats.model.phases import ENDED, Phase
from labrats.ports import Alive, Clock, Deleted, Runner, Store
from labrats.settings import EngineSettings
from labrats.work_queue import WorkQueue, work_forever

log = structlog.get_logger()

T = TypeVar("T")

PASS_SECONDS: Final = 600.0

TOKEN_PASS_SECONDS: Final = 15.0
"""Time for which a token outlives its job. The next job of a chain copies the token when its parent ends."""

NEW_SECONDS: Final = 3600.0
"""Age from which files without a job are collected. The files of a new job are stored before the job itself."""

BATCH: Final = 200
"""Files, or Secrets, whose jobs are looked for together. Reading them blocks the event loop."""


class Retention:
    """Deletes what is older than its retention, in a pass every ten minutes, and the files of a deleted job at once."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        index: JobIndex,
        attachments: Attachments,
        clock: Clock,
        settings: EngineSettings,
        history: HistoryBound | None = None,
    ) -> None:
        """history: the bound on all stored jobs; None on one machine, whose disk has room."""
        self._history = history
        self._store, self._runner, self._index = store, runner, index
        self._attachments, self._clock = attachments, clock
        self._workspace_retention = timedelta(hours=settings.workspace_retention_hours)
        self._job_retention = timedelta(days=settings.job_retention_days)
        self._deleted: dict[str, Job] = {}
        self._deletions = WorkQueue()
        # On a cluster Secrets are deleted with their jobs, and a controller may not list them.
        self._deletes_tokens = settings.backend == "embedded"

    async def run(self) -> None:
        """Clean up periodically, until cancelled."""
        await self._index.synced.wait()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(repeat(self.clean, PASS_SECONDS, self._clock), name="clean")
            loops.create_task(self._watch_deletions(), name="watch-deletions")
            loops.create_task(work_forever(self._deletions, self._remove_files_of, "job"), name="deletions")
            if self._deletes_tokens:
                # Wait: the next job of a chain may have to copy the token of a job that ended while no engine ran.
                await self._clock.sleep(TOKEN_PASS_SECONDS)
                loops.create_task(repeat(self.delete_tokens, TOKEN_PASS_SECONDS, self._clock), name="delete tokens")

    async def _watch_deletions(self) -> None:
        async for change in self._store.watch(Job, unsettled_only=True):
            if isinstance(change, Deleted):
                self._deleted[change.resource.id] = change.resource
                self._deletions.add(change.resource.id)

    async def _remove_files_of(self, job_id: str) -> None:
        """Remove the files of a job that was deleted, such as with kubectl. Raises RetryLater while an attempt runs."""
        with suppress(NotFound):
            await self._store.get(Job, job_id)
            del self._deleted[job_id]  # another one has its name: the passes collect what is left of this one
            return
        job = self._deleted[job_id]
        for number in range(1, job.status.attempts + 1):
            name = AttemptName(job_id, number)
            if isinstance(await self._runner.find(name), Alive):
                await self._runner.kill(name)
            await self._runner.remove(name)
        await self._attachments.remove(job_id, job.spec.workspace_files)
        del self._deleted[job_id]

    async def clean(self) -> None:
        """Make one pass over jobs, workspaces, attempts and files. A part that fails is left to the next pass."""
        for part in (
            self._forget_jobs,
            self._bound_history,
            self._clear_workspaces,
            self._collect_attempts,
            self._collect_files,
        ):
            try:
                await part()
            except (RetryLater, OSError) as error:
                log.warning("cleanup postponed", part=part.__name__.strip("_"), reason=str(error))

    async def _forget_jobs(self) -> None:
        ended_before = self._clock.now() - self._job_retention
        for job_id in self._index.finished_before(ended_before):
            # It may have been deleted, retried or made invalid meanwhile.
            with suppress(NotFound, Conflict, BecameUnreadable), _failure_logged(job_id):
                await self._forget(job_id, ended_before)

    async def _bound_history(self) -> None:
        """Delete the oldest settled jobs while all jobs take more than their bound."""
        if self._history is None:
            return
        now = self._clock.now()
        excess = await self._history.excess(sum(map(self._index.count_in, ENDED)))
        for job_id in islice(self._index.finished_before(now), excess):
            with suppress(NotFound, Conflict, BecameUnreadable), _failure_logged(job_id):
                await self._forget(job_id, now, settled_only=True)

    async def _clear_workspaces(self) -> None:
        ended_before = self._clock.now() - self._workspace_retention
        for name in await self._runner.workspaces():
            with _failure_logged(str(name)):
                await self._clear_workspace(name, ended_before)

    async def _collect_attempts(self) -> None:
        async for names in self._runner.retained():
            missing = set(await self._index.missing([name.job_id for name in names]))
            for name in names:
                if name.job_id in missing and not await self._exists(name.job_id):
                    await self._collect_attempt(name)

    async def _collect_files(self) -> None:
        for folders in batched(await self._attachments.folders(NEW_SECONDS), BATCH):
            await self._collect_attachments(folders)

    async def delete_tokens(self) -> None:
        """Delete the git tokens of ended jobs, unless a retry may need them."""
        now = self._clock.now()
        for number, secret in enumerate(await self._store.list(Secret)):
            if number % BATCH == 0:
                await asyncio.sleep(0)  # reading blocks the event loop
            owner = secret.metadata.owner
            if owner is None or owner.kind != Job.kind():
                continue
            with suppress(NotFound, Conflict):
                job = await self._store.get(Job, owner.name)
                may_be_retried = job.phase is Phase.FAILED and job.created_at >= now - TOKEN_LIFETIME
                if _ended_before(job, now - timedelta(seconds=TOKEN_PASS_SECONDS)) and not may_be_retried:
                    await self._store.delete(Secret, secret.name, secret.metadata.resource_version)

    async def _forget(self, job_id: str, ended_before: datetime, *, settled_only: bool = False) -> None:
        """Delete a job and all its files. The job comes last, so that the next pass repeats a failed deletion."""
        job = await self._store.get(Job, job_id)
        if not _ended_before(job, ended_before) or (settled_only and not job.is_settled):
            return
        for number in range(1, job.status.attempts + 1):
            await self._runner.remove(AttemptName(job_id, number))
        await self._attachments.remove(job_id, job.spec.workspace_files)
        await self._store.delete(Job, job_id, job.metadata.resource_version)

    async def _clear_workspace(self, name: AttemptName, ended_before: datetime) -> None:
        try:
            job = await self._store.get(Job, name.job_id)
        except (NotFound, BecameUnreadable):
            return  # `clean` collects the attempt of a job that does not exist
        if not _may_be_used(name, job) or _ended_before(job, ended_before):
            await self._runner.remove(name, keep_output=True)

    async def _exists(self, job_id: str) -> bool:
        """Return whether the job exists. A miss in the index is checked against the store, since the index may lag."""
        if self._index.contains(job_id):
            return True
        try:
            await self._store.get(Job, job_id)
        except (Unreadable, BecameUnreadable):  # for example, a newer version wrote it
            return True
        except NotFound:
            return False
        return True

    async def _collect_attempt(self, name: AttemptName) -> None:
        try:
            await self._runner.kill(name)  # the job may have been deleted while it was running
            await self._runner.remove(name)
        except RetryLater as error:  # for example, its node is unreachable: the next pass tries again
            log.warning("orphaned attempt not removed", attempt=str(name), reason=str(error))
            return
        log.info("orphaned attempt removed", attempt=str(name))

    async def _collect_attachments(self, folders: Sequence[str]) -> None:
        """Remove the folders of deleted jobs, and of jobs that could not be stored."""
        used: dict[str, set[str]] = {}  # the folders of each job
        async for job in existing_jobs(self._store, [job_of(folder) for folder in folders]):
            used[job.id] = {str(PurePath(file.path).parent) for file in job.spec.workspace_files}
        for folder in folders:
            job_id = job_of(folder)
            if job_id not in used and await self._exists(job_id):
                continue  # the job has just been stored
            if folder not in used.get(job_id, ()):
                await self._attachments.remove_folder(folder)
                log.info("orphaned files removed", folder=folder)


def _may_be_used(name: AttemptName, job: Job) -> bool:
    """Return whether the latest attempt uses the workspace of this one, or a later attempt may resume in it."""
    session = job.status.session
    return name == job.attempt_name or (session is not None and name == AttemptName(job.id, session.attempt))


def _ended_before(job: Job, time: datetime) -> bool:
    return job.ended and job.status.finished_at is not None and job.status.finished_at < time


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in batches of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


@contextmanager
def _failure_logged(what: str) -> Iterator[None]:
    """Log that something cannot be deleted now, which keeps nothing else. NotFound and Conflict are raised."""
    try:
        yield
    except BecameUnreadable:
        raise
    except (RetryLater, OSError) as error:
        log.warning("cleanup postponed", of=what, reason=str(error))
