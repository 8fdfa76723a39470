"""Rules of the kernel's Landlock for this process and its descendants, which they cannot remove.

https://docs.kernel.org/userspace-api/landlock.html
"""

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from labrats.libc import LIBC, Prctl, prctl, succeed

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION: Final = 1
_BENEATH_A_PATH: Final = 1
_FIRST_WITH_FILES: Final = 1
_FIRST_WITH_TRUNCATE: Final = 3
_FIRST_WITH_SCOPES: Final = 6

_ALL_ACCESS: Final = (1 << 13) - 1
"""All that the first version knows: to execute, read, write, create and remove files and folders."""
_TRUNCATE: Final = 1 << 14
_READ_FILE: Final = 1 << 0 | 1 << 2  # libraries are executed
_READ_FOLDER: Final = _READ_FILE | 1 << 3
_ABSTRACT_SOCKETS: Final = 1 << 0
_SIGNALS: Final = 1 << 1


def can_scope_sockets() -> bool:
    """Return whether the kernel can refuse connections to abstract Unix sockets (Linux 6.12)."""
    return _version() >= _FIRST_WITH_SCOPES


@cache
def scope_sockets() -> None:
    """Keep this process from connecting to abstract Unix sockets of other processes, once. Raises OSError.

    These sockets belong to the network namespace, which an agent shares with the machine. Does nothing on a kernel
    without this feature.
    """
    if can_scope_sockets():
        _restrict(scoped=_ABSTRACT_SOCKETS)


def refuse_files(readable: Iterable[Path]) -> None:
    """Refuse to open any file, except to read those at or below `readable`. Raises OSError.

    Files that are open stay so. Also refuses to empty files (Linux 6.2), and to connect to abstract Unix sockets of
    other processes and send them signals (Linux 6.12). Does nothing on a kernel without Landlock (Linux 5.13).
    """
    version = _version()
    if version >= _FIRST_WITH_FILES:
        files = _ALL_ACCESS | (_TRUNCATE if version >= _FIRST_WITH_TRUNCATE else 0)
        scoped = _ABSTRACT_SOCKETS | _SIGNALS if version >= _FIRST_WITH_SCOPES else 0
        _restrict(files=files, readable=readable, scoped=scoped)


def _version() -> int:
    """Return the kernel's version of Landlock; a negative number without it."""
    return int(LIBC.syscall(_CREATE_RULESET, None, 0, _GET_VERSION))


def _restrict(*, files: int = 0, readable: Iterable[Path] = (), scoped: int = 0) -> None:
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped. Earlier kernels know the first only.
    attributes = struct.pack("3Q", files, 0, scoped) if scoped else struct.pack("Q", files)
    rules = succeed("landlock_create_ruleset", LIBC.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for path in readable:
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                _allow_to_read(path, rules)
        prctl(Prctl.PR_SET_NO_NEW_PRIVS, 1)
        succeed("landlock_restrict_self", LIBC.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _allow_to_read(path: Path, rules: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        # struct landlock_path_beneath_attr
        rule = struct.pack("=Qi", _READ_FOLDER if path.is_dir() else _READ_FILE, descriptor)
        succeed("landlock_add_rule", LIBC.syscall(_ADD_RULE, rules, _BENEATH_A_PATH, rule, 0))
    finally:
        os.close(descriptor)
