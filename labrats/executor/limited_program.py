"""The limits of a program of the executor that handles untrusted input with native code.

The program is a module of the executor that calls `limit_this_process` first, and knows nothing about the attempt.
`subprocesses.output_of_limited` runs it.
"""

import ctypes
import resource
from typing import Final

CPU_SECONDS: Final = 10
MEMORY_BYTES: Final = 1024**3

_NAMESPACES: Final = 0x10000000 | 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET: a network namespace whose only interface is a loopback that is down."""


def limit_this_process() -> None:
    """Limit this process's CPU time and memory, and deny it file writes and, where the kernel allows, the network."""
    for limit, value in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    ctypes.CDLL(None).unshare(_NAMESPACES)  # may fail; a network policy may still apply
