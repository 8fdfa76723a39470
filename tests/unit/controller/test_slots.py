"""Slots of models, and the order in which jobs get them."""

import random
from typing import TypeVar

import pytest

from labrats.model.ai_model import AiModel
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.model.record import Resource
from tests.unit.controller.lab import HANG, SETTINGS, Lab, seconds_of
from tests.unit.controller.trouble import FaultyStore, Trouble, TroubledStore

R = TypeVar("R", bound=Resource)
P = Phase


@pytest.mark.parametrize("slots", [1, 3])
async def test_as_many_jobs_run_as_the_model_has_slots(lab: Lab, slots: int) -> None:
    await lab.set_slots(slots)
    async with lab.controller():
        for _ in range(7):
            await lab.submit([{"sleepMs": 1000}])
        phases = [P.PENDING]
        running = set()
        while P.PENDING in phases or P.RUNNING in phases:
            await lab.clock.advance(0.1)
            phases = [job.phase for job in await lab.store.list(Job)]
            running.add(phases.count(P.RUNNING))
    assert max(running) == slots


async def test_a_model_without_an_ai_model_has_the_default_slots(lab: Lab) -> None:
    async with lab.controller():
        jobs = [await lab.submit([HANG]) for _ in range(5)]
        await lab.clock.advance(10)
        phases = [(await lab.job(job)).phase for job in jobs]
    assert phases.count(P.RUNNING) == SETTINGS.default_model_slots


async def test_jobs_start_by_priority_and_age(lab: Lab) -> None:
    await lab.set_slots(1)
    jobs = {}
    for name, priority in (("third", 2), ("first", 1), ("fourth", 2), ("last", 3), ("second", 1)):
        jobs[name] = await lab.submit([{"sleepMs": 1000}], priority=priority)
        await lab.clock.advance(1)
    async with lab.controller():
        ended = {name: await lab.ended(job) for name, job in jobs.items()}
    order = sorted(ended, key=lambda name: seconds_of(ended[name]))
    assert order == ["first", "second", "third", "fourth", "last"]


async def test_jobs_of_a_full_model_delay_no_other_model(lab: Lab) -> None:
    await lab.set_slots(1, model="busy")
    async with lab.controller():
        blocking = await lab.submit([HANG], config={"model": "busy"})
        blocked = await lab.submit(priority=0, config={"model": "busy"})
        free = await lab.submit(priority=9, config={"model": "free"})
        assert (await lab.ended(free)).phase is P.SUCCEEDED
        assert (await lab.job(blocking)).phase is P.RUNNING
        assert (await lab.job(blocked)).phase is P.PENDING


async def test_more_slots_start_more_jobs_at_once(lab: Lab) -> None:
    await lab.set_slots(0)
    async with lab.controller():
        jobs = [await lab.submit([HANG]) for _ in range(3)]
        await lab.clock.advance(60)
        assert [(await lab.job(job)).phase for job in jobs] == [P.PENDING] * 3
        await lab.set_slots(2)
        await lab.clock.advance(0)
        await lab.clock.advance(1)
        assert [(await lab.job(job)).phase for job in jobs].count(P.RUNNING) == 2


async def test_fewer_slots_end_nothing_and_start_nothing(lab: Lab) -> None:
    await lab.set_slots(2)
    async with lab.controller():
        first, second, third = [await lab.submit([{"sleepMs": n * 1000}]) for n in (1, 5, 1)]
        await lab.started(second)
        await lab.set_slots(1)
        await lab.ended(first)
        await lab.clock.advance(1)
        assert (await lab.job(third)).phase is P.PENDING
        await lab.ended(second)
        assert (await lab.ended(third)).phase is P.SUCCEEDED


async def test_a_job_that_has_a_slot_does_not_start_once_its_model_has_none(lab: Lab) -> None:
    lab.controller_store = store = FaultyStore(lab.store)
    async with lab.controller():
        store.faulty = "update"
        job = await lab.submit()
        await lab.clock.advance(5)
        await lab.set_slots(0)
        await lab.clock.advance(5)
        store.faulty = ""
        await lab.clock.advance(60)
        assert (await lab.job(job)).phase is P.PENDING
        await lab.set_slots(1)
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_a_deleted_ai_model_leaves_the_default_slots(lab: Lab) -> None:
    model = await lab.set_slots(0)
    async with lab.controller():
        job = await lab.submit()
        await lab.clock.advance(60)
        await lab.store.delete(AiModel, model.name)
        assert (await lab.ended(job)).phase is P.SUCCEEDED


async def test_no_slot_is_allocated_before_the_models_are_known(lab: Lab) -> None:
    await lab.set_slots(0)
    job = await lab.submit()
    lab.controller_store = store = FaultyStore(lab.store)
    store.held_back = AiModel
    async with lab.controller():
        await lab.clock.advance(60)
        store.held_back = None
        await lab.clock.advance(60)
        assert (await lab.job(job)).phase is P.PENDING


async def test_no_slot_is_allocated_before_all_running_jobs_are_known(lab: Lab) -> None:
    """The watch reports jobs by name: first the waiting job, then the running one, which holds the only slot."""
    await lab.set_slots(1)
    async with lab.controller():
        holder = await lab.submit([{"sleepMs": 60_000}], job_id="ir-ffffffff")
        await lab.started(holder)
    waiting = await lab.submit(job_id="ir-00000000")
    lab.controller_store = TroubledStore(lab.store, Trouble(random.Random(1), failure_rate=0, watch_seconds=1))
    async with lab.controller():
        await lab.clock.advance(30)
        assert (await lab.job(waiting)).phase is P.PENDING
        await lab.ended(holder)
        await lab.ended(waiting)
