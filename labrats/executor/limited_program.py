"""The limits of a program of the executor that handles untrusted input with native code.

The program is a module of the executor that calls `limit_this_process` first, and knows nothing about the attempt.
`limited_subprocess.output_of_limited` runs it.
"""

import resource
from contextlib import suppress
from typing import Final

from labrats.libc import CLONE_NEWNET, unshare_user
from labrats.sandbox.bubblewrap import refuse_core_dumps

CPU_SECONDS: Final = 10
MEMORY_BYTES: Final = 1024**3


def limit_this_process() -> None:
    """Limit this process's CPU time and memory, and deny it file writes and, where the kernel allows, the network.

    The attempt's sandbox limits the files that it can open.
    """
    for limit, value in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),  # also no core dump
    ):
        resource.setrlimit(limit, (value, value))
    refuse_core_dumps()
    with suppress(OSError):  # a network policy may still apply
        unshare_user(CLONE_NEWNET)  # the only interface of the new network is a loopback that is down
