"""The items of job lists, which are cached."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import pytest

from labrats.api import activities as activities_module
from labrats.api import job_items
from labrats.api.activities import Activities
from labrats.api.job_items import JobItems
from labrats.index.jobs import IndexedJob, JobIndex
from labrats.model.attempt_name import AttemptName
from labrats.model.errors import RetryLater
from labrats.model.job import Job
from labrats.model.record import Resource
from tests.fakes.clock import FakeClock
from tests.fakes.runner import MemoryMachine, MemoryRunner
from tests.fakes.store import MemoryStore
from tests.support.background import run_in_background
from tests.support.builders import a_job
from tests.support.waiting import eventually

R = TypeVar("R", bound=Resource)


class ReadCounter(MemoryStore):
    """A store that records the names that it reads."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.read: list[str] = []

    async def get_many(self, kind: type[R], names: Sequence[str]) -> list[R]:
        self.read += names
        return await super().get_many(kind, names)


@pytest.fixture
def store() -> ReadCounter:
    return ReadCounter()


def indexed(job: Job) -> IndexedJob:
    return IndexedJob(job.id, job.metadata.resource_version or "")


def a_cache(store: MemoryStore) -> JobItems:
    return JobItems(store, Activities(MemoryRunner(store, MemoryMachine()), JobIndex()))


async def items(cache: JobItems, *jobs: Job, with_result: bool = True) -> list[dict[str, Any]]:
    found = await cache.of([indexed(job) for job in jobs], with_result=with_result)
    return [msgspec.json.decode(item) for item in found]


async def stored(store: MemoryStore, number: int, **status: Any) -> Job:
    return await store.create(a_job(job_id=f"ir-{number:08x}", **status))


async def test_job_is_read_once_until_it_changes(store: ReadCounter) -> None:
    cache, job = a_cache(store), await stored(store, 1)
    assert await items(cache, job) == await items(cache, job)
    assert store.read == [job.id]
    changed = await store.update(msgspec.structs.replace(job, status=msgspec.structs.replace(job.status, attempts=7)))
    assert [item["attempts"] for item in await items(cache, changed)] == [7]


async def test_items_keep_the_order_and_leave_out_deleted_jobs(store: ReadCounter) -> None:
    cache, jobs = a_cache(store), [await stored(store, number) for number in range(4)]
    await items(cache, jobs[1])
    await store.delete(Job, jobs[2].id)
    assert [item["id"] for item in await items(cache, *jobs)] == [jobs[0].id, jobs[1].id, jobs[3].id]


async def test_item_without_its_result_is_cached_apart(store: ReadCounter) -> None:
    cache, job = a_cache(store), await stored(store, 1)
    assert "result" in (await items(cache, job))[0]
    assert "result" not in (await items(cache, job, with_result=False))[0]
    assert "result" in (await items(cache, job))[0]


async def test_cache_is_bounded(store: ReadCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_items, "CACHED_ITEMS", 2)
    cache = a_cache(store)
    jobs = [await stored(store, number) for number in range(3)]
    for job in (*jobs, jobs[0]):  # the third item displaces the first
        await items(cache, job)
    assert store.read == [jobs[0].id, jobs[1].id, jobs[2].id, jobs[0].id]
    large = await stored(store, 9, result="x" * job_items.CACHED_BYTES)
    for _ in range(2):
        await items(cache, large)
    assert store.read[-2:] == [large.id, large.id]


async def test_activities_go_on_after_the_index_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class FailingIndex(JobIndex):
        failures = 0

        def is_running(self, job_id: str) -> bool:
            self.failures += 1
            if self.failures == 1:
                raise RetryLater("the index of the jobs is damaged; it is being filled again")
            return False

    monkeypatch.setattr(activities_module, "REFRESH_SECONDS", 0.01)
    index = FailingIndex()
    activities = Activities(MemoryRunner(MemoryStore(), MemoryMachine()), index)
    await activities.of(AttemptName("ir-1", 1), "ci")
    async with run_in_background(activities.run()):
        await eventually(lambda: index.failures > 1)
