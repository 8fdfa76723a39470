"""The limits of a program of the executor that handles untrusted input with native code.

The program is a module of the executor that calls `limit_this_process` first, and knows nothing about the attempt.
`limited_subprocess.output_of_limited` runs it.
"""

import ctypes
import resource
import sys
from pathlib import Path
from typing import Final

from labrats.landlock import refuse_files
from labrats.sandbox import refuse_core_dumps

CPU_SECONDS: Final = 10
MEMORY_BYTES: Final = 1024**3

_NAMESPACES: Final = 0x10000000 | 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET: a network namespace whose only interface is a loopback that is down."""

_LIBRARIES: Final = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store", "/gnu/store")

_PR_SET_DUMPABLE: Final = 4
_libc: Final = ctypes.CDLL(None, use_errno=True)


def limit_this_process() -> None:
    """Limit this process's CPU time and memory, and deny it file writes and, where the kernel allows, the network.

    It can open only the system's and Python's libraries; see `refuse_files`.
    """
    for limit, value in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),  # also no core dump
    ):
        resource.setrlimit(limit, (value, value))
    refuse_core_dumps()
    if _libc.unshare(_NAMESPACES) == 0:  # may fail; a network policy may still apply
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else it hides its files, see MachineShares
    refuse_files(map(Path, (*_LIBRARIES, sys.base_prefix, sys.prefix, *sys.path)))
