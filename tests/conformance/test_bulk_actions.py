"""Actions on many jobs with several engines, one of which stops, on the store of each backend."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from labrats.api import bulk_actions
from labrats.api.bulk_actions import BulkAction, BulkActions, Target
from labrats.metrics import Metrics
from labrats.model.errors import NotFound
from labrats.model.job import Job, JobStatus
from labrats.model.phases import Phase
from labrats.ports import Store, SystemClock
from tests.conformance.store_resources import a_job
from tests.fakes.clock import NOON
from tests.support.watch_recorder import record_watch

JOBS = 20
INTERRUPTED_SECONDS = 2.0


@pytest.fixture(autouse=True)
def frequent_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines store the progress of an action after each job."""
    monkeypatch.setattr(bulk_actions, "SAVE_SECONDS", 0)


@asynccontextmanager
async def an_engine(store: Store) -> AsyncIterator[BulkActions]:
    """Run the bulk actions of one engine. At the end of the block it stops wherever it is."""
    actions = BulkActions(store, SystemClock(), Metrics(), INTERRUPTED_SECONDS)
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


async def start_retry(engine: BulkActions, jobs: Sequence[Job]) -> str:
    """Start a retry of the jobs. Return its id."""
    ends = [job.status.finished_at for job in jobs]
    targets = [Target(job.id, end.timestamp() if end else None) for job, end in zip(jobs, ends, strict=True)]
    return await engine.add(BulkAction(action="retry", jobs=len(targets), owner=None), targets)


async def finished(engine: BulkActions, action_id: str) -> BulkAction:
    """Return the action, once it is done."""
    async with asyncio.timeout(30):
        while not (action := await engine.get(action_id)).finished_at:
            await asyncio.sleep(0.05)
    return action


async def test_another_engine_answers_the_progress_of_an_action(store: Store) -> None:
    jobs = await failed_jobs(store)
    async with an_engine(store) as working, an_engine(store) as other:
        action_id = await start_retry(working, jobs)
        assert (await other.get(action_id)).jobs == JOBS
        action = await finished(other, action_id)

    assert (action.done, action.changed) == (JOBS, JOBS)


async def test_action_ends_with_its_engine(store: Store) -> None:
    jobs = await failed_jobs(store)
    async with record_watch(store, Job) as seen:
        async with an_engine(store) as first:
            action_id = await start_retry(first, jobs)
            await seen.until(lambda: any(job.phase is Phase.PENDING for job in seen.current.values()))
        left = [job.id for job in await store.list(Job) if job.phase is Phase.FAILED]
        assert left, "the first engine has done everything"

        async with an_engine(store) as second:
            assert not (await second.get(action_id)).finished_at
            with pytest.raises(NotFound, match="send it again for the rest"):
                await finished(second, action_id)

    assert [job.id for job in await store.list(Job) if job.phase is Phase.FAILED] == left


async def test_job_that_was_retried_and_failed_again_is_left_out(store: Store) -> None:
    first, *others = jobs = await failed_jobs(store)
    again = replace(first.status, attempts=2, finished_at=NOON.replace(hour=13))
    await store.update(replace(first, status=again))

    async with an_engine(store) as engine:
        await finished(engine, await start_retry(engine, jobs))

    assert (await store.get(Job, first.id)).status == again
    assert {(await store.get(Job, job.id)).phase for job in others} == {Phase.PENDING}
