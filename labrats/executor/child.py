"""Starts programs for an attempt, and ends them."""

import asyncio
import contextlib
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

GRACE_SECONDS: Final = 3.0
_READ_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 16 * 1024


@contextlib.asynccontextmanager
async def child_process(
    command: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    *,
    stdin: IO[bytes] | int = DEVNULL,
    stderr: int = PIPE,
) -> AsyncIterator[Process]:
    """A process with its output piped. On leaving it has ended: asked to by SIGTERM, killed after a grace.

    What it started itself may live on, until the attempt's end sweeps it away. Raises OSError when it cannot start.
    """
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdin=stdin, stdout=PIPE, stderr=stderr
    )
    try:
        yield process
    finally:
        await _end(process)


async def tail_of(stream: asyncio.StreamReader | None) -> str:
    """Read a piped `stream` to its end, and return its last 16 KiB."""
    assert stream is not None
    tail = b""
    while chunk := await stream.read(_READ_BYTES):
        tail = (tail + chunk)[-_TAIL_BYTES:]
    return tail.decode(errors="replace")


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
