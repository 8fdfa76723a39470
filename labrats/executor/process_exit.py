"""Wait for the exit of a program, and end the processes that it leaves running."""

import os

from labrats.executor.subprocesses import Subprocess
from labrats.processes import has_child, kill_descendants


async def wait_for_exit(process: Subprocess) -> int:
    """Return the exit status, after killing processes that the program left running: they may keep its output open."""
    status = await process.exit_status()
    if has_child():
        kill_descendants(os.getpid())
    return status
