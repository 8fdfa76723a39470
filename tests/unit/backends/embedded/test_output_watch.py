"""Readers of outputs are woken by writes only."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from labrats.backends.embedded.output_watch import PAUSE_SECONDS, OutputWatch
from tests.support.waiting import DEADLINE_SECONDS


@pytest.fixture
async def watch() -> AsyncIterator[OutputWatch]:
    watch = OutputWatch()
    yield watch
    watch.close()


async def test_a_write_wakes_every_reader(watch: OutputWatch, tmp_path: Path) -> None:
    with watch.changes_in(tmp_path) as one, watch.changes_in(tmp_path) as other:
        waiting = [asyncio.create_task(changes.wait()) for changes in (one, other)]
        await asyncio.sleep(0)
        (tmp_path / "output.jsonl").write_text("a line\n")
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            await asyncio.gather(*waiting)


async def test_a_write_before_the_wait_is_not_missed(watch: OutputWatch, tmp_path: Path) -> None:
    with watch.changes_in(tmp_path) as changes:
        (tmp_path / "output.jsonl").write_text("a line\n")
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            await changes.wait()


async def test_a_folder_that_appears_later_is_watched(watch: OutputWatch, tmp_path: Path) -> None:
    folder = tmp_path / "attempt"
    with watch.changes_in(folder) as changes:
        await changes.wait()  # a poll, since nothing can be watched yet
        folder.mkdir()
        await changes.wait()
        waiting = asyncio.create_task(changes.wait())
        await asyncio.sleep(0)
        (folder / "output.jsonl").write_text("a line\n")
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            await waiting


async def test_writes_during_the_pause_cause_one_more_wake_up(watch: OutputWatch, tmp_path: Path) -> None:
    output = tmp_path / "output.jsonl"
    with watch.changes_in(tmp_path) as changes:
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            for _ in range(3):
                with output.open("a") as file:
                    file.write("a line\n")
                await changes.wait()


async def test_single_write_wakes_a_reader_once(watch: OutputWatch, tmp_path: Path) -> None:
    with watch.changes_in(tmp_path) as changes:
        descriptor = os.open(tmp_path / "output.jsonl", os.O_WRONLY | os.O_CREAT)
        os.close(descriptor)  # an event without a further one
        await changes.wait()
        await asyncio.sleep(2 * PAUSE_SECONDS)
        assert not changes.event.is_set()


async def test_lost_events_wake_the_readers_of_every_folder(watch: OutputWatch, tmp_path: Path) -> None:
    (tmp_path / "noisy").mkdir()
    (tmp_path / "quiet").mkdir()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with watch.changes_in(tmp_path / "noisy"), watch.changes_in(tmp_path / "quiet") as quiet:
        with (tmp_path / "noisy" / "one").open("wb", 0) as one, (tmp_path / "noisy" / "other").open("wb", 0) as other:
            for _ in range(limit // 2 + 1):  # the kernel merges only equal events
                one.write(b"x")
                other.write(b"x")
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            await quiet.wait()


async def test_readers_of_a_removed_folder_are_woken(watch: OutputWatch, tmp_path: Path) -> None:
    folder = tmp_path / "attempt"
    folder.mkdir()
    with watch.changes_in(folder) as changes:
        folder.rmdir()
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            await changes.wait()


async def test_readers_are_woken_when_the_watch_closes(tmp_path: Path) -> None:
    watch = OutputWatch()
    with watch.changes_in(tmp_path) as changes:
        watch.close()
        async with asyncio.timeout(DEADLINE_SECONDS / 2):
            await changes.wait()


async def test_readers_of_another_folder_are_not_woken(watch: OutputWatch, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    with watch.changes_in(tmp_path / "one") as one, watch.changes_in(tmp_path / "other") as other:
        (tmp_path / "one" / "output.jsonl").write_text("a line\n")
        await one.wait()
        assert not other.event.is_set()


async def test_nothing_stays_open_without_readers(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    watch = OutputWatch()
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        with watch.changes_in(tmp_path / str(number)):
            pass
    watch.close()
    assert len(os.listdir("/proc/self/fd")) == before
