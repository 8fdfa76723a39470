"""Wait for the exit of a program, and end the processes that it leaves running."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import STDOUT
from typing import Final

from labrats.executor.subprocesses import Subprocess, child_process
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.processes import describe_exit, has_child, kill_descendants

_KILL_SECONDS: Final = 15.0
"""Time for processes to end, of which an agent can leave many. One that waits for a disk ends when the disk answers."""

_SIGNAL_OFFSET: Final = 128
"""Added to the number of a signal in the exit status of bubblewrap, as of a shell."""


@asynccontextmanager
async def run_to_end(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], enter: Callable[[], None] | None = None
) -> AsyncIterator[tuple[Subprocess, asyncio.Task[int]]]:
    """Start a program, with its errors in its output. Yield it, and a task that returns its exit status.

    When the context exits, every descendant of this process is killed: processes that the program has left running
    would continue unnoticed. Raises OSError if the program cannot be started, and GiveUp if a process cannot be killed.

    enter: see `child_process`.
    """
    async with child_process(command, cwd, environment, stderr=STDOUT, enter=enter) as process:
        exited = asyncio.create_task(wait_for_exit(process))
        try:
            yield process, exited
        finally:
            exited.cancel()
            _kill_descendants()


async def wait_for_exit(process: Subprocess) -> int:
    """Return the exit status, after killing processes that the program left running: they may keep its output open.

    Raises GiveUp if one cannot be killed.
    """
    status = await process.exit_status()
    if has_child():
        _kill_descendants()
    return status


def _kill_descendants() -> None:
    if not kill_descendants(os.getpid(), seconds=_KILL_SECONDS):
        # It could still exchange files that the executor reads and writes later.
        raise GiveUp(FailedCode.INTERNAL, "a process that a program has left running could not be killed")


def describe_status(status: int) -> str:
    """Describe an exit status for people. A negative one is that of a signal, and in the sandbox a large one."""
    number = -status if status < 0 else status - _SIGNAL_OFFSET
    is_signal = status < 0 or number in signal.valid_signals()
    return describe_exit("signal", number) if is_signal else describe_exit("exit", status)
