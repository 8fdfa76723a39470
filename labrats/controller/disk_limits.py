"""Limits of the disk: deletes workspaces and outputs of ended jobs, the oldest first, when they take too much space.

retention.py deletes them by their age.
"""

import asyncio
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from labrats.controller.cleanup_passes import repeat
from labrats.index.jobs import JobIndex
from labrats.intake.stored_jobs import existing_jobs
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import BecameUnreadable, NotFound, RetryLater
from labrats.model.job import Job
from labrats.ports import Clock, Runner, Store
from labrats.settings import EngineSettings

log = structlog.get_logger()

WORKSPACES_PASS_SECONDS: Final = 60.0

DISK_PASS_SECONDS: Final = 5.0
"""Time between two looks at the free space. An attempt writes up to 16 MiB a second."""

FULL_DISK_SECONDS: Final = 60.0
"""Time until all ended jobs are looked at again, after none of them had an output to delete."""

LARGE_BYTES: Final = 64 * 1024 * 1024
"""Size of a workspace that is worth deleting for space. A later attempt is slower without it."""


class DiskLimits:
    """Keeps all workspaces within `LABRATS_WORKSPACES_GIB`, and `LABRATS_FREE_GIB` of the disk free."""

    def __init__(self, store: Store, runner: Runner, index: JobIndex, clock: Clock, settings: EngineSettings) -> None:
        self._store, self._runner, self._index = store, runner, index
        self._clock, self._settings = clock, settings
        self._sizes: dict[AttemptName, tuple[datetime | None, int]] = {}
        self._unbundled: set[str] = set()  # jobs whose agent's commits are in no bundle
        self._ended: Iterator[str] | None = None  # the ended jobs whose outputs are deleted next
        self._look_again_at: datetime | None = None
        self._was_short = False

    async def run(self) -> None:
        """Delete what exceeds the limits, until cancelled."""
        await self._index.synced.wait()
        async with asyncio.TaskGroup() as loops:
            loops.create_task(repeat(self.free_disk, DISK_PASS_SECONDS, self._clock), name="free disk")
            workspaces = repeat(self.limit_workspaces, WORKSPACES_PASS_SECONDS, self._clock)
            loops.create_task(workspaces, name="limit workspaces")

    async def limit_workspaces(self) -> None:
        """Delete workspaces of ended jobs, the oldest first, until all workspaces fit their limit.

        Those with commits of the agent that are in no bundle are the last.
        """
        if (limit_gib := self._settings.workspaces_gib) is None:
            return
        ends, sizes = await self._measured_workspaces(also_unfinished=True)
        excess = sum(sizes.values()) - round(limit_gib * 2**30)
        ended = [(end, name) for name in sizes if (end := ends[name.job_id])]
        for _, name in sorted(ended, key=lambda each: (each[1].job_id in self._unbundled, each[0], each[1].job_id)):
            if excess <= 0:
                return
            if await self._remove_unused_workspace(name):
                excess -= sizes[name]
                log.info("workspace removed", attempt=str(name), bytes=sizes[name], reason="LABRATS_WORKSPACES_GIB")
        if excess > 0:
            log.warning("workspaces exceed their limit", excess_bytes=excess, reason="unfinished jobs use the rest")

    async def _measured_workspaces(
        self, *, also_unfinished: bool
    ) -> tuple[dict[str, datetime | None], dict[AttemptName, int]]:
        """Return the end of each job that has a workspace, None if it is unfinished, and the bytes of each workspace.

        also_unfinished: measure also the workspaces of unfinished jobs, which takes long, as they change all the time.
        """
        names, ends, unbundled = await self._runner.workspaces(), dict[str, datetime | None](), set[str]()
        async for job in existing_jobs(self._store, sorted({name.job_id for name in names})):
            ends[job.id] = (job.status.finished_at or job.created_at) if job.ended else None
            if (outputs := job.status.outputs) and outputs.commit and outputs.bundle_bytes is None:
                unbundled.add(job.id)
        self._unbundled = unbundled
        wanted = {job_id for job_id, end in ends.items() if also_unfinished or end}
        sizes = {name: await self._size_of(name, ends[name.job_id]) for name in names if name.job_id in wanted}
        self._sizes = {name: known for name, known in self._sizes.items() if name in sizes}
        return ends, sizes

    async def _size_of(self, name: AttemptName, end: datetime | None) -> int:
        """Return the size of a workspace. That of an ended job is measured once. end: of the job."""
        known_end, size = self._sizes.get(name, (None, 0))
        if end is None or known_end != end:
            size = await self._runner.workspace_bytes(name)
            self._sizes[name] = (end, size)
        return size

    async def _remove_unused_workspace(self, name: AttemptName) -> bool:
        """Delete a workspace unless its job was retried or deleted meanwhile. Return whether it was deleted."""
        try:
            job = await self._store.get(Job, name.job_id)
        except (NotFound, BecameUnreadable):
            return False
        if not job.ended:
            return False
        try:
            await self._runner.remove(name, keep_output=True)
        except (RetryLater, OSError) as error:  # it must keep no other
            log.warning("workspace not removed", attempt=str(name), reason=str(error))
            return False
        return True

    async def _remove_output(self, name: AttemptName) -> int:
        """Delete the output of an attempt. Return the bytes that became free: none if it cannot be deleted now."""
        try:
            return await self._runner.remove_output(name)
        except (RetryLater, OSError) as error:
            log.warning("outputs not removed", attempt=str(name), reason=str(error))
            return 0

    async def free_disk(self) -> None:
        """Delete what ended jobs have left while less space is free than is to be kept.

        Workspaces are deleted first, the largest first: a single agent may have filled the disk. Outputs are deleted in
        the next pass, to free space: those of the earlier attempts of unfinished jobs, and then the oldest ones. Until
        then, executors end the attempts that fill the disk.
        """
        if self._look_again_at and self._clock.now() < self._look_again_at:
            return
        was_short = self._was_short
        self._was_short = await self._is_short_without_large_workspaces()
        if was_short and self._was_short and (await asyncio.to_thread(self._missing_bytes)) > 0:
            await self._remove_outputs_of_earlier_attempts()
        while was_short and (missing := await asyncio.to_thread(self._missing_bytes)):
            if (job_id := self._next_ended()) is None:
                self._look_again_at = self._clock.now() + timedelta(seconds=FULL_DISK_SECONDS)
                reason = "unfinished jobs, unpublished reports or other programs use it"
                log.warning("disk nearly full", missing_bytes=missing, reason=reason)
                return
            await self._remove_unused_outputs(job_id)

    async def _is_short_without_large_workspaces(self) -> bool:
        """Delete workspaces of ended jobs while too little space is free. Return whether that is still so."""
        if not await asyncio.to_thread(self._missing_bytes):
            return False
        _, sizes = await self._measured_workspaces(also_unfinished=False)
        large = [name for name, size in sizes.items() if size >= LARGE_BYTES]
        for name in sorted(large, key=lambda name: (name.job_id in self._unbundled, -sizes[name])):
            if await self._remove_unused_workspace(name):
                log.info("workspace removed", attempt=str(name), bytes=sizes[name], reason="LABRATS_FREE_GIB")
            if not await asyncio.to_thread(self._missing_bytes):
                return False
        return True

    async def _remove_outputs_of_earlier_attempts(self) -> None:
        """Delete the outputs of attempts that a later one has replaced, unless that resumes their session.

        A single unfinished job can have a hundred of them.
        """
        async for names in self._runner.retained():
            retried = sorted({name.job_id for name in names if name.number > 1})
            async for job in existing_jobs(self._store, retried):
                resumed = job.status.session.attempt if job.status.session else None
                for number in range(1, 1 if job.ended else job.status.attempts):
                    if not await asyncio.to_thread(self._missing_bytes):
                        return
                    if number != resumed and (freed := await self._remove_output(AttemptName(job.id, number))):
                        log.info("outputs removed", job=job.id, attempt=number, bytes=freed, reason="LABRATS_FREE_GIB")

    def _next_ended(self) -> str | None:
        """Return the next ended job, the earliest first; None once after the last one. Then it starts over."""
        if self._ended is None:
            self._ended = self._index.finished_before(datetime.max.replace(tzinfo=UTC))
        remaining, self._ended = self._ended, None
        if (job_id := next(remaining, None)) is not None:
            self._ended = remaining
        return job_id

    def _missing_bytes(self) -> int:
        """Return how much less space is free than is to be kept."""
        disk = shutil.disk_usage(self._settings.data_dir)
        return max(self._settings.kept_free_bytes(disk.total) - disk.free, 0)

    async def _remove_unused_outputs(self, job_id: str) -> None:
        """Delete the outputs of a job unless it still needs them."""
        try:
            job = await self._store.get(Job, job_id)
        except (NotFound, BecameUnreadable):
            return
        if not job.needs_output:
            names = [AttemptName(job_id, number) for number in range(1, job.status.attempts + 1)]
            if freed := sum([await self._remove_output(name) for name in names]):
                log.info("outputs removed", job=job_id, bytes=freed, reason="LABRATS_FREE_GIB")
