"""Simulated lives of an engine with many jobs of few concurrency keys, with faults and crashes, in virtual time."""

import asyncio
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.job import Job
from labrats.model.phases import Phase
from tests.fakes.clock import FakeClock
from tests.fakes.runner import MemoryMachine
from tests.support.random_seed import SEED
from tests.unit.controller.lab import Lab
from tests.unit.controller.test_simulation import LAG, SLOTS, a_script, keep_restarting
from tests.unit.controller.trouble import Trouble, TroubledRunner, TroubledStore

SEEDS = int(os.environ.get("LABRATS_SIMULATIONS", "60"))
KEYS = ("octo/demo#1", "octo/demo#2", "octo/demo#3")
OWNERS = ("key-one", "key-two")

Span = tuple[datetime, datetime]


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
async def test_keys_are_exact_under_faults_and_crashes(seed: int) -> None:
    chance = random.Random(seed)
    clock = FakeClock()
    async with MemoryMachine(clock) as machine:
        lab = Lab(clock, machine, SLOTS)
        jobs = await live(lab, chance)
    spans = {
        executor.name.job_id: (executor.started_at, executor.ended_at or executor.started_at + timedelta(days=1))
        for executor in machine.executors.values()
        if executor.started_at
    }
    broken = list(violations(jobs, spans))
    assert not broken, f"with LABRATS_SEED={seed}:\n" + "\n".join(broken)


async def live(lab: Lab, chance: random.Random) -> list[Job]:
    """Submit many jobs of few keys while the engine fails and crashes. Return the jobs when all have ended."""
    trouble = Trouble(chance, failure_rate=chance.choice([0.0, 0.05, 0.3]))
    lab.controller_store = TroubledStore(lab.store, trouble)
    lab.controller_runner = TroubledRunner(lab.runner, trouble)
    await lab.set_slots(3)
    async with asyncio.TaskGroup() as tasks:
        engine = tasks.create_task(keep_restarting(lab, chance))
        for _ in range(chance.randint(15, 40)):
            await lab.submit(
                a_script(chance),
                job_id=f"ir-{chance.getrandbits(32):08x}",
                owner=chance.choice(OWNERS),
                priority=chance.randint(0, 3),
                config={"timeout_ms": chance.choice([5_000, 60_000])},
                concurrency=Concurrency(
                    key=chance.choice(KEYS),
                    on_new=chance.choice(list(OnNew)),
                    debounce_seconds=chance.choice([0, 0, 10]),
                ),
            )
            await asyncio.sleep(chance.choice([0, 0, 1, 10]))
        jobs = [await lab.ended(job) for job in await lab.store.list(Job)]
        engine.cancel()
    return jobs


def violations(jobs: list[Job], spans: dict[str, Span]) -> Iterator[str]:
    """Yield a sentence for each broken promise. spans: the life of each job's only attempt."""
    by_key = defaultdict(list)
    for job in sorted(jobs, key=lambda job: (job.created_at, job.id)):
        assert job.spec.concurrency
        by_key[job.spec.owner, job.spec.concurrency.key].append(job)
    for of_key in by_key.values():
        yield from _overlaps([spans[job.id] for job in of_key if job.id in spans])
        yield from _out_of_order(of_key, spans)
        newest = of_key[-1]
        if newest.phase is Phase.CANCELLED or newest.status.attempts == 0:
            yield f"the newest job did not run: {newest.status}"
        for number, job in enumerate(of_key):
            yield from _wrong_end(job, of_key[number + 1 :], spans)


def _overlaps(spans: list[Span]) -> Iterator[str]:
    for (_, ended), (began, _) in pairwise(sorted(spans)):
        if began < ended:
            yield f"an attempt began at {began}, and another one of its key ended at {ended}"


def _out_of_order(of_key: list[Job], spans: dict[str, Span]) -> Iterator[str]:
    """Yield where a younger job started first. Jobs of one moment may be observed in any order."""
    started = [job for job in of_key if job.id in spans]
    for older, younger in pairwise(started):
        if spans[older.id][0] > spans[younger.id][0] and older.created_at < younger.created_at:
            yield f"{younger.id} started before {older.id}, which is older"


def _wrong_end(job: Job, newer: list[Job], spans: dict[str, Span]) -> Iterator[str]:
    """Yield where a job was cancelled without a newer one that says so, or started although a newer one did."""
    replacing = {each.id: each for each in newer if each.spec.concurrency and each.spec.concurrency.on_new != "queue"}
    if job.phase is Phase.CANCELLED and job.status.superseded_by not in replacing:
        yield f"{job.id} was cancelled for {job.status.superseded_by}, not for one of {sorted(replacing)}"
    if job.phase is not Phase.CANCELLED and job.status.superseded_by:
        yield f"{job.id} was superseded and {job.phase}"
    began = spans[job.id][0] if job.id in spans else None
    if job.status.attempts == 0 and job.phase is not Phase.CANCELLED:
        yield f"{job.id} never ran and is {job.phase}"
    for each in replacing.values():
        if began and began > each.created_at + LAG:
            yield f"{job.id} started at {began}, after {each.id} of {each.created_at}, which supersedes it"
