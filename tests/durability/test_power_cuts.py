"""Acknowledged writes are on stable storage."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from pathlib import Path

import apsw
import pytest

from labrats.backends.embedded.database import open_for_reading, open_for_writing
from labrats.backends.embedded.feed import Feed
from labrats.backends.embedded.store import EmbeddedStore
from labrats.backends.embedded.writer import GroupCommit
from labrats.model.errors import RetryLater
from labrats.ports import SystemClock
from tests.durability.disk import Call, Disk
from tests.durability.ledger import Ledger, a_secret, write_until_failure
from tests.support.random_seed import SEED

CUTS = int(os.environ.get("LABRATS_POWER_CUTS", "100"))
CUTS_IN_A_ROW = 10

OpenStore = Callable[[Path], AbstractAsyncContextManager[EmbeddedStore]]


@pytest.mark.parametrize("seed", range(SEED, SEED + CUTS // CUTS_IN_A_ROW))
async def test_a_power_cut_loses_no_acknowledged_write(
    disk: Disk, tmp_path: Path, counters: Counter[str], seed: int
) -> None:
    path, ledger, chance = tmp_path / "labrats.db", Ledger(), random.Random(seed)
    for _ in range(CUTS_IN_A_ROW):
        await write_until_power_cut(EmbeddedStore.open, path, disk, ledger, chance)
        assert await losses(path, ledger) == []
        counters["power cuts"] += 1
    counters["acknowledged writes"] += ledger.acknowledgements


@pytest.mark.parametrize("seed", [SEED])
async def test_a_power_cut_loses_unsynced_writes(disk: Disk, tmp_path: Path, seed: int) -> None:
    """Checks the test above: it detects a store that does not sync its commits."""
    path, ledger, chance = tmp_path / "labrats.db", Ledger(), random.Random(seed)
    lost: list[str] = []
    for _ in range(10 * CUTS_IN_A_ROW):  # ten in a row may lose nothing
        await write_until_power_cut(open_without_syncing_commits, path, disk, ledger, chance)
        lost += await losses(path, ledger)
        if lost:
            break
    assert lost


@pytest.mark.parametrize("seed", [SEED])
async def test_a_power_cut_after_a_failed_sync_loses_no_acknowledged_write(
    disk: Disk, tmp_path: Path, seed: int
) -> None:
    path, ledger, chance = tmp_path / "labrats.db", Ledger(), random.Random(seed)
    for _ in range(CUTS_IN_A_ROW):
        with suppress(apsw.IOError):  # closing without power
            async with EmbeddedStore.open(path) as store:
                with disk.failing(Call.SYNC, apsw.IOError):
                    await write_until_failure(store, ledger, chance.randrange(1_000_000))
                assert await ledger.losses(store) == []
                disk.cut_power_after(chance.randrange(40), seed=chance.randrange(1_000_000))
                await write_until_failure(store, ledger, chance.randrange(1_000_000))
        disk.power_on()
        assert await losses(path, ledger) == []


async def test_writers_share_syncs(disk: Disk, tmp_path: Path) -> None:
    async with EmbeddedStore.open(tmp_path / "labrats.db") as store:
        syncs_before = disk.syncs
        await asyncio.gather(*(store.create(a_secret(f"secret-{n}")) for n in range(64)))
        assert disk.syncs - syncs_before < 10


async def write_until_power_cut(
    open_store: OpenStore, path: Path, disk: Disk, ledger: Ledger, chance: random.Random
) -> None:
    """Open the store and write until the power fails at a random time, then restore the power."""
    disk.cut_power_after(chance.randrange(300), seed=chance.randrange(1_000_000))
    with suppress(RetryLater, apsw.IOError):  # the power may fail during the opening, and is off on closing
        async with open_store(path) as store:
            await write_until_failure(store, ledger, seed=chance.randrange(1_000_000))
    disk.power_on()


async def losses(path: Path, ledger: Ledger) -> list[str]:
    """Describe each lost write, and any corruption of the database."""
    async with EmbeddedStore.open(path) as store:
        lost = await ledger.losses(store)
    with closing(open_for_writing(path)) as connection:
        verdict = connection.pragma("integrity_check")
    return lost if verdict == "ok" else [*lost, verdict]


@asynccontextmanager
async def open_without_syncing_commits(path: Path) -> AsyncIterator[EmbeddedStore]:
    """Open a faulty store: with synchronous=NORMAL, SQLite syncs only at checkpoints."""
    with closing(open_for_writing(path)) as writer, closing(open_for_reading(path)) as reader:
        writer.pragma("synchronous", "normal")
        feed = Feed()
        commits = GroupCommit(writer, SystemClock(), feed.publish)
        try:
            yield EmbeddedStore(reader, commits, feed)
        finally:
            await commits.close()
