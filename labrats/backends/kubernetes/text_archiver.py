"""Moves the texts of ended jobs from etcd to the data volume; see text_archive.py."""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog

from labrats.backends.kubernetes.store import KubernetesStore
from labrats.backends.kubernetes.text_archive import TextArchive, text_names
from labrats.index.jobs import JobIndex
from labrats.model.core_resources import ConfigMap
from labrats.model.errors import LabratsError, NotFound
from labrats.model.job import Job
from labrats.ports import Clock

log = structlog.get_logger()

ARCHIVED_AFTER: Final = timedelta(hours=1)
"""Time after the end of a job. Until then, a chain or a retry most likely needs the texts."""

PASS_SECONDS: Final = 600.0


class TextArchiver:
    """Moves the texts of ended jobs to the archive, and removes those of deleted jobs. Only the leader uses it."""

    def __init__(self, store: KubernetesStore, archive: TextArchive, index: JobIndex, clock: Clock) -> None:
        self._store, self._archive, self._index, self._clock = store, archive, index, clock
        self._done: dict[str, datetime] = {}
        """The end of each job whose texts are archived. A retried job ends again, later."""

    async def make_pass(self) -> None:
        """Archive the texts of all jobs that ended an hour ago, and remove what deleted jobs have left."""
        await self._index.synced.wait()
        for job_id in self._index.finished_before(self._clock.now() - ARCHIVED_AFTER):
            try:
                await self._archive_texts_of(job_id)
            except (LabratsError, OSError) as error:
                log.warning("texts not archived", job=job_id, reason=str(error))
        for job_id in await self._index.missing(await asyncio.to_thread(self._archive.jobs)):
            if not await self._store.get_many(Job, [job_id]):
                await asyncio.to_thread(self._archive.remove, job_id)

    async def _archive_texts_of(self, job_id: str) -> None:
        for job in await self._store.get_many(Job, [job_id]):
            ended_at = job.status.finished_at
            if not job.ended or ended_at is None or self._done.get(job_id) == ended_at:
                return
            for name in text_names(job):
                await self._archive_text(job, name)
            self._done[job_id] = ended_at

    async def _archive_text(self, job: Job, name: str) -> None:
        """Move one ConfigMap. One that belongs to somebody else stays: a job applied with kubectl may name any."""
        try:
            stored = await self._store.get_live(ConfigMap, name)
        except NotFound:
            return
        owner = stored.metadata.owner
        if owner is None or owner.uid != job.metadata.uid:
            return
        if await asyncio.to_thread(self._archive.write, stored):
            with suppress(NotFound):
                await self._store.delete(ConfigMap, name, stored.metadata.resource_version)
            if not (await self._store.get(Job, job.id)).ended:  # it was retried meanwhile
                await self._store.restore_texts(job)
