"""Tests of starting, reading and ending programs."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from labrats.executor.subprocesses import LineReader, child_process, read_tail

READY = "import signal, sys, time; signal.signal(signal.SIGTERM, {}); print('ready', flush=True); time.sleep(300)"


def python(code: str) -> Sequence[str]:
    return [sys.executable, "-c", code]


def lines_of(*chunks: bytes) -> LineReader:
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    return LineReader(stream)


async def lines_from(*chunks: bytes) -> list[bytes]:
    return [line async for line in lines_of(*chunks)]


async def test_lines_are_joined_from_chunks() -> None:
    assert await lines_from(b"one\ntw", b"o\n", b"\nfo", b"ur") == [b"one", b"two", b"", b"four"]


async def test_line_of_megabytes_is_one_line() -> None:
    assert [len(line) for line in await lines_from(b"x" * 5_000_000 + b"\ny")] == [5_000_000, 1]


async def test_too_long_line_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labrats.executor.subprocesses._LINE_BYTES", 10)

    lines = lines_of(b"12345", b"678901\n", b"short\n", b"x" * 11)

    assert [line async for line in lines] == [b"short"]
    assert lines.has_skipped_lines


async def test_read_tail_returns_the_end_of_a_long_output() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(b"x" * 1_000_000 + b"the end")
    stream.feed_eof()

    tail = await read_tail(stream)

    assert len(tail) == 16 * 1024
    assert tail.endswith("the end")


@pytest.mark.parametrize(
    ("handler", "grace_seconds", "status"),
    [
        ("lambda *_: sys.exit(7)", 30.0, 7),
        ("signal.SIG_IGN", 0.05, -signal.SIGKILL),
        ("lambda *_: sys.exit(7)", 0.0, -signal.SIGKILL),
    ],
)
async def test_program_is_asked_to_end_and_then_killed_when_the_context_exits(
    tmp_path: Path, handler: str, grace_seconds: float, status: int
) -> None:
    async with child_process(
        python(READY.format(handler)), tmp_path, {"PATH": ""}, grace_seconds=grace_seconds
    ) as process:
        assert await process.output.readline() == b"ready\n"

    assert await process.exit_status() == status


async def test_program_that_has_exited_is_not_signalled(tmp_path: Path) -> None:
    async with child_process(python("print('done')"), tmp_path, {}) as process:
        assert await read_tail(process.output) == "done\n"
        assert await process.exit_status() == 0


async def test_exit_is_seen_although_a_child_keeps_the_output_open(tmp_path: Path) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '300']).pid)"
    async with child_process(python(code), tmp_path, {"PATH": os.defpath}) as process:
        child = int(await process.output.readline())
        status = await process.exit_status()
        os.kill(child, signal.SIGKILL)

    assert status == 0


async def test_missing_program_raises_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with child_process(["no-such-program"], tmp_path, {"PATH": ""}):
            pass
