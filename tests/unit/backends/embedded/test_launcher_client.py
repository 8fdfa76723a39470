"""The engine's client of the launcher, with real launchers."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from labrats.backends.embedded.launcher_client import MOST_FAILED_STARTS, LauncherClient
from labrats.model.errors import GiveUp, RetryLater
from labrats.processes import children

LARGE = tuple(f"test-secret-{number:048}" for number in range(200))
"""Values to redact that fill the buffer of the socket after some 20 requests."""


async def test_many_large_requests_at_once_are_answered_in_order(tmp_path: Path) -> None:
    client = LauncherClient(lambda folder, executor: False)
    folders = [tmp_path / f"ir-{number:08x}-1" for number in range(60)]
    for folder in folders:
        folder.mkdir()
        (folder / "claim").write_text("never started\n")  # the executors exit at once
    try:
        with capture_logs() as entries:
            pids = await asyncio.gather(*(client.fork(str(folder), LARGE) for folder in folders))
    finally:
        client.close()
    assert len(set(pids)) == len(folders)
    assert entries == []


async def test_requests_to_a_launcher_that_dies_fail_and_the_next_one_gets_a_new_launcher(
    tmp_path: Path,
) -> None:
    client = LauncherClient(lambda folder, executor: False)
    (tmp_path / "claim").write_text("never started\n")
    try:
        assert await client.fork(str(tmp_path))
        assert client._process
        client._process.kill()
        answers = await asyncio.gather(*(client.fork(str(tmp_path), LARGE) for _ in range(60)), return_exceptions=True)
        assert any(isinstance(answer, RetryLater) for answer in answers)
        assert all(isinstance(answer, RetryLater | int) for answer in answers)
        assert await client.fork(str(tmp_path))
    finally:
        client.close()


async def test_launchers_that_die_leave_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of an installation with a missing module, of which the engine tries to start one for each job."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    client = LauncherClient(lambda folder, executor: False)
    before = set(children(os.getpid()))
    try:
        for number in range(5):
            with pytest.raises(RetryLater if number + 1 < MOST_FAILED_STARTS else GiveUp):
                await client.fork(str(tmp_path))
            await asyncio.to_thread(wait_for_zombies, before)
        assert len(set(children(os.getpid())) - before) <= 1
    finally:
        client.close()


async def test_launcher_that_starts_again_ends_the_count_of_failed_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = LauncherClient(lambda folder, executor: False)
    (tmp_path / "claim").write_text("never started\n")
    try:
        for _ in range(2):
            monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
            for _ in range(MOST_FAILED_STARTS - 1):
                with pytest.raises(RetryLater, match="no-python: No such file or directory"):
                    await client.fork(str(tmp_path))
            monkeypatch.undo()
            assert await client.fork(str(tmp_path))
            client._abandon("test")
    finally:
        client.close()


def wait_for_zombies(before: set[int]) -> None:
    """Wait until all new children have ended, without taking note of it."""
    for pid in set(children(os.getpid())) - before:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
