"""Cancelled jobs, from the request to their end."""

import random
from typing import TypeVar

import pytest

from labrats.model.attempt_name import AttemptName
from labrats.model.phases import Phase
from labrats.model.record import Resource
from tests.unit.controller.lab import HANG, SETTINGS, STUBBORN, Lab, after, seconds_of
from tests.unit.controller.trouble import Trouble, TroubledRunner, TroubledStore

R = TypeVar("R", bound=Resource)
P = Phase


async def test_a_cancelled_waiting_job_never_starts(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        first, second, third = [await lab.submit([{"sleepMs": 1000}]) for _ in range(3)]
        await lab.started(first)
        await lab.cancel(second)
        await lab.ended(third)
    assert AttemptName(second.id, 1) not in lab.machine.executors
    assert (await lab.job(second)).phase is P.CANCELLED


async def test_a_cancelled_running_job_holds_its_slot_until_its_attempt_has_ended(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        job, next_one = await lab.submit([STUBBORN, HANG]), await lab.submit()
        await lab.started(job)
        await lab.clock.advance(3)
        await lab.cancel(job)
        await lab.clock.advance(SETTINGS.stop_grace_seconds - 1)
        assert (await lab.job(job)).phase is P.RUNNING
        assert (await lab.job(next_one)).phase is P.PENDING
        ended = await lab.ended(job)
        await lab.ended(next_one)
    assert (ended.phase, ended.status.failed_code) == (P.CANCELLED, None)
    assert seconds_of(ended) == after(3 + SETTINGS.stop_grace_seconds)


async def test_a_cancelled_running_job_ends_at_once_if_it_handles_the_stop(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([HANG])
        await lab.started(job)
        await lab.clock.advance(3)
        await lab.cancel(job)
        assert seconds_of(await lab.ended(job)) == after(3)


@pytest.mark.parametrize("milliseconds", range(0, 40, 3))
async def test_a_cancel_at_any_moment_leaves_one_outcome(lab: Lab, milliseconds: int) -> None:
    trouble = Trouble(random.Random(milliseconds), failure_rate=0, call_seconds=0.005, watch_seconds=0.005)
    lab.controller_store = TroubledStore(lab.store, trouble)
    lab.controller_runner = TroubledRunner(lab.runner, trouble)
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 5}])
        await lab.clock.advance(milliseconds / 1000)
        before = await lab.job(job)
        if not before.ended:
            await lab.cancel(job)
        ended = await lab.ended(job)
        await lab.clock.advance(3600)
    assert ended.phase is (before.phase if before.ended else P.CANCELLED)
    assert await lab.job(job) == ended
