"""A controller on fakes, and the actions of its users."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.index.catalog import Catalog
from labrats.intake.immediate_starts import ImmediateStarts
from labrats.model.ai_model import AiModel
from labrats.model.errors import NotFound, RetryLater
from labrats.model.job import Job, after_cancel_request, after_retry_request, new_job_ids
from labrats.model.phases import Phase
from labrats.model.record import Metadata
from labrats.ports import Changed, Runner, Store, compare_and_set
from labrats.settings import EngineSettings
from tests.fakes.clock import NOON, FakeClock
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import MemoryStore
from tests.support.builders import a_spec, an_ai_model
from tests.support.controllers import a_controller

PATIENCE_SECONDS = 24 * 3600

HANG = {"hang": True}
STUBBORN = {"ignoreSignals": True}
"""Steps of the mock provider's script."""

SETTINGS = EngineSettings(default_model_slots=2, stop_grace_seconds=10, retry_backoff_seconds=1)


class Lab:
    """A store and a machine, which outlive controllers.

    controller_store, controller_runner: passed to controllers. A test may replace them with faulty ones.
    immediate_starts: of submitted jobs, as on one machine. None if they wait for the controller, as on a cluster.
    """

    def __init__(self, clock: FakeClock, machine: MemoryMachine, settings: EngineSettings = SETTINGS) -> None:
        self.clock, self.machine, self.settings = clock, machine, settings
        self.store = MemoryStore(clock)
        self.runner = MemoryRunner(self.store, machine)
        self.controller_store: Store = self.store
        self.controller_runner: Runner = self.runner
        self.immediate_starts: ImmediateStarts | None = None

    @asynccontextmanager
    async def controller(self) -> AsyncIterator[None]:
        """Run a controller during the block, and then drop it as in a crash. Raises its error if it fails."""
        catalog = Catalog()
        controller = a_controller(
            self.controller_store,
            self.controller_runner,
            catalog,
            self.clock,
            self.settings,
            immediate_starts=self.immediate_starts,
        )
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(catalog.follow(self.store), name="catalog"),
                tasks.create_task(controller.run(), name="controller"),
            ]
            yield
            for task in running:
                task.cancel()

    async def submit(self, steps: Sequence[Any] | None = None, *, job_id: str | None = None, **fields: Any) -> Job:
        """Create a job with this script. fields: of JobSpec, and `config`."""
        job = Job(metadata=Metadata(name=job_id or new_job_ids(1)[0]), spec=a_spec(steps, **fields))
        with (self.immediate_starts or ImmediateStarts()).creation(job) as new:
            return await self.store.create(new)

    async def fail_to_submit(self, **fields: Any) -> None:
        """Submit a job while the storage is full: nothing is stored."""
        job = Job(metadata=Metadata(name=new_job_ids(1)[0]), spec=a_spec(**fields))
        with suppress(RetryLater), (self.immediate_starts or ImmediateStarts()).creation(job):
            await asyncio.sleep(1)
            raise RetryLater("the disk is full")

    async def job(self, job: Job) -> Job:
        """Read the job."""
        return await self.store.get(Job, job.id)

    async def reaches(self, job: Job, *phases: Phase) -> Job:
        """Wait until the job is in one of these phases, and return it. Raises TimeoutError after a virtual day."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for change in self.store.watch(Job):
                if isinstance(change, Changed) and change.resource.id == job.id and change.resource.phase in phases:
                    return change.resource
        raise AssertionError("the watch ended")

    async def ended(self, job: Job) -> Job:
        return await self.reaches(job, Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)

    async def started(self, job: Job) -> Job:
        return await self.reaches(job, Phase.RUNNING)

    async def cancel(self, job: Job) -> None:
        """Cancel the job as the API does. Raises IllegalMove."""
        await compare_and_set(
            self.store, lambda: self.job(job), lambda found: after_cancel_request(found, self.clock.now())
        )

    async def retry(self, job: Job) -> None:
        """Retry the job as the API does. Raises IllegalMove."""
        await compare_and_set(
            self.store, lambda: self.job(job), lambda found: after_retry_request(found, self.clock.now())
        )

    async def set_slots(self, slots: int, *, model: str = "mock") -> AiModel:
        """Create the AiModel for `model`, or change its slots."""
        ai_model = an_ai_model(model, model=model, slots=slots)
        try:
            known = await self.store.get(AiModel, ai_model.name)
        except NotFound:
            return await self.store.create(ai_model)
        return await self.store.update(replace(known, spec=ai_model.spec))


def after(seconds: float) -> object:
    """Match a number of seconds, to the millisecond."""
    return pytest.approx(seconds, abs=0.001)


def seconds_of(job: Job) -> float:
    """Return the end of the job, in seconds after noon."""
    assert job.status.finished_at
    return (job.status.finished_at - NOON).total_seconds()
