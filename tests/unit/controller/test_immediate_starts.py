"""Jobs that start with the write that stores them (labrats/intake/immediate_starts.py)."""

import asyncio

import pytest

from labrats.intake.immediate_starts import ImmediateStarts
from labrats.model.errors import RetryLater
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.ports import Changed
from tests.support.builders import a_job
from tests.unit.controller.lab import HANG, Lab


@pytest.fixture
async def lab(lab: Lab) -> Lab:
    """A lab with two slots, whose submitted jobs start immediately if they can."""
    lab.immediate_starts = ImmediateStarts()
    return lab


async def test_a_job_with_a_free_slot_is_written_twice_in_its_life(lab: Lab) -> None:
    phases: list[Phase] = []
    async with lab.controller(), asyncio.TaskGroup() as tasks:
        await until_synced()
        watching = tasks.create_task(observe_phases(lab, phases))
        submitted = await lab.submit([{"result": 42}])
        ended = await lab.ended(submitted)
        watching.cancel()
    assert phases == [Phase.RUNNING, Phase.SUCCEEDED]
    assert ended.status.attempts == 1
    assert (ended.status.slot, ended.status.result) == ("mock/mock", 42)
    assert ended.status.started_at == ended.created_at
    assert ended.status.deadline_at


async def test_a_job_without_a_free_slot_starts_when_another_ends(lab: Lab) -> None:
    async with lab.controller():
        await until_synced()
        first, second, third = [await lab.submit([{"sleepMs": 1000}, {"result": 1}]) for _ in range(3)]
        assert [job.phase for job in (first, second, third)] == [Phase.RUNNING, Phase.RUNNING, Phase.PENDING]
        third = await lab.ended(third)
    assert third.status.started_at
    assert third.status.started_at > third.created_at


async def test_a_job_submitted_while_no_controller_runs_waits_for_one(lab: Lab) -> None:
    async with lab.controller():
        await until_synced()
    job = await lab.submit([{"result": 1}])
    assert job.phase is Phase.PENDING
    async with lab.controller():
        assert (await lab.ended(job)).phase is Phase.SUCCEEDED


async def test_a_job_stored_as_started_by_an_engine_that_died_is_run_by_the_next(lab: Lab) -> None:
    async with lab.controller():
        await until_synced()
        job = await lab.submit([{"result": 1}])
        assert job.phase is Phase.RUNNING
    assert not lab.machine.executors
    async with lab.controller():
        assert (await lab.ended(job)).status.attempts == 1


async def test_a_job_that_could_not_be_stored_leaves_its_slot_to_others(lab: Lab) -> None:
    assert lab.immediate_starts
    async with lab.controller():
        await until_synced()
        for _ in range(3):  # more than there are slots
            with pytest.raises(RetryLater), lab.immediate_starts.creation(a_job()):
                raise RetryLater("the disk is full")
        running = [await lab.submit([HANG]) for _ in range(2)]
        assert [job.phase for job in running] == [Phase.RUNNING, Phase.RUNNING]


async def test_a_job_that_had_to_wait_and_could_not_be_stored_delays_no_other(lab: Lab) -> None:
    assert lab.immediate_starts
    async with lab.controller():
        await until_synced()
        running = [await lab.submit([{"sleepMs": 1000}, {"result": 1}]) for _ in range(2)]
        with pytest.raises(RetryLater), lab.immediate_starts.creation(a_job()):
            raise RetryLater("the disk is full")
        for job in running:
            await lab.ended(job)
        assert (await lab.submit([{"result": 1}])).phase is Phase.RUNNING


async def test_a_job_that_is_deleted_at_once_leaves_its_slot_to_others(lab: Lab) -> None:
    async with lab.controller():
        await until_synced()
        for _ in range(3):
            job = await lab.submit([HANG])
            await lab.store.delete(Job, job.id)
        assert (await lab.ended(await lab.submit([{"result": 1}]))).phase is Phase.SUCCEEDED


async def until_synced() -> None:
    """Wait until the controller has read all jobs."""
    await asyncio.sleep(1)


async def observe_phases(lab: Lab, phases: list[Phase]) -> None:
    async for change in lab.store.watch(Job):
        match change:
            case Changed(job):
                phases.append(job.phase)
