"""The limits of a program of the executor that handles untrusted input with native code.

The program is a module of the executor that calls `limit_this_process` first, and knows nothing about the attempt.
`subprocesses.output_of_limited` runs it.
"""

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

CPU_SECONDS: Final = 10
MEMORY_BYTES: Final = 1024**3

_NAMESPACES: Final = 0x10000000 | 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET: a network namespace whose only interface is a loopback that is down."""

_SYSTEM: Final = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/nix/store", "/gnu/store")

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_BENEATH_A_PATH: Final = 1
_ALL_ACCESS: Final = (1 << 13) - 1
"""All that Landlock's first version knows: to execute, read, write, create and remove files and folders."""

_TRUNCATE: Final = 1 << 14
_SIGNALS: Final = 1 << 1
_GET_VERSION: Final = 1
_FIRST_WITH_TRUNCATE: Final = 3
_FIRST_WITH_SCOPES: Final = 6

_READ_FILE: Final = 1 << 0 | 1 << 2  # libraries are executed
_READ_FOLDER: Final = _READ_FILE | 1 << 3
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
_libc: Final = ctypes.CDLL(None, use_errno=True)


def limit_this_process(*readable: Path) -> None:
    """Limit this process's CPU time and memory, and deny it file writes and, where the kernel allows, the network.

    With Landlock (Linux 5.13), it can read only the system's and Python's libraries, and the files in `readable`. It
    cannot empty files (Linux 6.2), nor send signals to other processes (Linux 6.12).
    """
    for limit, value in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if _libc.unshare(_NAMESPACES) == 0:  # may fail; a network policy may still apply
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else it hides its files, see MachineShares
    _deny_other_files([*map(Path, (*_SYSTEM, sys.base_prefix, sys.prefix, *sys.path)), *readable])


def _deny_other_files(readable: Iterable[Path]) -> None:
    """Deny all access to files except to read those at or below `readable`. Does nothing without Landlock."""
    version = _libc.syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    access_to_files = _ALL_ACCESS | (_TRUNCATE if version >= _FIRST_WITH_TRUNCATE else 0)
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped
    scoped = (0, _SIGNALS) if version >= _FIRST_WITH_SCOPES else ()
    attributes = struct.pack(f"{1 + len(scoped)}Q", access_to_files, *scoped)
    if (rules := _libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)) < 0:
        return
    for path in readable:
        with suppress(OSError):  # it does not exist
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            access = _READ_FOLDER if path.is_dir() else _READ_FILE
            _libc.syscall(_ADD_RULE, rules, _BENEATH_A_PATH, struct.pack("=Qi", access, descriptor), 0)
            os.close(descriptor)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _libc.syscall(_RESTRICT_SELF, rules, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(rules)
