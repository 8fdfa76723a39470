"""The engine's client of the launcher, with real launchers."""

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from labrats.backends.embedded.launcher_client import LauncherClient
from labrats.model.errors import RetryLater

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
