"""Deleted jobs, and jobs with the names of deleted ones."""

from typing import TypeVar

from labrats.model.attempt_name import AttemptName
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import Resource
from tests.unit.controller.lab import HANG, STUBBORN, Lab
from tests.unit.controller.trouble import UnreachableRunner

R = TypeVar("R", bound=Resource)
P = Phase


async def test_a_deleted_running_job_is_killed_and_holds_its_slot_until_it_has_ended(lab: Lab) -> None:
    await lab.set_slots(1)
    lab.controller_runner = runner = UnreachableRunner(lab.store, lab.machine)
    async with lab.controller():
        job, next_one = await lab.submit([STUBBORN, HANG]), await lab.submit()
        job = await lab.started(job)
        runner.unreachable = "kill"
        await lab.store.delete(Job, job.id)
        await lab.clock.advance(100)
        assert (await lab.job(next_one)).phase is P.PENDING
        runner.unreachable = ""
        assert (await lab.ended(next_one)).phase is P.SUCCEEDED
    assert job.attempt_name not in lab.machine.executors


async def test_a_deleted_waiting_job_never_starts(lab: Lab) -> None:
    await lab.set_slots(1)
    async with lab.controller():
        first, waiting = await lab.submit([{"sleepMs": 1000}]), await lab.submit()
        await lab.started(first)
        await lab.store.delete(Job, waiting.id)
        await lab.ended(first)
        await lab.ended(await lab.submit())
    assert AttemptName(waiting.id, 1) not in lab.machine.executors


async def test_a_job_with_the_id_of_a_deleted_one_waits_until_the_deleted_one_has_ended(lab: Lab) -> None:
    lab.controller_runner = runner = UnreachableRunner(lab.store, lab.machine)
    async with lab.controller():
        deleted = await lab.started(await lab.submit([STUBBORN, HANG], job_id="ir-00000001"))
        runner.unreachable = "kill"
        await lab.store.delete(Job, deleted.id)
        await lab.store.delete(Job, (await lab.submit([HANG], job_id=deleted.id)).id)
        successor = await lab.submit([{"result": "mine"}], job_id=deleted.id)
        await lab.clock.advance(100)
        assert (await lab.job(successor)).phase is P.PENDING
        runner.unreachable = ""
        ended = await lab.ended(successor)
    assert (ended.status.result, ended.status.attempts) == ("mine", 1)
