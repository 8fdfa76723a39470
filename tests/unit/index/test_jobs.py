"""The index of jobs: lists, counts, and who is told of changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from labrats.index.jobs import JobCount, JobFilter, JobIndex
from labrats.model.job import FailedCode, Job
from labrats.model.phases import API_STATUS, ENDED, Phase
from tests.fakes.clock import NOON, FakeClock, VirtualTimeLoop
from tests.fakes.store import MemoryStore
from tests.support.builders import a_config, a_job, a_spec, an_applied_spec
from tests.support.waiting import eventually

P = Phase
MINUTE = timedelta(minutes=1)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


async def cache_of(*jobs: Job) -> JobIndex:
    """A cache that has taken in `jobs`, created when they say."""
    clock = FakeClock()
    store, cache = MemoryStore(clock), JobIndex()
    for job in jobs:
        clock.step((job.created_at - clock.now()).total_seconds())
        await store.create(job)
    async with following(cache, store):
        return cache


@asynccontextmanager
async def following(cache: JobIndex, store: MemoryStore) -> AsyncIterator[None]:
    """The cache follows the store while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(cache.follow(store))
        await cache.synced.wait()
        try:
            yield
        finally:
            task.cancel()


def a_numbered(number: int, phase: Phase = P.PENDING, **spec: Any) -> Job:
    """Job `ir-0000000{number}`, created `number` minutes after noon."""
    return a_job(phase, job_id=f"ir-{number:08x}", spec=a_spec(**spec), created_at=NOON + number * MINUTE)


def listed(cache: JobIndex, page: int = 1, limit: int = 100, **wanted: Any) -> list[int]:
    """The numbers of the jobs on a page. wanted: fields of JobFilter."""
    return [int(job_id[3:], 16) for job_id in cache.page(JobFilter(**wanted), page=page, limit=limit)[0]]


def total(cache: JobIndex, **wanted: Any) -> int:
    return cache.page(JobFilter(**wanted), page=1, limit=1)[1]


# Lists


async def test_a_list_is_newest_first_in_pages() -> None:
    cache = await cache_of(*(a_numbered(n) for n in (3, 1, 5, 2, 4)))
    assert listed(cache) == [5, 4, 3, 2, 1]
    assert [listed(cache, page=page, limit=2) for page in (1, 2, 3, 4)] == [[5, 4], [3, 2], [1], []]
    assert total(cache) == 5


async def test_jobs_of_the_same_moment_have_one_order() -> None:
    jobs = [replace(a_numbered(n), metadata=replace(a_numbered(n).metadata, created_at=NOON)) for n in (2, 3, 1)]
    cache = await cache_of(*jobs)
    assert [listed(cache, page=page, limit=1) for page in (1, 2, 3)] == [[3], [2], [1]]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"status": "waiting"}, [4, 1]),
        ({"status": "completed"}, [2]),
        ({"type": "review"}, [3, 2]),
        ({"type": "nothing"}, []),
        ({"source": "github"}, [4, 2]),
        ({"owner": "key-1"}, [3, 1]),
        ({"owner": "nobody"}, []),
        ({"repo": "octo/cat"}, [4, 3]),
        ({"repo": "OCTO/cat"}, []),
        ({"agent_role": "ai-reviewer"}, []),
        ({"chain_id": "c"}, []),
        ({"q": "octo"}, [4, 3]),
        ({"q": "OCTO"}, [4, 3]),
        ({"q": "00000002"}, [2]),
        ({"q": "hub"}, [4, 2]),
        ({"q": "view"}, [3, 2]),
        ({"q": "%"}, []),
        ({"q": "_"}, []),
        ({"q": "'"}, []),
        ({"owner": "key-1", "repo": "octo/cat"}, [3]),
        ({"owner": "key-1", "q": "octo", "status": "active", "type": "review", "source": "manual"}, [3]),
    ],
)
async def test_filters_narrow_a_list_and_its_total(wanted: dict[str, Any], numbers: list[int]) -> None:
    cache = await cache_of(
        a_numbered(1, type="fix", owner="key-1"),
        a_numbered(2, P.SUCCEEDED, type="review", source="github"),
        a_numbered(3, P.RUNNING, type="review", owner="key-1", metadata={"repo": "octo/cat"}),
        a_numbered(4, type="fix", source="github", owner="key-2", metadata={"repo": "octo/cat"}),
    )
    assert listed(cache, **wanted) == numbers
    assert total(cache, **wanted) == len(numbers)


async def test_a_repo_that_is_no_text_is_none() -> None:
    cache = await cache_of(a_numbered(1, metadata={"repo": ["octo/cat"]}))
    assert listed(cache, q="octo") == []
    assert listed(cache) == [1]


# Following the store


async def test_the_cache_is_synced_once_it_knows_all_there_was() -> None:
    store, cache = MemoryStore(), JobIndex()
    await store.create(a_numbered(1))
    assert not cache.synced.is_set()
    async with following(cache, store):
        assert listed(cache) == [1]


async def test_changes_and_deletions_are_followed() -> None:
    store, cache = MemoryStore(), JobIndex()
    async with following(cache, store):
        job = await store.create(a_numbered(1, owner="key-1"))
        await eventually(lambda: listed(cache, status="waiting", owner="key-1") == [1])
        await store.update(replace(job, status=a_numbered(1, P.RUNNING).status))
        await eventually(lambda: listed(cache, status="active") == [1])
        assert listed(cache, status="waiting") == []
        await store.delete(Job, job.id)
        await eventually(lambda: listed(cache) == [])
    assert (total(cache), total(cache, owner="key-1"), cache.count(P.RUNNING)) == (0, 0, 0)
    assert cache.counts() == []


async def test_the_second_end_of_a_job_counts_even_if_what_was_in_between_was_not_seen() -> None:
    store, cache = MemoryStore(), JobIndex()
    early, late = NOON + MINUTE, NOON + 9 * MINUTE
    async with following(cache, store):
        job = await store.create(a_job(P.FAILED, finished_at=early))
        await eventually(lambda: cache.finished_before(early + MINUTE) == [job.id])
        await store.update(replace(job, status=replace(job.status, attempts=2, finished_at=late)))
        await eventually(lambda: cache.finished_before(early + MINUTE) == [])
        assert cache.finished_before(late + MINUTE) == [job.id]


async def test_jobs_that_ended_before_a_time_are_found() -> None:
    jobs = {phase: a_job(phase, finished_at=NOON if phase in ENDED else None) for phase in Phase}
    cache = await cache_of(*jobs.values())
    assert sorted(cache.finished_before(NOON + MINUTE)) == sorted(jobs[phase].id for phase in ENDED)
    assert cache.finished_before(NOON) == []


# Counts


async def test_a_model_is_paused_until_the_latest_time_that_its_waiting_jobs_know() -> None:
    spec = a_spec(config={"model": "opus"})
    pauses = [
        a_job(P.PENDING, spec=spec, failed_code=FailedCode.OVERLOADED, not_before=NOON + minutes * MINUTE)
        for minutes in (1, 3, 2)
    ]
    put_back = a_job(P.PENDING, spec=spec, failed_code=FailedCode.EXECUTOR_DIED, not_before=NOON + 9 * MINUTE)
    cache = await cache_of(*pauses, put_back, a_job(P.PENDING))
    assert cache.paused_until("mock", "opus") == NOON + 3 * MINUTE
    assert cache.paused_until("mock", "mock") is None


async def test_jobs_are_counted_by_what_they_share() -> None:
    opus = {"config": {"provider": "claude", "model": "opus"}}
    cache = await cache_of(
        a_numbered(1, type="fix"), a_numbered(2, type="fix"), a_numbered(3, P.RUNNING, type="fix", **opus)
    )
    assert sorted(cache.counts(), key=lambda count: count.status) == [
        JobCount("active", "fix", "claude", "opus", 1),
        JobCount("waiting", "fix", "mock", "mock", 2),
    ]
    assert cache.count_by_model("waiting") == {("mock", "mock"): 2}
    assert cache.count_by_model("completed") == {}


async def test_a_job_whose_settings_are_resolved_late_moves_to_its_model() -> None:
    clock = FakeClock()
    store, cache = MemoryStore(clock), JobIndex()
    job = await store.create(a_job(spec=an_applied_spec(), resource_version=""))
    async with following(cache, store):
        pause = {"failed_code": FailedCode.OVERLOADED, "not_before": NOON + MINUTE}
        status = replace(job.status, resolved=a_config(model="opus"), **pause)
        await store.update(replace(job, status=status))
        await eventually(lambda: cache.count_by_model("waiting") == {("mock", "opus"): 1})
        assert cache.paused_until("mock", "opus") == NOON + MINUTE


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([*Phase, None]), st.sampled_from(["a", "b"]))))
async def test_every_count_agrees_with_the_jobs_there_are(changes: list[tuple[int, Phase | None, str]]) -> None:
    """Any sequence of creations, changes of phase and deletions; an owner stays what it first was."""
    store, cache = MemoryStore(), JobIndex()
    async with following(cache, store):
        for number, phase, owner in changes:
            await change(store, a_numbered(number, phase or P.PENDING, owner=owner), deletes=phase is None)
        await asyncio.sleep(1)
    present = await store.list(Job)
    assert total(cache) == len(present)
    for owner in ("a", "b"):
        assert total(cache, owner=owner) == sum(job.spec.owner == owner for job in present)
    for phase in Phase:
        assert (
            cache.count(phase) == total(cache, status=API_STATUS[phase]) == sum(job.phase is phase for job in present)
        )
    assert sum(count.count for count in cache.counts()) == len(present)


async def change(store: MemoryStore, job: Job, *, deletes: bool) -> None:
    """Make the store's job of this name so, or be gone."""
    known = {each.id: each for each in await store.list(Job)}.get(job.id)
    if known and deletes:
        await store.delete(Job, job.id)
    elif known:
        await store.update(replace(known, status=job.status))
    elif not deletes:
        await store.create(job)


# Who is told


async def test_a_listener_is_told_once_of_any_number_of_changes() -> None:
    store, cache = MemoryStore(), JobIndex()
    async with following(cache, store):
        job, other = await store.create(a_numbered(1)), await store.create(a_numbered(2))
        await asyncio.sleep(1)
        with cache.changes_of(job.id) as changes, cache.changes_of(job.id) as another_listeners:
            for slot in ("a", "b", "c"):
                job = await store.update(replace(job, status=replace(job.status, slot=slot)))
                other = await store.update(replace(other, status=replace(other.status, slot=slot)))
            await asyncio.sleep(1)
            assert await told(changes) == 1
            await store.delete(Job, job.id)
            await asyncio.sleep(1)
            assert await told(another_listeners) == 1


async def test_a_listener_is_told_of_each_change_it_waits_for() -> None:
    """Of the creation too: it may listen before there is a job."""
    store, cache = MemoryStore(), JobIndex()
    async with following(cache, store):
        with cache.changes_of("ir-00000001") as changes:
            count = asyncio.create_task(told(changes))
            await asyncio.sleep(1)
            job = await store.create(a_numbered(1))
            await asyncio.sleep(1)
            await store.update(job)
            await asyncio.sleep(1)
            await store.delete(Job, job.id)
            assert await count == 3


async def test_who_stopped_listening_leaves_nothing_behind() -> None:
    cache = JobIndex()
    with cache.changes_of("ir-00000001"), cache.changes_of("ir-00000001"):
        pass
    assert not cache._listeners


async def told(changes: AsyncIterator[None]) -> int:
    """How often a change comes before a minute of the virtual clock passes without one."""
    count = 0
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(60):
                await anext(changes)
                count += 1
    return count
