"""The index of jobs: lists, counts and subscriptions to changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from labrats.index.job_filter import JobFilter
from labrats.index.jobs import JobCount, JobIndex
from labrats.model.concurrency import Concurrency, OnNew
from labrats.model.job import FailedCode, Job
from labrats.model.phases import API_STATUS, ENDED, Phase
from labrats.model.report import Published, Report, ReportTarget
from tests.fakes.clock import NOON, FakeClock, VirtualTimeLoop
from tests.fakes.store import MemoryStore
from tests.support.builders import a_config, a_job, a_spec, an_applied_spec
from tests.support.waiting import eventually

P = Phase
MINUTE = timedelta(minutes=1)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualTimeLoop}


async def index_of(*jobs: Job) -> JobIndex:
    """Return an index that has followed the creation of `jobs`."""
    clock = FakeClock()
    store, index = MemoryStore(clock), JobIndex()
    for job in jobs:
        clock.step((job.created_at - clock.now()).total_seconds())
        await store.create(job)
    async with following(index, store):
        return index


@asynccontextmanager
async def following(index: JobIndex, store: MemoryStore) -> AsyncIterator[None]:
    """Let the index follow the store while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(index.follow(store))
        await index.synced.wait()
        try:
            yield
        finally:
            task.cancel()


def a_numbered(number: int, phase: Phase = P.PENDING, **spec: Any) -> Job:
    """Build the job `ir-0000000{number}`, created `number` minutes after noon."""
    return a_job(phase, job_id=f"ir-{number:08x}", spec=a_spec(**spec), created_at=NOON + number * MINUTE)


async def listed(index: JobIndex, page: int = 1, limit: int = 100, **wanted: Any) -> list[int]:
    """Return the numbers of the jobs on a page. wanted: fields of JobFilter."""
    jobs, _ = await index.find_jobs(JobFilter(**wanted), page=page, limit=limit)
    return [int(job.id[3:], 16) for job in jobs]


async def total(index: JobIndex, **wanted: Any) -> int:
    return (await index.find_jobs(JobFilter(**wanted), page=1, limit=1))[1]


async def wait_for_list(index: JobIndex, numbers: list[int], **wanted: Any) -> None:
    """Wait until the list has exactly these jobs."""
    async with asyncio.timeout(10):
        while await listed(index, **wanted) != numbers:
            await asyncio.sleep(0.01)


# Lists


async def test_pages_list_the_newest_jobs_first() -> None:
    index = await index_of(*(a_numbered(n) for n in (3, 1, 5, 2, 4)))
    assert await listed(index) == [5, 4, 3, 2, 1]
    assert [await listed(index, page=page, limit=2) for page in (1, 2, 3, 4)] == [[5, 4], [3, 2], [1], []]
    assert await total(index) == 5


async def test_jobs_created_at_the_same_time_have_a_stable_order() -> None:
    jobs = [replace(a_numbered(n), metadata=replace(a_numbered(n).metadata, created_at=NOON)) for n in (2, 3, 1)]
    index = await index_of(*jobs)
    assert [await listed(index, page=page, limit=1) for page in (1, 2, 3)] == [[3], [2], [1]]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"status": ["waiting"]}, [4, 1]),
        ({"status": ["completed"]}, [2]),
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
        ({"q": "ix"}, [4, 1]),
        ({"q": "THE CHANGE"}, [4, 3, 2, 1]),
        ({"q": "%"}, []),
        ({"q": "_"}, []),
        ({"q": "'"}, []),
        ({"owner": "key-1", "repo": "octo/cat"}, [3]),
        ({"owner": "key-1", "q": "octo", "status": ["active"], "type": "review", "source": "manual"}, [3]),
    ],
)
async def test_filters_narrow_a_list_and_its_total(wanted: dict[str, Any], numbers: list[int]) -> None:
    index = await index_of(
        a_numbered(1, type="fix", owner="key-1"),
        a_numbered(2, P.SUCCEEDED, type="review", source="github"),
        a_numbered(3, P.RUNNING, type="review", owner="key-1", metadata={"repo": "octo/cat"}),
        a_numbered(4, type="fix", source="github", owner="key-2", metadata={"repo": "octo/cat"}),
    )
    assert await listed(index, **wanted) == numbers
    assert await total(index, **wanted) == len(numbers)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("#12", [4, 3, 2, 1]),
        ("pull/12", [4, 3, 2, 1]),
        ("octo-org/API-1#12", [4, 2, 1]),
        ("https://github.com/octo-org/api-1/issues/12", [4, 2, 1]),
        ("https://github.com/octo-org/api-1/pull/12#discussion_r7", [4, 2, 1]),
        ("https://git.example.com/other/api/pull/12/files", [3]),
        ("#1", []),
        ("octo-org/api#12", []),
    ],
)
async def test_search_finds_jobs_by_their_issue_or_pull_request(text: str, numbers: list[int]) -> None:
    target = ReportTarget(repository="octo-org/api-1", pull_request=12)
    opened = a_numbered(4, P.SUCCEEDED, metadata={"repo": "octo-org/api-1", "number": 7})
    published = Published(pull_request_url="https://github.com/Octo-Org/api-1/pull/12")
    index = await index_of(
        a_numbered(1, metadata={"repo": "octo-org/api-1", "number": 12}),
        a_numbered(2, report=Report(target=target)),
        a_numbered(3, metadata={"repo": "other/api", "number": 12}),
        replace(opened, status=replace(opened.status, published=published)),
        a_numbered(5, metadata={"repo": "octo-org/api-1", "number": 123}),
        a_numbered(6, metadata={"number": 12}),
    )

    assert await listed(index, q=text) == numbers


async def test_a_repo_that_is_not_a_string_is_ignored() -> None:
    index = await index_of(a_numbered(1, metadata={"repo": ["octo/cat"]}))
    assert await listed(index, q="octo") == []
    assert await listed(index) == [1]


# Following the store


async def test_the_cache_is_synced_once_it_knows_all_there_was() -> None:
    store, index = MemoryStore(), JobIndex()
    await store.create(a_numbered(1))
    assert not index.synced.is_set()
    async with following(index, store):
        assert await listed(index) == [1]


async def test_changes_and_deletions_are_followed() -> None:
    store, index = MemoryStore(), JobIndex()
    async with following(index, store):
        job = await store.create(a_numbered(1, owner="key-1"))
        await wait_for_list(index, [1], status=["waiting"], owner="key-1")
        await store.update(replace(job, status=a_numbered(1, P.RUNNING).status))
        await wait_for_list(index, [1], status=["active"])
        assert await listed(index, status=["waiting"]) == []
        await store.delete(Job, job.id)
        await wait_for_list(index, [])
    assert (await total(index), await total(index, owner="key-1"), index.count_in(P.RUNNING)) == (0, 0, 0)
    assert await index.counts_by_group() == []


async def test_the_second_end_of_a_job_counts_although_its_retry_was_not_observed() -> None:
    store, index = MemoryStore(), JobIndex()
    early, late = NOON + MINUTE, NOON + 9 * MINUTE
    async with following(index, store):
        job = await store.create(a_job(P.FAILED, finished_at=early))
        await eventually(lambda: [*index.finished_before(early + MINUTE)] == [job.id])
        await store.update(replace(job, status=replace(job.status, attempts=2, finished_at=late)))
        await eventually(lambda: [*index.finished_before(early + MINUTE)] == [])
        assert [*index.finished_before(late + MINUTE)] == [job.id]


async def test_finished_before_finds_the_jobs_that_ended_earlier() -> None:
    jobs = {phase: a_job(phase, finished_at=NOON if phase in ENDED else None) for phase in Phase}
    index = await index_of(*jobs.values())
    assert sorted([*index.finished_before(NOON + MINUTE)]) == sorted(jobs[phase].id for phase in ENDED)
    assert [*index.finished_before(NOON)] == []


# Counts


async def test_a_pause_ends_at_the_latest_time_that_the_waiting_jobs_record() -> None:
    spec = a_spec(config={"model": "opus"})
    pauses = [
        a_job(P.PENDING, spec=spec, failed_code=FailedCode.OVERLOADED, not_before=NOON + minutes * MINUTE)
        for minutes in (1, 3, 2)
    ]
    requeued = a_job(P.PENDING, spec=spec, failed_code=FailedCode.EXECUTOR_DIED, not_before=NOON + 9 * MINUTE)
    index = await index_of(*pauses, requeued, a_job(P.PENDING))
    assert index.paused_until("mock", "opus", NOON) == NOON + 3 * MINUTE
    assert index.paused_until("mock", "opus", NOON + 3 * MINUTE) is None
    assert index.paused_until("mock", "mock", NOON) is None


async def test_jobs_are_counted_by_status_type_and_model() -> None:
    opus = {"config": {"provider": "claude", "model": "opus"}}
    index = await index_of(
        a_numbered(1, type="fix"), a_numbered(2, type="fix"), a_numbered(3, P.RUNNING, type="fix", **opus)
    )
    assert sorted(await index.counts_by_group(), key=lambda count: count.status) == [
        JobCount("active", "fix", "claude", "opus", 1),
        JobCount("waiting", "fix", "mock", "mock", 2),
    ]
    assert index.counts_by_model(P.PENDING) == {("mock", "mock"): 2}
    assert index.counts_by_model(P.SUCCEEDED) == {}


async def test_a_job_resolved_late_moves_to_its_model() -> None:
    clock = FakeClock()
    store, index = MemoryStore(clock), JobIndex()
    job = await store.create(a_job(spec=an_applied_spec(), resource_version=""))
    async with following(index, store):
        pause = {"failed_code": FailedCode.OVERLOADED, "not_before": NOON + MINUTE}
        status = replace(job.status, resolved=a_config(model="opus"), **pause)
        await store.update(replace(job, status=status))
        await eventually(lambda: index.counts_by_model(P.PENDING) == {("mock", "opus"): 1})
        assert index.paused_until("mock", "opus", NOON) == NOON + MINUTE


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([*Phase, None]), st.sampled_from(["a", "b"]))))
async def test_every_count_agrees_with_the_stored_jobs(changes: list[tuple[int, Phase | None, str]]) -> None:
    """The changes are creations, phase changes and deletions. A job keeps its first owner."""
    store, index = MemoryStore(), JobIndex()
    async with following(index, store):
        for number, phase, owner in changes:
            await change(store, a_numbered(number, phase or P.PENDING, owner=owner), deletes=phase is None)
        await asyncio.sleep(1)
    present = await store.list(Job)
    assert await total(index) == len(present)
    for owner in ("a", "b"):
        assert await total(index, owner=owner) == sum(job.spec.owner == owner for job in present)
    for phase in Phase:
        assert (
            index.count_in(phase)
            == await total(index, status=[API_STATUS[phase]])
            == sum(job.phase is phase for job in present)
        )
    assert sum(count.count for count in await index.counts_by_group()) == len(present)


async def change(store: MemoryStore, job: Job, *, deletes: bool) -> None:
    """Create, update or delete the job of this name."""
    known = {each.id: each for each in await store.list(Job)}.get(job.id)
    if known and deletes:
        await store.delete(Job, job.id)
    elif known:
        await store.update(replace(known, status=job.status))
    elif not deletes:
        await store.create(job)


# Subscriptions


async def test_several_changes_notify_a_listener_once() -> None:
    store, index = MemoryStore(), JobIndex()
    async with following(index, store):
        job, other = await store.create(a_numbered(1)), await store.create(a_numbered(2))
        await asyncio.sleep(1)
        with index.changes_of(job.id) as changes, index.changes_of(job.id) as other_changes:
            for slot in ("a", "b", "c"):
                job = await store.update(replace(job, status=replace(job.status, slot=slot)))
                other = await store.update(replace(other, status=replace(other.status, slot=slot)))
            await asyncio.sleep(1)
            assert await count_changes(changes) == 1
            await store.delete(Job, job.id)
            await asyncio.sleep(1)
            assert await count_changes(other_changes) == 1


async def test_a_waiting_listener_is_notified_of_each_change() -> None:
    """The creation counts too: a listener may subscribe before the job exists."""
    store, index = MemoryStore(), JobIndex()
    async with following(index, store):
        with index.changes_of("ir-00000001") as changes:
            count = asyncio.create_task(count_changes(changes))
            await asyncio.sleep(1)
            job = await store.create(a_numbered(1))
            await asyncio.sleep(1)
            await store.update(job)
            await asyncio.sleep(1)
            await store.delete(Job, job.id)
            assert await count == 3


async def test_an_ended_subscription_leaves_nothing_behind() -> None:
    index = JobIndex()
    with index.changes_of("ir-00000001"), index.changes_of("ir-00000001"):
        pass
    assert not index._listeners


async def count_changes(changes: AsyncIterator[None]) -> int:
    """Count the changes until a minute of virtual time passes without one."""
    count = 0
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(60):
                await anext(changes)
                count += 1
    return count


def a_waiting(number: int, model: str, priority: int, not_before: int | None) -> Job:
    job = a_numbered(number, priority=priority, config={"model": model})
    time = None if not_before is None else NOON + not_before * MINUTE
    return replace(job, status=replace(job.status, not_before=time))


QUEUED = st.tuples(st.sampled_from(["opus", "haiku"]), st.integers(0, 2), st.sampled_from([None, 5, 60]))


@given(st.lists(QUEUED, max_size=8), st.integers(0, 30))
def test_positions_of_many_jobs_equal_those_of_each(queued: list[tuple[str, int, int | None]], minute: int) -> None:
    async def check() -> None:
        jobs = [a_waiting(number, *each) for number, each in enumerate(queued)]
        running = [a_numbered(number, P.RUNNING, config={"model": "opus"}) for number in (20, 21)]
        index, now = await index_of(*jobs, *running), NOON + minute * MINUTE

        positions = await index.positions_of([job.id for job in [*jobs, *running]], 120, now)

        assert positions.keys() == {job.id for job in jobs}
        for job in jobs:
            place, found = await index.place_of(job, 120, now), positions[job.id]
            assert (found.position, found.active) == (place.position, len(place.holders))

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(check())


def a_keyed(number: int, phase: Phase = P.PENDING, *, on_new: OnNew = OnNew.QUEUE, **fields: Any) -> Job:
    return a_numbered(number, phase, concurrency=Concurrency(key="one", on_new=on_new), **fields)


async def test_a_waiting_job_is_blocked_by_the_running_job_of_its_key_or_else_the_oldest() -> None:
    first, second, third = a_keyed(1), a_keyed(2), a_keyed(3)
    other_owner = a_keyed(4, owner="key-other")
    index = await index_of(first, second, third, other_owner, a_keyed(0, P.SUCCEEDED), a_numbered(5))
    assert await index.blockers_of([first, second, third, other_owner]) == {second.id: first.id, third.id: first.id}

    index = await index_of(first, second, running := a_keyed(6, P.RUNNING))
    assert await index.blockers_of([first, second]) == {first.id: running.id, second.id: running.id}
    assert await index.blockers_of([a_numbered(5)]) == {}


@pytest.mark.parametrize("untrusted", [True, False])
async def test_a_job_of_other_trust_neither_blocks_nor_supersedes(untrusted: bool) -> None:
    old, new = a_keyed(1, untrusted=not untrusted), a_keyed(2, on_new=OnNew.SUPERSEDE, untrusted=untrusted)
    index = await index_of(old, new)
    assert await index.blockers_of([old, new]) == {}
    assert await index.superseder_of(old) is None


async def test_the_newest_live_job_that_replaces_older_ones_is_their_superseder() -> None:
    old, new = a_keyed(1), [a_keyed(2, on_new=OnNew.SUPERSEDE), a_keyed(3, on_new=OnNew.REPLACE_WAITING)]
    ended = a_keyed(4, P.SUCCEEDED, on_new=OnNew.SUPERSEDE)
    index = await index_of(old, *new, ended, a_keyed(5))
    assert await index.superseder_of(old) == new[1].id
    assert await index.superseder_of(new[1]) is None
    assert await index.superseder_of(a_keyed(1, owner="key-other")) is None
