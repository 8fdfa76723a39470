"""A full, failing or read-only disk raises RetryLater, and the store recovers without a restart."""

import asyncio
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from labrats.backends.embedded.database import open_for_writing
from labrats.backends.embedded.store import EmbeddedStore
from labrats.model.ai_model import AiModel
from labrats.model.errors import RetryLater
from labrats.ports import Changed, Synced
from tests.durability.disk import Call, Disk
from tests.durability.ledger import Ledger, a_model, write_until_failure

DEADLINE_SECONDS = 30

FAULTS = [
    (Call.WRITE, apsw.FullError),
    (Call.WRITE, apsw.IOError),
    (Call.WRITE, apsw.ReadOnlyError),
    (Call.WRITE, apsw.PermissionsError),
    (Call.SYNC, apsw.FullError),
    (Call.SYNC, apsw.IOError),
]

for_every_fault = pytest.mark.parametrize(("call", "error"), FAULTS)


@for_every_fault
async def test_writes_are_retried_later_and_succeed_once_the_disk_recovers(
    disk: Disk, tmp_path: Path, call: Call, error: type[apsw.Error]
) -> None:
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        before = await store.create(a_model("before", 1))
        with disk.failing(call, error):
            outcomes = await asyncio.gather(
                *(store.create(a_model(f"during-{n}", 1)) for n in range(20)),
                store.delete(AiModel, "before"),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} == {RetryLater}
            assert all(isinstance(outcome.__cause__, error) for outcome in outcomes if isinstance(outcome, RetryLater))
        after = await store.create(a_model("after", 1))
        assert await store.list(AiModel) == [after, before]


@for_every_fault
async def test_a_fault_at_any_time_loses_no_acknowledged_write(
    disk: Disk, tmp_path: Path, call: Call, error: type[apsw.Error]
) -> None:
    ledger = Ledger()
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        for calls in range(0, 100, 5):
            with disk.failing(call, error, after=calls):
                await write_until_failure(store, ledger, seed=calls)
            assert await ledger.losses(store) == []
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        assert await ledger.losses(store) == []


@for_every_fault
async def test_a_failed_write_reaches_no_watcher(
    disk: Disk, tmp_path: Path, call: Call, error: type[apsw.Error]
) -> None:
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        watch = store.watch(AiModel)
        assert await anext(watch) == Synced()
        with disk.failing(call, error), pytest.raises(RetryLater):
            await store.create(a_model("opus", 1))
        opus = await store.create(a_model("opus", 2))
        assert await anext(watch) == Changed(opus)


async def test_reads_are_retried_later_and_succeed_once_the_disk_recovers(disk: Disk, tmp_path: Path) -> None:
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        opus = await store.create(a_model("opus", 1))
        with disk.failing(Call.READ, apsw.IOError):
            for failing in (
                store.get(AiModel, "opus"),
                store.get_many(AiModel, ["opus"]),
                store.list(AiModel),
                anext(store.watch(AiModel)),
            ):
                with pytest.raises(RetryLater):
                    await failing
        assert await store.get(AiModel, "opus") == opus
        assert await anext(store.watch(AiModel)) == Changed(opus)


async def test_a_store_on_a_failing_disk_opens_only_once_the_disk_recovers(disk: Disk, tmp_path: Path) -> None:
    with disk.failing(Call.WRITE, apsw.FullError), pytest.raises(RetryLater):
        async with EmbeddedStore.open(tmp_path / "labrats.db"):
            pass
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        await store.create(a_model("opus", 1))


async def test_a_write_waits_for_a_write_of_another_process(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "labrats.db"
    async with EmbeddedStore.open(path) as store:
        with closing(open_for_writing(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            creating = asyncio.create_task(store.create(a_model("opus", 1)))
            assert await asyncio.to_thread(disk.has_waiter.wait, DEADLINE_SECONDS)
            assert await store.list(AiModel) == []  # reads still work
            other.execute("COMMIT")
        opus = await creating
        assert await store.list(AiModel) == [opus]
