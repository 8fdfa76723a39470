"""Forgets what has been kept long enough: workspaces of ended jobs, then the jobs themselves with all they left."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog

from labrats.attachments import Attachments
from labrats.cache import JobCache
from labrats.model.errors import Conflict, NotFound, RetryLater
from labrats.model.job import Job
from labrats.ports import Clock, Runner, Store
from labrats.settings import EngineSettings

log = structlog.get_logger()

PASS_SECONDS: Final = 600.0


class Retention:
    """Passes over what is kept every ten minutes."""

    def __init__(
        self,
        store: Store,
        runner: Runner,
        cache: JobCache,
        attachments: Attachments,
        clock: Clock,
        settings: EngineSettings,
    ) -> None:
        self._store, self._runner, self._cache = store, runner, cache
        self._attachments, self._clock = attachments, clock
        self._workspaces_kept = timedelta(hours=settings.workspace_retention_hours)
        self._jobs_kept = timedelta(days=settings.job_retention_days)

    async def run(self) -> None:
        """Until cancelled."""
        await self._cache.synced.wait()
        while True:
            try:
                await self.clean()
            except RetryLater as error:
                log.warning("cleaning up will go on later", reason=str(error))
            await self._clock.sleep(PASS_SECONDS)

    async def clean(self) -> None:
        """One pass."""
        now = self._clock.now()
        for job_id in self._cache.finished_before(now - self._jobs_kept):
            with suppress(NotFound, Conflict):  # somebody deleted or retried it meanwhile
                await self._forget(job_id, now - self._jobs_kept)
        for name in await self._runner.workspaces():
            await self._clear_workspace(name, now - self._workspaces_kept)

    async def _forget(self, job_id: str, ended_before: datetime) -> None:
        """Delete the job last: what fails before is found again by the next pass."""
        job = await self._store.get(Job, job_id)
        if not _ended_before(job, ended_before):
            return
        for number in range(1, job.status.attempts + 1):
            await self._runner.remove(f"{job_id}-{number}")
        await self._attachments.remove(job.spec.workspace_files)
        await self._store.delete(Job, job_id, job.metadata.resource_version)

    async def _clear_workspace(self, name: str, ended_before: datetime) -> None:
        try:
            job = await self._store.get(Job, name.rpartition("-")[0])
        except NotFound:
            await self._runner.kill(name)  # whoever deleted the job may not have waited for its end
            await self._runner.remove(name)
            return
        if not _may_be_used(name, job) or _ended_before(job, ended_before):
            await self._runner.remove(name, keep_output=True)


def _may_be_used(name: str, job: Job) -> bool:
    """Whether the latest attempt of `job` works in the workspace of this one, or another may go on in it."""
    session = job.status.session
    return name == job.attempt_name or (session is not None and name == f"{job.id}-{session.attempt}")


def _ended_before(job: Job, time: datetime) -> bool:
    return job.ended and job.status.finished_at is not None and job.status.finished_at < time
