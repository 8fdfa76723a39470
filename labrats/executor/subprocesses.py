"""Start programs for an attempt, read their output, and end them.

asyncio's own subprocesses are not used: their wait() may also wait for the end of the output, which a program's
children can keep open long after the program has exited.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Final, Self

from labrats.executor.leftovers import wait_until_killed
from labrats.processes import children, send_signal

_READ_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 16 * 1024
_LINE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True)
class Subprocess:
    """A started program. output: its standard output."""

    output: asyncio.StreamReader
    _exited: asyncio.Future[int]
    _process: "subprocess.Popen[bytes]"
    _in_sandbox: bool

    def interrupt(self) -> None:
        """Ask the program to end with SIGINT. Its remaining output can still be read."""
        _signal(self._process, signal.SIGINT, in_sandbox=self._in_sandbox)

    def kill(self) -> None:
        """Kill the program, with its sandbox if it has one. Has no effect on a program of another user."""
        _send_signal(self._process, signal.SIGKILL)

    async def exit_status(self) -> int:
        """Wait for the program to exit. Return its status, negative for a signal."""
        return await asyncio.shield(self._exited)


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
    enter: Callable[[], None] | None = None,
) -> AsyncIterator[Subprocess]:
    """Start a program in its own process group, and end it when the context exits.

    The program is killed, or first asked to end with `stop_signal` if `grace_seconds` is positive. It may survive, see
    `leftovers`, and its descendants may until the attempt ends. Raises OSError if the program cannot be started.

    inherited:  further file descriptors that the program inherits.
    in_sandbox: True if `command` runs bubblewrap; signals are then sent to the program inside.
    enter:      called in the new process before it executes the program. Raises SubprocessError if it fails.
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
        preexec_fn=enter,
    )
    exited = _watch_exit(process)
    output = asyncio.StreamReader(limit=_READ_BYTES)
    try:
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), process.stdout
        )
        with contextlib.closing(pipe):
            yield Subprocess(output, exited, process, in_sandbox)
    finally:
        if not exited.done() and grace_seconds > 0:
            _signal(process, stop_signal, in_sandbox=in_sandbox)
            await asyncio.wait([exited], timeout=grace_seconds)
        if not exited.done():
            _send_signal(process, signal.SIGKILL)
            await wait_until_killed(process.pid, exited)


async def read_tail(stream: asyncio.StreamReader) -> str:
    """Read `stream` to its end, and return its last 16 KiB."""
    tail = b""
    while chunk := await stream.read(_READ_BYTES):
        tail = (tail + chunk)[-_TAIL_BYTES:]
    return tail.decode(errors="replace")


class LineReader:
    """An asynchronous iterator over the lines of a stream, without their ends.

    It can be resumed after an interruption, such as a timeout, without losing a line. Lines of more than 64 MiB are
    skipped; `has_skipped_lines` is then True.
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
        if self._ready:
            await asyncio.sleep(0)  # very many lines must not keep the time limit from taking effect
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


def _watch_exit(process: "subprocess.Popen[bytes]") -> "asyncio.Future[int]":
    """Return a future for the exit status of the process."""
    loop = asyncio.get_running_loop()
    exited = loop.create_future()
    pidfd = os.pidfd_open(process.pid)

    def collect() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        exited.set_result(process.wait())

    loop.add_reader(pidfd, collect)
    return exited


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals, *, in_sandbox: bool) -> None:
    """Send a signal to the program if it is still running.

    In a sandbox the program is the child of bubblewrap's child. A signal to bubblewrap itself would kill the program.
    """
    if not in_sandbox:
        _send_signal(process, number)
        return
    for init in children(process.pid):
        for program in children(init):
            send_signal(program, number)


def _send_signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(PermissionError):  # the program has changed to another user, like sudo
        process.send_signal(number)
