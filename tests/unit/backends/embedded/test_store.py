"""The embedded store beyond the contract of Store, which tests/conformance checks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from labrats.backends.embedded import store as store_module
from labrats.backends.embedded.database import WRITER_TIMEOUT_MS, open_for_writing
from labrats.backends.embedded.store import _SINCE_JOBS, EmbeddedStore
from labrats.model.core_resources import ConfigMap, Secret
from labrats.model.errors import Conflict, RetryLater, Unreadable
from labrats.model.job import Job, JobSpec
from labrats.model.record import Metadata, OwnerReference
from labrats.ports import Changed, DeletedUnseen, Synced, SystemClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labrats.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[EmbeddedStore]:
    async with EmbeddedStore.open(path) as store:
        yield store


def a_map(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=Metadata(name=name), data=data)


def a_job(name: str, **metadata: Any) -> Job:
    return Job(metadata=Metadata(name=name), spec=JobSpec(source="manual", type="code-review", metadata=metadata))


async def test_reopening_finds_written_resources(path: Path) -> None:
    async with EmbeddedStore.open(path) as store:
        kept = await store.create(a_map("kept", text="yes"))
        await store.create(a_map("gone"))
        await store.delete(ConfigMap, "gone")
    async with EmbeddedStore.open(path) as store:
        assert await store.list(ConfigMap) == [kept]


async def test_no_version_is_used_twice(path: Path) -> None:
    async with EmbeddedStore.open(path) as store:
        created = await store.create(a_map("a"))
        await store.delete(ConfigMap, "a")
    async with EmbeddedStore.open(path) as store, EmbeddedStore.open(path) as other:
        again = await store.create(a_map("a"))
        last = await other.create(a_map("b"))
    versions = [int(each.metadata.resource_version) for each in (created, again, last)]
    assert versions == sorted(set(versions))


async def test_a_write_of_another_process_is_read_and_not_overwritten(path: Path, store: EmbeddedStore) -> None:
    ours = await store.create(a_map("shared", text="ours"))
    async with EmbeddedStore.open(path) as other:  # has its own connection, like another process
        theirs = await other.update(replace(ours, data={"text": "theirs"}))
        new = await other.create(a_map("new"))
    assert await store.get(ConfigMap, "shared") == theirs
    assert await store.list(ConfigMap) == [new, theirs]
    with pytest.raises(Conflict):
        await store.update(replace(ours, data={"text": "again ours"}))


async def test_a_watcher_receives_a_write_before_the_writer_continues(store: EmbeddedStore) -> None:
    known: list[str] = []
    synced = asyncio.Event()

    async def follow() -> None:
        async for change in store.watch(ConfigMap):
            if isinstance(change, Synced):
                synced.set()
            elif isinstance(change, Changed):
                known.append(change.resource.name)

    following = asyncio.create_task(follow())
    await synced.wait()

    async def write(name: str) -> None:
        await store.create(a_map(name))
        assert name in known

    await asyncio.gather(*(write(f"map-{n}") for n in range(50)))
    following.cancel()


async def test_a_write_between_two_pages_of_a_watch_arrives_once(store: EmbeddedStore) -> None:
    maps = [await store.create(a_map(f"map-{n:03}")) for n in range(150)]
    watch = store.watch(ConfigMap)
    assert await anext(watch) == Changed(maps[0])
    read_already = await store.update(replace(maps[1], data={"text": "new"}))  # on the first page
    read_later = await store.update(replace(maps[149], data={"text": "new"}))
    await store.delete(ConfigMap, "map-140")
    seen = [await anext(watch) for _ in range(150)]
    last = await store.create(a_map("last"))
    seen.append(await anext(watch))
    assert seen == [
        *(Changed(each) for each in maps[1:140]),
        *(Changed(each) for each in maps[141:149]),
        Changed(read_later),
        Synced(),
        Changed(read_already),
        Changed(last),
    ]


async def test_a_resource_that_cannot_be_encoded_fails_alone(store: EmbeddedStore) -> None:
    outcomes = await asyncio.gather(
        store.create(a_job("ir-00000001")),
        store.create(a_job("ir-00000002", poison=object())),
        store.create(a_job("ir-00000003", poison="\ud800")),
        store.create(a_job("ir-00000004"), [a_map("part-4", poison="\ud800")]),
        store.create(a_job("ir-00000005")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [Job, TypeError, UnicodeEncodeError, UnicodeEncodeError, Job]
    assert [job.name for job in await store.list(Job)] == ["ir-00000001", "ir-00000005"]


async def test_an_unreadable_row_is_logged_and_hides_no_other(
    path: Path, store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        await store.create(a_map(name))
    with closing(open_for_writing(path)) as connection:
        connection.execute("UPDATE resources SET body = ? WHERE name = 'b'", (b'{"metadata": 7}',))
    with caplog.at_level(logging.ERROR):
        assert [each.name for each in await store.list(ConfigMap)] == ["a", "c"]
        watch = store.watch(ConfigMap)
        assert [type(await anext(watch)) for _ in range(3)] == [Changed, Changed, Synced]
        with pytest.raises(Unreadable):
            await store.get(ConfigMap, "b")
    assert {record.message for record in caplog.records} == {"stored resource unreadable"}
    await store.delete(ConfigMap, "b")
    await store.create(a_map("b"))


@pytest.mark.parametrize("version", ["", "0", "never-given", "-1", "1.0", "01", "1 ", "９", "9" * 50])
async def test_an_unknown_version_is_a_conflict(store: EmbeddedStore, version: str) -> None:
    created = await store.create(a_map("a"))
    with pytest.raises(Conflict):
        await store.update(replace(created, metadata=replace(created.metadata, resource_version=version)))
    with pytest.raises(Conflict):
        await store.delete(ConfigMap, "a", version)


async def test_parts_of_parts_are_deleted_too(store: EmbeddedStore) -> None:
    await store.create(a_map("owner"), [Secret(metadata=Metadata(name="part"))])
    part_of_the_part = Metadata(name="part-of-part", owner=OwnerReference(kind="Secret", name="part"))
    await store.create(ConfigMap(metadata=part_of_the_part))
    await store.delete(ConfigMap, "owner")
    assert await store.list(ConfigMap) == []
    assert await store.list(Secret) == []


async def test_creation_time_is_that_of_the_clock(path: Path) -> None:
    class Noon(SystemClock):
        def now(self) -> datetime:
            return datetime.fromisoformat("2030-01-02T12:00:00+00:00")

    async with EmbeddedStore.open(path, Noon()) as store:
        created = await store.create(a_map("a"))
    assert created.metadata.created_at == Noon().now()


async def test_a_cancelled_write_does_not_affect_others(store: EmbeddedStore) -> None:
    writes = [asyncio.create_task(store.create(a_map(f"map-{n}"))) for n in range(20)]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    await asyncio.gather(*writes, return_exceptions=True)
    assert not any(write.cancelled() for write in writes[1::2])
    stored = {each.name for each in await store.list(ConfigMap)}
    assert stored >= {f"map-{n}" for n in range(1, 20, 2)}


async def test_closing_waits_for_pending_writes(path: Path) -> None:
    async with EmbeddedStore.open(path) as store:
        writes = [asyncio.create_task(store.create(a_map(f"map-{n:03}"))) for n in range(600)]
        await asyncio.sleep(0)
    assert all(write.done() for write in writes)
    async with EmbeddedStore.open(path) as store:
        assert len(await store.list(ConfigMap)) == 600


async def test_a_closed_store_refuses_every_call(path: Path) -> None:
    async with EmbeddedStore.open(path) as store:
        await store.create(a_map("a"))
    for refused in (
        store.get(ConfigMap, "a"),
        store.list(ConfigMap),
        anext(store.watch(ConfigMap)),
        store.create(a_map("b")),
    ):
        with pytest.raises(RetryLater):
            await refused
    assert sorted(file.name for file in path.parent.iterdir()) == ["labrats.db"]  # without a journal


@pytest.mark.parametrize("with_owner", [False, True])
async def test_a_deleted_secret_is_in_no_file_of_the_database(
    store: EmbeddedStore, path: Path, with_owner: bool
) -> None:
    owner = await store.create(a_map("owner"))
    metadata = Metadata(name="token", owner=owner.as_owner() if with_owner else None)
    await store.create(Secret(metadata=metadata, data={"password": "test-token-0123456789" * 500}))
    await store.create(a_map("beside", text="stays"))
    assert files_with(b"test-token-0123456789", path)

    await store.delete(*((ConfigMap, "owner") if with_owner else (Secret, "token")))

    assert files_with(b"test-token-0123456789", path) == []
    assert files_with(b"stays", path)


async def test_a_replaced_secret_is_in_no_file_of_the_database(store: EmbeddedStore, path: Path) -> None:
    secret = await store.create(Secret(metadata=Metadata(name="token"), data={"key": "test-old-0123456789"}))
    await store.update(replace(secret, data={"key": "test-new-0123456789"}))

    assert files_with(b"test-old-0123456789", path) == []
    assert files_with(b"test-new-0123456789", path)


async def test_a_secret_deleted_during_a_backup_delays_no_write_and_is_erased_afterwards(
    store: EmbeddedStore, path: Path
) -> None:
    await store.create(Secret(metadata=Metadata(name="token"), data={"key": "test-token-0123456789"}))
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as backup:
        backup.execute("BEGIN")
        assert backup.execute("SELECT count(*) FROM resources").get == 1
        async with asyncio.timeout(WRITER_TIMEOUT_MS / 1000 / 2):
            await asyncio.gather(store.delete(Secret, "token"), store.create(a_map("one")))
            await store.create(a_map("two"))
        assert files_with(b"test-token-0123456789", path)

    await store.create(a_map("three"))

    assert files_with(b"test-token-0123456789", path) == []


def files_with(text: bytes, path: Path) -> list[Path]:
    return [file for file in path.parent.glob(f"{path.name}*") if text in file.read_bytes()]


async def test_a_watch_has_yielded_every_change_before_the_latest_one_when_it_is_synced(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_PAGE", 2)
    early, deleted = [await store.create(a_job(f"ir-0000000{number}")) for number in range(5)][:2]
    seen: dict[str, int] = {}
    gone: set[str] = set()
    async for change in store.watch(Job):
        match change:
            case Changed(job):
                if not seen:
                    await store.update(early)
                    await store.delete(Job, deleted.name)
                    latest = await store.create(a_job("ir-00000009"))
                seen[job.name] = int(job.metadata.resource_version)
            case DeletedUnseen(name):
                gone.add(name)
            case Synced():
                break
    assert seen[latest.name] == max(seen.values()) == int(latest.metadata.resource_version)
    assert seen[early.name] == int((await store.get(Job, early.name)).metadata.resource_version)
    assert gone == {deleted.name}


async def test_changes_of_jobs_are_found_without_reading_or_sorting_the_others(store: EmbeddedStore) -> None:
    plan = store._reader.execute(f"EXPLAIN QUERY PLAN {_SINCE_JOBS}", ("InferenceRequest", 1, 25)).fetchall()

    assert [row[3] for row in plan] == ["SEARCH resources USING INDEX jobs_by_rv (rv>?)"]
