"""Wait for the exit of a program, and end the processes that it leaves running."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from labrats.executor.leftovers import LeftRunning, kill_leftovers, nothing_left_running, survivors
from labrats.executor.subprocesses import Subprocess
from labrats.model.job import FailedCode
from labrats.processes import describe_exit

_SIGNAL_OFFSET: Final = 128
"""Added to the number of a signal in the exit status of bubblewrap, as of a shell."""


@asynccontextmanager
async def run_to_end(
    program: AbstractAsyncContextManager[Subprocess], code: FailedCode
) -> AsyncIterator[tuple[Subprocess, asyncio.Task[int]]]:
    """Start a program. Yield it, and a task that returns its exit status.

    After the exit of the program, the processes that it has left running are killed, since they may keep its output
    open. When the context exits, every descendant of this process is killed. If a process survives, LeftRunning is
    raised with `code`: at once by the task and by a reader of the output, and otherwise at the exit of the context. It
    is also raised, and the program is not started, if a process has survived before. Raises OSError if the program
    cannot be started.

    program: a `child_process`.
    """
    if left := survivors():
        raise LeftRunning(code, left)
    async with nothing_left_running(code), program as process:
        exited = asyncio.create_task(_exit_status(process, code))
        exited.add_done_callback(_mark_as_seen)
        try:
            yield process, exited
        finally:
            exited.cancel()


async def _exit_status(process: Subprocess, code: FailedCode) -> int:
    status = await process.exit_status()
    if left := await kill_leftovers():
        failure = LeftRunning(code, left)
        process.output.set_exception(failure)  # the process may keep it open for as long as it likes
        raise failure
    return status


def _mark_as_seen(exited: asyncio.Task[int]) -> None:
    """Prevent a warning about a failure that the reader of the output has raised already."""
    if not exited.cancelled():
        exited.exception()


def describe_status(status: int) -> str:
    """Describe an exit status for people. A negative one is that of a signal, and in the sandbox a large one."""
    number = -status if status < 0 else status - _SIGNAL_OFFSET
    is_signal = status < 0 or number in signal.valid_signals()
    return describe_exit("signal", number) if is_signal else describe_exit("exit", status)
