"""Actions on many jobs with several engines, one of which stops, on the store of each backend."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from labrats.api import bulk_actions
from labrats.api.bulk_actions import BulkAction, BulkActions, Target
from labrats.metrics import Metrics
from labrats.model.core_resources import Secret
from labrats.model.job import Job, JobStatus
from labrats.model.phases import Phase
from labrats.ports import Store, SystemClock
from tests.conformance.store_resources import a_job
from tests.fakes.clock import NOON
from tests.support.watch_recorder import record_watch

JOBS = 20
ABANDONED_SECONDS = 0.5


@pytest.fixture(autouse=True)
def frequent_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines look for abandoned actions soon after they count as abandoned."""
    monkeypatch.setattr(bulk_actions, "CHECK_SECONDS", ABANDONED_SECONDS / 2)


@asynccontextmanager
async def an_engine(store: Store, abandoned_seconds: float = ABANDONED_SECONDS) -> AsyncIterator[BulkActions]:
    """Run the bulk actions of one engine. At the end of the block it stops wherever it is."""
    actions = BulkActions(store, SystemClock(), Metrics(), abandoned_seconds)
    running = asyncio.create_task(actions.run())
    try:
        yield actions
    finally:
        running.cancel()
        await asyncio.wait([running])


async def failed_jobs(store: Store) -> list[Job]:
    status = JobStatus(phase=Phase.FAILED, attempts=1, finished_at=NOON)
    created = [await store.create(a_job(f"ir-{number:08x}")) for number in range(JOBS)]
    return [await store.update(replace(job, status=status)) for job in created]


def a_retry_of(jobs: Sequence[Job]) -> BulkAction:
    ends = [job.status.finished_at for job in jobs]
    targets = [Target(job.id, end.timestamp() if end else None) for job, end in zip(jobs, ends, strict=True)]
    return BulkAction(action="retry", targets=targets, owner=None)


async def unfinished(store: Store) -> list[str]:
    """Return the names of the stored actions that are not done."""
    stored = [secret for secret in await store.list(Secret) if secret.name.startswith("bulk-action-")]
    return [secret.name for secret in stored if not json.loads(secret.data["action"]).get("finishedAt")]


async def test_another_engine_continues_the_action_of_one_that_stopped(store: Store) -> None:
    jobs = await failed_jobs(store)
    async with record_watch(store, Job) as seen:
        async with an_engine(store) as first:
            await first.add(a_retry_of(jobs))
            await seen.until(lambda: any(job.phase is Phase.PENDING for job in seen.current.values()))
        left = [job for job in await store.list(Job) if job.phase is Phase.FAILED]
        assert left, "the first engine has done everything"

        async with an_engine(store), asyncio.timeout(30):
            while await unfinished(store):
                await asyncio.sleep(0.05)

    assert {job.phase for job in await store.list(Job)} == {Phase.PENDING}


async def test_job_that_was_retried_and_failed_again_is_left_out(store: Store) -> None:
    first, *others = jobs = await failed_jobs(store)
    again = replace(first.status, attempts=2, finished_at=NOON.replace(hour=13))
    await store.update(replace(first, status=again))

    async with an_engine(store) as engine, asyncio.timeout(30):
        await engine.add(a_retry_of(jobs))
        while await unfinished(store):
            await asyncio.sleep(0.05)

    assert (await store.get(Job, first.id)).status == again
    assert {(await store.get(Job, job.id)).phase for job in others} == {Phase.PENDING}


async def test_engine_leaves_the_action_of_another_one_that_works(store: Store) -> None:
    jobs = await failed_jobs(store)
    async with an_engine(store, abandoned_seconds=600) as idle:
        worker = BulkActions(store, SystemClock(), Metrics())
        await worker.add(a_retry_of(jobs))  # it does not run, as one that is slow
        await idle.add(a_retry_of(jobs[:1]))
        async with asyncio.timeout(30):
            while len(await unfinished(store)) > 1:
                await asyncio.sleep(0.05)

    phases = [(await store.get(Job, job.id)).phase for job in jobs]
    assert phases == [Phase.PENDING, *[Phase.FAILED] * (JOBS - 1)]
