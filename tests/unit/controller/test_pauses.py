"""Pauses of a model after a rate limit or an overload."""

import asyncio
from datetime import timedelta
from typing import TypeVar

from labrats.model.job import FailedCode, Job
from labrats.model.phases import Phase
from labrats.model.record import Resource
from labrats.ports import Gone
from tests.fakes.clock import NOON
from tests.support.builders import an_error
from tests.unit.controller.lab import HANG, Lab, after, seconds_of

R = TypeVar("R", bound=Resource)
P = Phase


def limited(seconds: float | None = None) -> Gone:
    """Return the end of an attempt at a rate limit, whose provider asks for a pause of this length."""
    return Gone(an_error(FailedCode.RATE_LIMITED, "slow down", retry_after_seconds=seconds))


async def refused(lab: Lab, job: Job, seconds: float | None = None) -> Job:
    """End the running attempt of the job with a rate limit, and return the requeued job."""
    await end_of_running(lab, job, limited(seconds))
    return await lab.reaches(job, P.PENDING)


async def end_of_running(lab: Lab, job: Job, gone: Gone) -> None:
    """End the running attempt of the job."""
    running = await lab.started(job)
    while running.attempt_name not in lab.machine.executors:
        await asyncio.sleep(0)
    lab.machine.executors[running.attempt_name].end(gone)


async def test_a_rate_limit_pauses_the_model_and_no_other(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        limited_job = await lab.submit([{"onAttempt": 1, "steps": [HANG]}])
        waiting, elsewhere = await lab.submit(), await lab.submit(config={"model": "other"})
        requeued = await refused(lab, limited_job, 60)
        ends = [seconds_of(await lab.ended(job)) for job in (elsewhere, limited_job, waiting)]
    assert requeued.paused_until == NOON + timedelta(seconds=60)
    assert ends == [after(0), after(60), after(60)]
    ended = await lab.job(limited_job)
    assert (ended.phase, ended.status.attempts, ended.status.failed_code) == (P.SUCCEEDED, 2, None)


async def test_a_rate_limit_from_an_image_of_the_caller_delays_that_job_only(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        steps = [{"onAttempt": 1, "steps": [HANG]}]
        limited_job = await lab.submit(steps, config={"executor_image": "example/executor:1"})
        waiting = await lab.submit()
        requeued = await refused(lab, limited_job, 60)
        ends = [seconds_of(await lab.ended(job)) for job in (waiting, limited_job)]
    assert requeued.paused_until is None
    assert ends == [after(0), after(60)]


async def test_a_pause_of_a_model_stops_no_running_job(lab: Lab) -> None:
    async with lab.controller():
        running = await lab.submit([{"sleepMs": 5_000}])
        await refused(lab, await lab.submit([{"onAttempt": 1, "steps": [HANG]}]), 60)
        assert seconds_of(await lab.ended(running)) == after(5)


async def test_a_pause_of_the_model_holds_across_a_restart(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        await refused(lab, await lab.submit([{"onAttempt": 1, "steps": [HANG]}]), 60)
    await lab.clock.advance(10)
    waiting = await lab.submit(priority=1)
    async with lab.controller():
        assert seconds_of(await lab.ended(waiting)) == after(60)


async def test_a_pause_of_the_model_outlasts_the_job_that_caused_it(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        limited_job = await lab.submit([HANG])
        await refused(lab, limited_job, 60)
        await lab.cancel(limited_job)
        assert seconds_of(await lab.ended(await lab.submit())) == after(60)


async def test_a_job_is_requeued_up_to_its_deadline(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([HANG], config={"timeout_ms": 100_000})
        await refused(lab, job)
        await lab.clock.advance(30)
        requeued = await refused(lab, job)
        await lab.clock.advance(60)
        await end_of_running(lab, job, limited())
        ended = await lab.ended(job)
    assert requeued.status.pauses == 2
    assert (ended.phase, ended.status.failed_code) == (P.FAILED, FailedCode.RATE_LIMITED)
    assert (seconds_of(ended), ended.status.attempts) == (after(90), 3)


async def test_a_requeued_job_fails_at_its_deadline(lab: Lab) -> None:
    """The pause is over, but another job holds the slot."""
    await lab.set_slots(1)
    async with lab.controller():
        job = await lab.submit([HANG], config={"timeout_ms": 100_000})
        await refused(lab, job, 60)
        blocking = await lab.submit([HANG], priority=1)
        await lab.started(blocking)
        assert seconds_of(await lab.ended(job)) == after(100)
