"""Deadlines of running jobs."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from labrats.model.attempt_name import AttemptName
from labrats.model.job import FailedCode, Job
from labrats.model.phases import Phase
from labrats.model.record import Resource
from labrats.ports import AttemptState
from tests.fakes.runner import MemoryRunner
from tests.unit.controller.lab import HANG, SETTINGS, STUBBORN, Lab, after, seconds_of

R = TypeVar("R", bound=Resource)
P = Phase


async def test_a_job_is_stopped_at_its_deadline(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await lab.submit([HANG], config={"timeout_ms": 60_000}))
    assert (ended.phase, ended.status.failed_code) == (P.FAILED, FailedCode.TIMEOUT)
    assert seconds_of(ended) == after(60)


async def test_a_job_that_ignores_the_stop_at_its_deadline_is_killed_after_the_grace(lab: Lab) -> None:
    async with lab.controller():
        ended = await lab.ended(await lab.submit([STUBBORN, HANG], config={"timeout_ms": 60_000}))
    assert ended.status.failed_code is FailedCode.TIMEOUT
    assert seconds_of(ended) == after(60 + SETTINGS.stop_grace_seconds)


async def test_a_deadline_holds_without_reports_from_the_runner(lab: Lab) -> None:
    lab.controller_runner = SilentRunner(lab.store, lab.machine)
    async with lab.controller():
        ended = await lab.ended(await lab.submit([STUBBORN, HANG], config={"timeout_ms": 60_000}))
    assert seconds_of(ended) == after(60 + SETTINGS.stop_grace_seconds)


class SilentRunner(MemoryRunner):
    """A runner whose watch reports nothing."""

    async def watch(self) -> AsyncIterator[AttemptName]:
        await asyncio.Event().wait()
        yield AttemptName("never", 1)


async def test_a_job_that_ends_while_its_attempt_is_looked_up_ends_after_its_deadline(lab: Lab) -> None:
    lab.controller_runner = SlowRunner(lab.store, lab.machine)
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 58_700}, {"fail": "too late"}], config={"timeout_ms": 60_000})
        ended = await lab.ended(job)
    assert ended.status.failed_code is FailedCode.TIMEOUT
    assert seconds_of(ended) >= 60


class SlowRunner(MemoryRunner):
    """A runner that needs 1.7 seconds to find an attempt, and reports the first attempt of each job each second."""

    async def watch(self) -> AsyncIterator[AttemptName]:
        while True:
            for job in await self._store.list(Job):
                yield AttemptName(job.id, 1)
            await asyncio.sleep(1)

    async def find(self, name: AttemptName) -> AttemptState:
        await asyncio.sleep(1.7)
        return await super().find(name)


@pytest.mark.parametrize("down_until", [30, 65, 300])
async def test_a_deadline_holds_across_a_restart(lab: Lab, down_until: int) -> None:
    async with lab.controller():
        job = await lab.submit([STUBBORN, HANG], config={"timeout_ms": 60_000})
        await lab.started(job)
        await lab.clock.advance(20)
    await lab.clock.advance(down_until - 20)
    async with lab.controller():
        ended = await lab.ended(job)
    assert ended.status.failed_code is FailedCode.TIMEOUT
    assert seconds_of(ended) == after(max(60 + SETTINGS.stop_grace_seconds, down_until))


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_setting_the_clock_ends_no_job_early(lab: Lab, step: float) -> None:
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 50_000}, {"result": 1}], config={"timeout_ms": 60_000})
        await lab.started(job)
        await lab.clock.advance(1)
        lab.clock.step(step)
        assert (await lab.ended(job)).phase is P.SUCCEEDED
