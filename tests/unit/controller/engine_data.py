"""The data of an engine, for tests of what deletes it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from labrats.controller.disk_limits import DiskLimits
from labrats.controller.history_bound import HistoryBound
from labrats.controller.retention import Retention
from labrats.files.attachments import Attachments
from labrats.index.jobs import JobIndex
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import Resource
from labrats.ports import Attempt
from labrats.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import MemoryStore
from tests.support.builders import a_job
from tests.support.waiting import eventually

R = TypeVar("R", bound=Resource)


class EngineData:
    """The store, attempts and files of an engine. Workspaces are retained for a day, jobs for 30 days."""

    def __init__(self, machine: MemoryMachine, uploads: Path) -> None:
        self.clock = FakeClock()
        self.store, self.index, self.machine = MeddledStore(self.clock), JobIndex(), machine
        self.runner = MemoryRunner(self.store, machine)
        self.attachments = Attachments(uploads)

    def retention(self, history: HistoryBound | None = None, **limits: Any) -> Retention:
        settings = EngineSettings(workspace_retention_hours=24, job_retention_days=30, **limits)
        return Retention(self.store, self.runner, self.index, self.attachments, self.clock, settings, history)

    def disk_limits(self, **limits: Any) -> DiskLimits:
        return DiskLimits(self.store, self.runner, self.index, self.clock, EngineSettings(**limits))

    async def add(self, job: Job) -> Job:
        """Create a job, start all its attempts, and wait until the index has it."""
        created = await self.store.create(job)
        for number in range(1, job.status.attempts + 1):
            attempt = Attempt(replace(created, status=replace(created.status, attempts=number)))
            await self.runner.start(attempt)
        await eventually(lambda: all(executor.has_workspace for executor in self.machine.executors.values()))
        await eventually(lambda: self.index.contains(job.id))
        return created

    async def ended(self, phase: Phase = Phase.SUCCEEDED, **fields: Any) -> Job:
        """Create a job that ends now."""
        return await self.add(a_job(phase, finished_at=self.clock.now(), **fields))

    async def exists(self, job: Job) -> bool:
        return bool(await self.store.get_many(Job, [job.id]))


class MeddledStore(MemoryStore):
    """A store that calls a hook before each read of a job."""

    async def before_reading(self, name: str) -> None:
        """Do nothing. Tests replace this hook."""

    async def get(self, kind: type[R], name: str) -> R:
        await self.before_reading(name)
        return await super().get(kind, name)


@asynccontextmanager
async def engine_data(uploads: Path) -> AsyncIterator[EngineData]:
    """Provide an engine's data, with an index that follows the store."""
    async with MemoryMachine() as machine:
        data = EngineData(machine, uploads)
        following = asyncio.create_task(data.index.follow(data.store))
        await data.index.synced.wait()
        yield data
        following.cancel()
        await asyncio.wait([following])
