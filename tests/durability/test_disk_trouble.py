"""R17: a full, failing or read-only disk is waited out: RetryLater, and back to work without a restart."""

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
from tests.durability.ledger import Ledger, a_model, write_until_trouble

DEADLINE_SECONDS = 30

TROUBLES = [
    (Call.WRITE, apsw.FullError),
    (Call.WRITE, apsw.IOError),
    (Call.WRITE, apsw.ReadOnlyError),
    (Call.WRITE, apsw.PermissionsError),
    (Call.SYNC, apsw.FullError),
    (Call.SYNC, apsw.IOError),
]

at_every_trouble = pytest.mark.parametrize(("call", "error"), TROUBLES)


@at_every_trouble
async def test_r17_writes_are_put_off_and_succeed_once_the_disk_is_well(
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


@at_every_trouble
async def test_r17_nothing_that_was_acknowledged_is_lost_to_troubles_at_any_moment(
    disk: Disk, tmp_path: Path, call: Call, error: type[apsw.Error]
) -> None:
    ledger = Ledger()
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        for calls in range(0, 100, 5):
            with disk.failing(call, error, after=calls):
                await write_until_trouble(store, ledger, seed=calls)
            assert await ledger.losses(store) == []
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        assert await ledger.losses(store) == []


@at_every_trouble
async def test_r17_a_failed_write_reaches_no_watcher(
    disk: Disk, tmp_path: Path, call: Call, error: type[apsw.Error]
) -> None:
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        watch = store.watch(AiModel)
        assert await anext(watch) == Synced()
        with disk.failing(call, error), pytest.raises(RetryLater):
            await store.create(a_model("opus", 1))
        opus = await store.create(a_model("opus", 2))
        assert await anext(watch) == Changed(opus)


async def test_r17_reads_are_put_off_and_succeed_once_the_disk_is_well(disk: Disk, tmp_path: Path) -> None:
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


async def test_r17_a_store_on_a_failing_disk_does_not_open_and_does_later(disk: Disk, tmp_path: Path) -> None:
    with disk.failing(Call.WRITE, apsw.FullError), pytest.raises(RetryLater):
        async with EmbeddedStore.open(tmp_path / "labrats.db"):
            pass
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        await store.create(a_model("opus", 1))


async def test_r17_a_write_waits_for_that_of_another_process(disk: Disk, tmp_path: Path) -> None:
    path = tmp_path / "labrats.db"
    async with EmbeddedStore.open(path) as store:
        with closing(open_for_writing(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            creating = asyncio.create_task(store.create(a_model("opus", 1)))
            assert await asyncio.to_thread(disk.somebody_waits.wait, DEADLINE_SECONDS)
            assert await store.list(AiModel) == []  # reading goes on
            other.execute("COMMIT")
        opus = await creating
        assert await store.list(AiModel) == [opus]
