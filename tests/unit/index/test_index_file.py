"""The index of jobs in a file: it survives the engine, and resumes from the version that it has applied."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from labrats.backends.embedded.store import EmbeddedStore
from labrats.index import jobs as index_module
from labrats.index.job_filter import JobFilter
from labrats.index.job_table import complete, open_table, put
from labrats.index.jobs import JobIndex
from labrats.model.errors import Invalid, RetryLater
from labrats.model.job import FailedCode, Job
from labrats.model.phases import Phase
from labrats.model.series import Metric, Steps
from tests.fakes.clock import NOON
from tests.support.background import run_in_background
from tests.support.builders import a_job, a_spec
from tests.support.open_files import deleted_open_files
from tests.support.waiting import DEADLINE_SECONDS, eventually

P = Phase
EVERYTHING = JobFilter()
SCHEMA_PAGES = {1, 7, 8}
"""The pages of a new index that have its schema."""


@asynccontextmanager
async def followed(folder: Path) -> AsyncIterator[tuple[EmbeddedStore, JobIndex]]:
    """Open a store and an index that follows it, both in the folder."""
    async with EmbeddedStore.open(folder / "labrats.db") as store:
        index = JobIndex(folder / "index.db")
        try:
            async with run_in_background(index.follow(store)):
                await index.synced.wait()
                yield store, index
        finally:
            index.close()


async def ids(index: JobIndex, **wanted: Any) -> list[str]:
    return [job.id for job in (await index.find_jobs(JobFilter(**wanted), page=1, limit=100))[0]]


def an_unstored(number: int, phase: Phase = P.PENDING, **status: Any) -> Job:
    job = a_job(phase, job_id=f"ir-{number:08x}", **status)
    return replace(job, metadata=replace(job.metadata, uid="", resource_version="", created_at=None))


async def test_a_restart_finds_the_index_complete_and_applies_only_changes(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, _):
        one, two = await store.create(an_unstored(1)), await store.create(an_unstored(2))
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:  # as by an engine whose index was lagging
        await store.update(replace(one, status=a_job(P.RUNNING).status))
        await store.delete(Job, two.id)
        await store.create(an_unstored(3))
    async with followed(tmp_path) as (_, index):
        assert sorted(await ids(index)) == ["ir-00000001", "ir-00000003"]
        assert await ids(index, status=["active"]) == ["ir-00000001"]
        assert (index.count_in(P.PENDING), index.count_in(P.RUNNING)) == (1, 1)
        assert not index.contains(two.id)
        assert await index.missing([one.id, two.id]) == [two.id]


async def test_an_index_of_another_database_starts_over(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, _):
        await store.create(an_unstored(1))
    (tmp_path / "labrats.db").unlink()
    async with followed(tmp_path) as (store, index):
        assert await ids(index) == []
        await store.create(an_unstored(2))
    async with followed(tmp_path) as (_, index):
        assert await ids(index) == ["ir-00000002"]


async def test_an_index_of_a_newer_copy_of_the_database_starts_over(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, _):
        await store.create(an_unstored(1))
    copy = (tmp_path / "labrats.db").read_bytes()
    async with followed(tmp_path) as (store, _):
        await store.create(an_unstored(2))
    (tmp_path / "labrats.db").write_bytes(copy)  # restored from a backup
    async with followed(tmp_path) as (_, index):
        assert await ids(index) == ["ir-00000001"]


async def test_an_index_with_another_schema_is_filled_again(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, _):
        await store.create(an_unstored(1))
    apsw.Connection(str(tmp_path / "index.db")).pragma("user_version", 77)
    async with followed(tmp_path) as (_, index):
        assert await ids(index) == ["ir-00000001"]


async def test_changes_of_a_failed_commit_are_applied_again_although_others_follow_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task that applies changes may have woken for the next one when the commit fails."""
    async with followed(tmp_path) as (store, index):
        await store.create(an_unstored(1))
        connection = FullOnce(index._db)
        monkeypatch.setattr(index, "_db", connection)
        await eventually(lambda: index.contains("ir-00000001"))
        publish = store._commits._publish

        def publish_and_commit(changes: Any) -> None:
            publish(changes)
            connection.is_full = True
            index._commit()

        with monkeypatch.context() as patch:
            patch.setattr(store._commits, "_publish", publish_and_commit)
            await store.create(an_unstored(2))
        await eventually(lambda: index.contains("ir-00000001") and index.contains("ir-00000002"))


async def test_an_engine_that_ends_while_the_index_cannot_be_written_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task group hides that it was cancelled if one of its tasks fails in the same moment."""
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        await store.create(an_unstored(1))
        with closing(JobIndex(tmp_path / "index.db")) as index:
            following = asyncio.create_task(index.follow(store))

            def fail(job: Job) -> None:
                following.cancel()
                raise apsw.FullError("database or disk is full")

            monkeypatch.setattr(index, "_put", fail)
            ended, _ = await asyncio.wait([following], timeout=DEADLINE_SECONDS)
            following.cancel()
            assert ended


class FullOnce:
    """A connection whose next COMMIT fails, once the disk is full."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection, self.is_full = connection, False

    def execute(self, query: str, *values: Any) -> Any:
        if query == "COMMIT" and self.is_full:
            self.is_full = False
            raise apsw.FullError("database or disk is full")
        return self._connection.execute(query, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_changes_are_committed_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "COMMIT_SECONDS", DEADLINE_SECONDS)
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        with closing(JobIndex(tmp_path / "index.db")) as index:
            async with run_in_background(index.follow(store)):
                await index.synced.wait()
                await store.create(an_unstored(1))
                await eventually(lambda: index.contains("ir-00000001"))
            assert index.contains("ir-00000001")


async def test_an_index_that_starts_over_waits_for_a_database_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with followed(tmp_path) as (store, index):
        read = store._execute

        def fail(*values: Any) -> Any:
            monkeypatch.setattr(store, "_execute", read)
            raise RetryLater("the database cannot be read")

        monkeypatch.setattr(store, "_execute", fail)
        index._fail(apsw.FullError("database or disk is full"))
        await asyncio.sleep(2 * index_module.RETRY_SECONDS)
        await store.create(an_unstored(1))
        await eventually(lambda: index.contains("ir-00000001"))


@pytest.mark.parametrize("content", [b"", b"x" * 10_000, b"SQLite format 3\x00" + b"y" * 10_000])
async def test_a_damaged_index_is_filled_again(tmp_path: Path, content: bytes) -> None:
    async with followed(tmp_path) as (store, _):
        await store.create(an_unstored(1))
    (tmp_path / "index.db").write_bytes(content)
    async with followed(tmp_path) as (_, index):
        assert await ids(index) == ["ir-00000001"]
        assert index.count_in(P.PENDING) == 1


@pytest.mark.parametrize("part", [range(2, 100_000), range(2, 100_000, 2), range(3, 100_000, 2)])
async def test_an_index_with_damaged_pages_is_filled_again(tmp_path: Path, part: range) -> None:
    async with followed(tmp_path) as (store, _):
        jobs = [await store.create(an_unstored(number)) for number in range(120)]
    damage_pages(tmp_path / "index.db", part)
    async with followed(tmp_path) as (store, index):
        await store.update(replace(jobs[0], status=a_job(P.RUNNING).status))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await is_right(index, jobs):
                await asyncio.sleep(0.01)
        await index.synced.wait()
    async with followed(tmp_path) as (_, index):
        assert await is_right(index, jobs)


async def test_a_damaged_index_on_a_full_disk_is_filled_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with followed(tmp_path) as (store, index):
        jobs = [await store.create(an_unstored(number, P.RUNNING if number == 0 else P.PENDING)) for number in range(3)]
        await index_has(index, len(jobs))
        failures = 2

        def open_when_there_is_room(path: Path | None) -> apsw.Connection:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise apsw.FullError
            return open_table(path)

        monkeypatch.setattr(index_module, "open_table", open_when_there_is_room)
        monkeypatch.setattr(index_module, "RETRY_SECONDS", 0.01)
        index._fail(apsw.CorruptError("as of a damaged page"))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while failures >= 0 or not await is_right(index, jobs):
                await asyncio.sleep(0.01)


def damage_pages(file: Path, numbers: range) -> None:
    """Overwrite those pages, except for the schema. The first one is 1."""
    connection = apsw.Connection(str(file))
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    size, count = int(connection.pragma("page_size")), int(connection.pragma("page_count"))
    connection.close()
    with open(file, "r+b") as opened:
        for number in set(numbers) & set(range(1, count + 1)) - SCHEMA_PAGES:
            opened.seek((number - 1) * size)
            opened.write(b"\xa5" * size)


async def is_right(index: JobIndex, jobs: Sequence[Job]) -> bool:
    """Return whether the first job runs and the others wait, by all queries. False while the index is damaged."""
    try:
        found = {each.id for each in (await index.find_jobs(EVERYTHING, page=1, limit=1000))[0]}
        counts = index.count_in(P.RUNNING), index.count_in(P.PENDING)
        return (
            found == {job.id for job in jobs}
            and counts == (1, len(jobs) - 1)
            and await ids(index, status=["active"]) == [jobs[0].id]
            and not await index.missing([job.id for job in jobs])
        )
    except RetryLater:
        return False


async def test_an_incomplete_index_is_filled_again(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, _):
        await store.create(an_unstored(1))
    connection = apsw.Connection(str(tmp_path / "index.db"))
    connection.pragma("user_version", 0)  # the engine was killed while it filled the index
    connection.close()
    async with followed(tmp_path) as (_, index):
        assert await ids(index) == ["ir-00000001"]


async def test_an_index_that_cannot_grow_lags_and_catches_up(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, index):
        index._db.pragma("max_page_count", index._db.pragma("page_count"))  # as on a full disk
        jobs = [await store.create(an_unstored(number)) for number in range(300)]
        assert await index.missing([job.id for job in jobs])
        index._db.pragma("max_page_count", 1_000_000)
        await index_has(index, len(jobs))
        assert index.count_in(P.PENDING) == len(jobs)


async def test_cursors_visit_every_job_once_while_jobs_arrive(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, index):
        for number in range(7):
            await store.create(an_unstored(number))
        await index_has(index, 7)
        seen, cursor = [], None
        while True:
            page = await index.find_page(EVERYTHING, cursor=cursor, limit=3)
            seen += [job.id for job in page.jobs]
            await store.create(an_unstored(100 + len(seen)))
            if (cursor := page.next) is None:
                break
        assert seen == sorted((f"ir-{number:08x}" for number in range(7)), reverse=True)
        oldest = await index.find_page(EVERYTHING, cursor=None, limit=3, oldest_first=True)
        assert [job.id for job in oldest.jobs] == ["ir-00000000", "ir-00000001", "ir-00000002"]


@pytest.mark.parametrize("cursor", ["", "x", "!!", "WyJhIiwgMV0", "bnVsbA", "WzEsIDIsIDNd", "é"])
async def test_a_foreign_cursor_is_refused(tmp_path: Path, cursor: str) -> None:
    async with followed(tmp_path) as (_, index):
        with pytest.raises(Invalid, match="cursor"):
            await index.find_page(EVERYTHING, cursor=cursor, limit=3)


@pytest.mark.parametrize("wanted", [{}, {"owner": "key-1"}, {"type": "review"}, {"q": "rev"}])
async def test_facets_count_the_matching_jobs(tmp_path: Path, wanted: dict[str, Any]) -> None:
    review = a_spec(type="review", owner="key-1", metadata={"repo": "octo/cat"})
    async with followed(tmp_path) as (store, index):
        for number, phase in enumerate([P.FAILED, P.SUCCEEDED, P.FAILED]):
            code = FailedCode.TIMEOUT if phase is P.FAILED else None
            await store.create(replace(an_unstored(number, phase, failed_code=code), spec=review))
        await index_has(index, 3)
        facets = await index.facets(JobFilter(**wanted))
    assert facets["status"] == [("failed", 2), ("completed", 1)]
    assert facets["failedCode"] == [("timeout", 2)]
    assert facets["repo"] == [("octo/cat", 3)]
    assert facets["agentRole"] == []


@pytest.mark.parametrize("others", [{}, {"q": "rev"}, {"since": NOON}, {"ended_since": NOON}])
async def test_a_facet_is_counted_without_its_own_filter(tmp_path: Path, others: dict[str, Any]) -> None:
    async with followed(tmp_path) as (store, index):
        for number, (repo, phase) in enumerate(
            [("octo/cat", P.FAILED), ("octo/cat", P.SUCCEEDED), ("octo/dog", P.FAILED), ("octo/dog", P.CANCELLED)]
        ):
            job = an_unstored(number, phase, finished_at=NOON)
            await store.create(replace(job, spec=a_spec(type="review", owner="key-1", metadata={"repo": repo})))
        await index_has(index, 4)
        one = await index.facets(JobFilter(repo="octo/cat", **others))
        two = await index.facets(JobFilter(repo="octo/cat", status=["failed"], **others))
        fixed = await index.facets(JobFilter(repo="octo/cat", **others), fixed=frozenset({"repo"}))
    assert one["repo"] == [("octo/cat", 2), ("octo/dog", 2)]
    assert one["status"] == [("completed", 1), ("failed", 1)]
    assert two["repo"] == [("octo/cat", 1), ("octo/dog", 1)]
    assert two["status"] == [("completed", 1), ("failed", 1)]
    assert two["owner"] == [("key-1", 1)]
    assert fixed["repo"] == [("octo/cat", 2)]


async def test_queries_in_threads_see_every_applied_change(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, index):
        job = await store.create(an_unstored(1, P.SUCCEEDED, started_at=NOON, finished_at=NOON, slot="m"))
        await index_has(index, 1)
        assert [(count.status, count.count) for count in await index.counts_by_group()] == [("completed", 1)]
        values = await index.series(Metric.JOBS, Steps.until(NOON + timedelta(minutes=1), 60, 5))
        assert sum(value.value for value in values) == 1
        await store.delete(Job, job.id)
        await index_has(index, 0)
        assert await index.counts_by_group() == []


async def index_has(index: JobIndex, jobs: int) -> None:
    """Wait until the index has so many jobs."""
    while (await index.find_jobs(EVERYTHING, page=1, limit=1))[1] != jobs:
        await asyncio.sleep(0.01)


def test_a_large_change_writes_no_temporary_file(tmp_path: Path) -> None:
    before = deleted_open_files()
    with closing(open_table(tmp_path / "index.db")) as connection:
        for number in range(500):
            put(connection, a_job(job_id=f"ir-{number:08x}", created_at=NOON))
        complete(connection)
        with connection:
            connection.execute("UPDATE jobs SET source = 'another'")  # also changes the counters
            assert deleted_open_files() == before
