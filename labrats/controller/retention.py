"""Retention: deletes the workspaces of ended jobs, and later the jobs themselves with all their files.

Limits delete workspaces and outputs of ended jobs earlier, the oldest first.

Collects orphaned attempts and files, too: a job may be deleted with kubectl while no engine runs.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Final, TypeVar

import structlog

from labrats.files.attachments import Attachments, job_of
from labrats.index.jobs import JobIndex
from labrats.model.attempt_name import AttemptName
from labrats.model.core_resources import Secret
from labrats.model.errors import Conflict, NotFound, RetryLater
from labrats.model.job import TOKEN_LIFETIME, Job
from labrats.model.phases import Phase
from labrats.ports import Clock, Runner, Store
from labrats.settings import EngineSettings

log = structlog.get_logger()

T = TypeVar("T")

PASS_SECONDS: Final = 600.0

QUOTA_PASS_SECONDS: Final = 60.0

DISK_PASS_SECONDS: Final = 5.0
"""Time between two looks at the free space. An attempt writes up to 16 MiB a second."""

TOKEN_PASS_SECONDS: Final = 15.0
"""Time for which a token outlives its job. The next job of a chain copies the token when its parent ends."""

NEW_SECONDS: Final = 3600.0
"""Age from which files without a job are collected. The files of a new job are stored before the job itself."""

BATCH: Final = 200
"""Jobs read at once. Reading them blocks the event loop."""


class Retention:
    """Deletes what is older than its retention, in a pass every ten minutes."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        index: JobIndex,
        attachments: Attachments,
        clock: Clock,
        settings: EngineSettings,
    ) -> None:
        self._store, self._runner, self._index = store, runner, index
        self._attachments, self._clock = attachments, clock
        self._workspace_retention = timedelta(hours=settings.workspace_retention_hours)
        self._job_retention = timedelta(days=settings.job_retention_days)
        self._workspaces_gib = settings.workspaces_gib
        self._sizes: dict[AttemptName, tuple[datetime | None, int]] = {}
        self._settings = settings
        self._ended: Iterator[str] | None = None  # the ended jobs whose outputs are deleted next
        self._look_again_at: datetime | None = None
        # On a cluster Secrets are deleted with their jobs, and a controller may not list them.
        self._deletes_tokens = settings.backend == "embedded"

    async def run(self) -> None:
        """Clean up periodically, until cancelled."""
        await self._index.synced.wait()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._repeat(self.clean, PASS_SECONDS), name="clean")
            loops.create_task(self._repeat(self.free_disk, DISK_PASS_SECONDS), name="free disk")
            if self._workspaces_gib is not None:
                loops.create_task(self._repeat(self.limit_workspaces, QUOTA_PASS_SECONDS), name="limit workspaces")
            if self._deletes_tokens:
                # Wait: the next job of a chain may have to copy the token of a job that ended while no engine ran.
                await self._clock.sleep(TOKEN_PASS_SECONDS)
                loops.create_task(self._repeat(self.delete_tokens, TOKEN_PASS_SECONDS), name="delete tokens")

    async def _repeat(self, one_pass: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await one_pass()
            except (RetryLater, OSError) as error:
                log.warning("cleanup postponed", reason=str(error))
            await self._clock.sleep(seconds)

    async def clean(self) -> None:
        """Make one pass over jobs, attempts and files."""
        now = self._clock.now()
        for job_id in self._index.finished_before(now - self._job_retention):
            with suppress(NotFound, Conflict):  # it was deleted or retried meanwhile
                await self._forget(job_id, now - self._job_retention)
        for name in await self._runner.workspaces():
            await self._clear_workspace(name, now - self._workspace_retention)
        for names in batched(await self._runner.retained(), BATCH):
            missing = set(await self._index.missing([name.job_id for name in names]))
            for name in names:
                if name.job_id in missing and not await self._exists(name.job_id):
                    await self._collect_attempt(name)
        for folders in batched(await self._attachments.folders(NEW_SECONDS), BATCH):
            await self._collect_attachments(folders)

    async def limit_workspaces(self) -> None:
        """Delete workspaces of ended jobs, the oldest first, until all workspaces fit their limit."""
        if self._workspaces_gib is None:
            return
        names = await self._runner.workspaces()
        jobs = {job.id: job for job in await self._store.get_many(Job, sorted({name.job_id for name in names}))}
        sizes = {name: await self._size_of(name, jobs[name.job_id]) for name in names if name.job_id in jobs}
        self._sizes = {name: known for name, known in self._sizes.items() if name in sizes}
        excess = sum(sizes.values()) - round(self._workspaces_gib * 2**30)
        ended = [name for name in sizes if jobs[name.job_id].ended]
        for name in sorted(ended, key=lambda name: _age(jobs[name.job_id])):
            if excess <= 0:
                return
            if await self._remove_unused_workspace(name):
                excess -= sizes[name]
                log.info("workspace removed", attempt=str(name), bytes=sizes[name], reason="LABRATS_WORKSPACES_GIB")
        if excess > 0:
            log.warning("workspaces exceed their limit", excess_bytes=excess, reason="unfinished jobs use the rest")

    async def _size_of(self, name: AttemptName, job: Job) -> int:
        """Return the size of a workspace. That of an ended job is measured once."""
        ended_at, size = self._sizes.get(name, (None, 0))
        if not job.ended or ended_at != job.status.finished_at:
            size = await self._runner.workspace_bytes(name)
            self._sizes[name] = (job.status.finished_at if job.ended else None, size)
        return size

    async def _remove_unused_workspace(self, name: AttemptName) -> bool:
        """Delete a workspace unless its job was retried or deleted meanwhile. Return whether it was deleted."""
        try:
            job = await self._store.get(Job, name.job_id)
        except NotFound:
            return False
        if job.ended:
            await self._runner.remove(name, keep_output=True)
        return job.ended

    async def free_disk(self) -> None:
        """Delete outputs of ended jobs, the oldest first, while less space is free than is to be kept."""
        if self._look_again_at and self._clock.now() < self._look_again_at:
            return
        while (missing := await asyncio.to_thread(self._missing_bytes)) > 0:
            if (job_id := self._next_ended()) is None:
                self._look_again_at = self._clock.now() + timedelta(seconds=QUOTA_PASS_SECONDS)
                reason = "unfinished jobs, unpublished reports or other programs use it"
                log.warning("disk nearly full", missing_bytes=missing, reason=reason)
                return
            await self._remove_unused_outputs(job_id)

    def _next_ended(self) -> str | None:
        """Return the next ended job, the earliest first; None once after the last one. Then it starts over."""
        if self._ended is None:
            self._ended = self._index.finished_before(datetime.max.replace(tzinfo=UTC))
        remaining, self._ended = self._ended, None
        if (job_id := next(remaining, None)) is not None:
            self._ended = remaining
        return job_id

    def _missing_bytes(self) -> int:
        """Return the bytes that should be free and are not."""
        disk = shutil.disk_usage(self._settings.data_dir)
        return self._settings.kept_free_bytes(disk.total) - disk.free

    async def _remove_unused_outputs(self, job_id: str) -> None:
        """Delete the outputs of a job unless it still needs them."""
        try:
            job = await self._store.get(Job, job_id)
        except NotFound:
            return
        if not job.needs_output:
            names = [AttemptName(job_id, number) for number in range(1, job.status.attempts + 1)]
            if freed := sum([await self._runner.remove_output(name) for name in names]):
                log.info("outputs removed", job=job_id, bytes=freed, reason="LABRATS_FREE_GIB")

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

    async def _forget(self, job_id: str, ended_before: datetime) -> None:
        """Delete a job and all its files. The job comes last, so that the next pass repeats a failed deletion."""
        job = await self._store.get(Job, job_id)
        if not _ended_before(job, ended_before):
            return
        for number in range(1, job.status.attempts + 1):
            await self._runner.remove(AttemptName(job_id, number))
        await self._attachments.remove(job_id, job.spec.workspace_files)
        await self._store.delete(Job, job_id, job.metadata.resource_version)

    async def _clear_workspace(self, name: AttemptName, ended_before: datetime) -> None:
        try:
            job = await self._store.get(Job, name.job_id)
        except NotFound:
            return  # `clean` collects the whole attempt
        if not _may_be_used(name, job) or _ended_before(job, ended_before):
            await self._runner.remove(name, keep_output=True)

    async def _exists(self, job_id: str) -> bool:
        """Return whether the job exists. A miss in the index is checked against the store, since the index may lag."""
        if self._index.contains(job_id):
            return True
        try:
            await self._store.get(Job, job_id)
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
        jobs = {job.id: job for job in await self._store.get_many(Job, [job_of(folder) for folder in folders])}
        for folder in folders:
            job = jobs.get(job_of(folder))
            if job is None and await self._exists(job_of(folder)):
                continue  # the job has just been stored
            if job is None or folder not in {str(PurePath(file.path).parent) for file in job.spec.workspace_files}:
                await self._attachments.remove_folder(folder)
                log.info("orphaned files removed", folder=folder)


def _may_be_used(name: AttemptName, job: Job) -> bool:
    """Return whether the latest attempt uses the workspace of this one, or a later attempt may resume in it."""
    session = job.status.session
    return name == job.attempt_name or (session is not None and name == AttemptName(job.id, session.attempt))


def _age(job: Job) -> tuple[datetime, str]:
    return (job.status.finished_at or job.created_at, job.id)


def _ended_before(job: Job, time: datetime) -> bool:
    return job.ended and job.status.finished_at is not None and job.status.finished_at < time


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in batches of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))
