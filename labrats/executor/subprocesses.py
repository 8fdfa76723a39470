"""Starts programs for an attempt, reads what they print, and ends them.

Not asyncio's own subprocesses: their wait() may also wait for the end of the output, which a program's own children can
hold open long after it has ended itself.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Final, Self

from labrats.processes import children, send_signal

_READ_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 16 * 1024
_LINE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Subprocess:
    """A program that was started. `output` is what it prints."""

    output: asyncio.StreamReader
    _ended: asyncio.Future[int]
    _process: "subprocess.Popen[bytes]"
    _in_sandbox: bool

    def interrupt(self) -> None:
        """Ask it by SIGINT to end. What it still says can be read."""
        _signal(self._process, signal.SIGINT, in_sandbox=self._in_sandbox)

    def kill(self) -> None:
        """End it at once, and what is in its sandbox."""
        self._process.kill()

    async def exit_status(self) -> int:
        """Wait until it has ended. Negative for a signal."""
        return await asyncio.shield(self._ended)


@contextlib.asynccontextmanager
async def child_process(
    command: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    *,
    stdin: IO[bytes] | int = DEVNULL,
    stderr: IO[bytes] | int = DEVNULL,
    grace_seconds: float = 0.0,
    stop_signal: signal.Signals = signal.SIGTERM,
    inherited: Collection[int] = (),
    in_sandbox: bool = False,
) -> AsyncIterator[Subprocess]:
    """Start a program, in a process group of its own. On leaving it has ended: asked to by `stop_signal` where it has
    a grace, or killed.

    inherited: file descriptors that it finds open too. in_sandbox: whether the command is bubblewrap's, so that signals
    are for the program in it. What it started itself may live on, until the attempt's end
    sweeps it away. Raises OSError when it cannot start.
    """
    process = subprocess.Popen(  # noqa: ASYNC220 - a vfork, which takes less than a millisecond
        command,
        cwd=cwd,
        env=environment,
        stdin=stdin,
        stdout=PIPE,
        stderr=stderr,
        pass_fds=inherited,
        process_group=0,
    )
    ended = _end_of(process)
    output = asyncio.StreamReader(limit=_READ_BYTES)
    try:
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), process.stdout
        )
        with contextlib.closing(pipe):
            yield Subprocess(output, ended, process, in_sandbox)
    finally:
        if not ended.done() and grace_seconds > 0:
            _signal(process, stop_signal, in_sandbox=in_sandbox)
            await asyncio.wait([ended], timeout=grace_seconds)
        if not ended.done():
            process.kill()
            await asyncio.shield(ended)


async def read_tail(stream: asyncio.StreamReader) -> str:
    """Read `stream` to its end, and return its last 16 KiB."""
    tail = b""
    while chunk := await stream.read(_READ_BYTES):
        tail = (tail + chunk)[-_TAIL_BYTES:]
    return tail.decode(errors="replace")


class LineReader:
    """The lines of a stream, each without its end, however long; those beyond 64 MiB are left out: see `has_skipped_lines`.

    An iterator that can be resumed after an interruption, such as a timeout, without losing a line.
    """

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._ready: deque[bytes] = deque()
        self._started: list[bytes] = []
        self._size = 0
        self.has_skipped_lines = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            if chunk := await self._stream.read(_READ_BYTES):
                self._take(chunk)
            elif self._size == 0:
                raise StopAsyncIteration
            else:
                self._end_line()
        return self._ready.popleft()

    def _take(self, chunk: bytes) -> None:
        first, *rest = chunk.split(b"\n")
        self._add(first)
        for beginning in rest:
            self._end_line()
            self._add(beginning)

    def _add(self, piece: bytes) -> None:
        self._started.append(piece)
        self._size += len(piece)
        if self._size > _LINE_BYTES:
            self._started.clear()

    def _end_line(self) -> None:
        if self._size <= _LINE_BYTES:
            self._ready.append(b"".join(self._started))
        else:
            self.has_skipped_lines = True
        self._started, self._size = [], 0


def _end_of(process: "subprocess.Popen[bytes]") -> "asyncio.Future[int]":
    """Its exit status, as soon as it ends."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    pidfd = os.pidfd_open(process.pid)

    def collect() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        ended.set_result(process.wait())

    loop.add_reader(pidfd, collect)
    return ended


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals, *, in_sandbox: bool) -> None:
    """Send a signal to the program, if it still runs.

    In a sandbox it is the child of bubblewrap's child. A signal to bubblewrap would kill it at once.
    """
    if not in_sandbox:
        process.send_signal(number)
        return
    for init in children(process.pid):
        for program in children(init):
            send_signal(program, number)
