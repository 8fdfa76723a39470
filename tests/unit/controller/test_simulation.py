"""Simulated lives of an engine in virtual time, each from a seed: R1, R4, R6, R8, R9, R10, R11, R12 and R14."""

import asyncio
import os
import random
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from labrats.intake.immediate_starts import ImmediateStarts
from labrats.model.ai_model import AiModel
from labrats.model.errors import Conflict, IllegalMove, NotFound
from labrats.model.job import Job
from labrats.model.phases import Phase
from labrats.ports import Changed
from labrats.settings import EngineSettings
from tests.fakes.clock import FakeClock
from tests.fakes.runner import MemoryMachine
from tests.support.builders import an_ai_model
from tests.support.random_seed import SEED
from tests.unit.controller.history import History, Run, violations
from tests.unit.controller.lab import Lab
from tests.unit.controller.trouble import Trouble, TroubledRunner, TroubledStore

SEEDS = int(os.environ.get("LABRATS_SIMULATIONS", "100"))

LAG = timedelta(seconds=40)
"""Longer than the delay by faults and two crashes in a row, and shorter than the waits of jobs, which take minutes."""

MODELS = ("small", "large")
SLOTS = EngineSettings(default_model_slots=1, stop_grace_seconds=3, retry_backoff_seconds=1)


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
async def test_an_engine_with_faults_and_crashes_keeps_every_promise(seed: int) -> None:
    chance = random.Random(seed)
    clock = FakeClock()
    async with MemoryMachine(clock) as machine:
        lab = Lab(clock, machine, SLOTS)
        lab.immediate_starts = chance.choice([None, ImmediateStarts()])
        history = await live(lab, chance)
    assert len(history.by_job()) >= 10
    broken = violations(history, LAG)
    assert not broken, f"with LABRATS_SEED={seed}:\n" + "\n".join(broken)


async def live(lab: Lab, chance: random.Random) -> History:
    """Simulate about an hour of use and faults, and then wait until all jobs have ended."""
    history = History(ai_models=[(lab.clock.now(), an_ai_model(model=model, slots=1)) for model in MODELS])
    trouble = Trouble(chance, failure_rate=chance.choice([0.0, 0.05, 0.3]))
    lab.controller_store = TroubledStore(lab.store, trouble)
    lab.controller_runner = TroubledRunner(lab.runner, trouble)
    async with asyncio.TaskGroup() as tasks:
        observers = [tasks.create_task(observe_jobs(lab, history)), tasks.create_task(observe_models(lab, history))]
        engine = tasks.create_task(keep_restarting(lab, chance))
        others = tasks.create_task(annotate_waiting_jobs(lab, chance))
        async with asyncio.TaskGroup() as users:
            users.create_task(change_slots(lab, chance))
            for _ in range(chance.randint(10, 25)):
                users.create_task(use(lab, chance))
        for model in MODELS:
            await lab.set_slots(2, model=model)
        with suppress(TimeoutError):  # the checker reports the jobs that have not ended
            await all_ended(lab)
        for task in (engine, others, *observers):
            task.cancel()
    history.runs = [
        Run(executor.name, executor.started_at, executor.ended_at)
        for executor in lab.machine.executors.values()
        if executor.started_at
    ]
    return history


async def keep_restarting(lab: Lab, chance: random.Random) -> None:
    """Run an engine that crashes several times, and then one that does not."""
    for _ in range(chance.choice([0, 1, 5])):
        async with lab.controller():
            await asyncio.sleep(chance.expovariate(1 / 60))
        await asyncio.sleep(chance.choice([0.0, 1.0, 10.0]))
    async with lab.controller():
        await asyncio.Event().wait()


async def use(lab: Lab, chance: random.Random) -> None:
    """Submit a job, and cancel and retry it at random."""
    await asyncio.sleep(chance.uniform(0, 120))
    if chance.random() < 0.2:
        await lab.fail_to_submit(config={"model": chance.choice(MODELS)})
    job = await lab.submit(
        a_script(chance),
        job_id=f"ir-{chance.getrandbits(32):08x}",
        priority=chance.randint(0, 3),
        config={
            "model": chance.choice(MODELS),
            "timeout_ms": chance.choice([5_000, 60_000]),
            "max_attempts": chance.choice([1, 1, 3]),
        },
    )
    while chance.random() < 0.4:
        await asyncio.sleep(chance.uniform(0, 60))
        with suppress(IllegalMove):
            await chance.choice([lab.cancel, lab.retry])(job)


async def annotate_waiting_jobs(lab: Lab, chance: random.Random) -> None:
    """Change all waiting jobs now and then, as a person with kubectl does."""
    while True:
        await asyncio.sleep(chance.uniform(0, 5))
        for job in await lab.store.list(Job):
            if job.phase is Phase.PENDING:
                metadata = replace(job.metadata, labels={"seen": str(chance.random())})
                with suppress(Conflict, NotFound):
                    await lab.store.update(replace(job, metadata=metadata))


def a_script(chance: random.Random) -> list[Any]:
    stubborn = [{"ignoreSignals": True}] if chance.random() < 0.2 else []
    work = {"sleepMs": chance.choice([0, 100, 2_000, 20_000])}
    end = chance.choice([{"result": 1}, {"result": 1}, {"fail": "no"}, {"exit": 3}, {"hang": True}])
    return [*stubborn, work, end]


async def change_slots(lab: Lab, chance: random.Random) -> None:
    for _ in range(chance.choice([0, 2, 6])):
        await asyncio.sleep(chance.uniform(0, 60))
        await lab.set_slots(chance.randint(0, 3), model=chance.choice(MODELS))


async def all_ended(lab: Lab) -> None:
    for job in await lab.store.list(Job):
        await lab.ended(job)


async def observe_jobs(lab: Lab, history: History) -> None:
    async for change in lab.store.watch(Job):
        if isinstance(change, Changed):
            history.jobs.append((lab.clock.now(), change.resource))


async def observe_models(lab: Lab, history: History) -> None:
    async for change in lab.store.watch(AiModel):
        if isinstance(change, Changed):
            history.ai_models.append((lab.clock.now(), change.resource))
