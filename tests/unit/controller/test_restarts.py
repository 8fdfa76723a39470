"""Jobs across restarts of the engine."""

from datetime import timedelta
from typing import TypeVar

from labrats.model.attempt_name import AttemptName
from labrats.model.phases import Phase
from labrats.model.record import Resource
from tests.fakes.clock import NOON
from tests.support.builders import a_job, a_spec
from tests.unit.controller.lab import HANG, SETTINGS, STUBBORN, Lab, after, seconds_of

R = TypeVar("R", bound=Resource)
P = Phase


async def test_a_running_attempt_is_adopted_after_a_restart(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 60_000}, {"result": "done"}])
        await lab.started(job)
        await lab.clock.advance(1)
    async with lab.controller():
        ended = await lab.ended(job)
    assert (ended.phase, ended.status.attempts) == (P.SUCCEEDED, 1)
    assert list(lab.machine.executors) == [AttemptName(job.id, 1)]


async def test_an_end_during_downtime_is_recorded_after_a_restart(lab: Lab) -> None:
    async with lab.controller():
        job = await lab.submit([{"sleepMs": 1_000}, {"result": "done"}])
        await lab.started(job)
        await lab.clock.advance(0.5)
    await lab.clock.advance(60)
    async with lab.controller():
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_a_recorded_attempt_that_never_started_is_started_after_a_restart(lab: Lab) -> None:
    recorded = a_job(P.RUNNING, spec=a_spec([{"result": "late"}]), deadline_at=NOON + timedelta(hours=1))
    job = await lab.store.create(recorded)
    async with lab.controller():
        ended = await lab.ended(job)
    assert (ended.phase, ended.status.attempts, ended.status.result) == (P.SUCCEEDED, 1, "late")


async def test_a_cancel_during_downtime_takes_effect_after_a_restart(lab: Lab) -> None:
    async with lab.controller():
        running = await lab.submit([STUBBORN, HANG])
        await lab.started(running)
        await lab.clock.advance(1)
    await lab.cancel(running)
    await lab.clock.advance(1)
    async with lab.controller():
        ended = await lab.ended(running)
    assert ended.phase is P.CANCELLED
    assert seconds_of(ended) == after(1 + SETTINGS.stop_grace_seconds)
