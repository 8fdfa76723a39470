"""The C library, for system calls that Python does not offer."""

import ctypes
from enum import IntEnum
from typing import Final

LIBC: Final = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
"""The kernel's flags for a new namespace of mounts, of users, and of the network."""

_MOST_VALUES: Final = 4
"""The arguments of `prctl` besides the option."""


class Prctl(IntEnum):
    """Options of `prctl`, with their names in linux/prctl.h."""

    PR_SET_DUMPABLE = 4
    PR_SET_NAME = 15
    PR_SET_SECCOMP = 22
    PR_SET_CHILD_SUBREAPER = 36
    PR_SET_NO_NEW_PRIVS = 38


def succeed(call: str, result: int) -> int:
    """Return the result of a call of LIBC, which is named `call`. Raises OSError if it is negative."""
    if result < 0:
        raise OSError(ctypes.get_errno(), call)
    return result


def prctl(option: Prctl, *values: int | bytes) -> None:
    """Set an attribute of this thread or process. Raises OSError."""
    unused = [0] * (_MOST_VALUES - len(values))  # the kernel requires zeros for some options
    succeed(f"prctl({option.name})", LIBC.prctl(option.value, *values, *unused))


def unshare_user(flags: int) -> None:
    """Put this process into a new namespace of users, and into others by `flags`. Raises OSError.

    The kernel makes the process undumpable, so that its files in /proc belong to root. This function reverts that.
    """
    succeed("unshare", LIBC.unshare(CLONE_NEWUSER | flags))
    prctl(Prctl.PR_SET_DUMPABLE, 1)
