"""Reads files from folders that an agent can write to: what lies there under a known name may be no file at all.

A pipe would keep its reader waiting for ever, a link would have it read another file, and a huge one fill its memory.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe is opened without a wait
_NO_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO})  # what opening a link, or a socket, answers


class NotPlain(FileNotFoundError):
    """Something lies there, but no plain file; so what is looked for is not there."""


def open_plain(path: Path) -> int:
    """A descriptor to read the plain file `path` by. Raises NotPlain where it is anything else."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise NotPlain(error.errno, "not a plain file", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlain(errno.EINVAL, "not a plain file", str(path))
    return descriptor


def read_plain(path: Path, most_bytes: int) -> bytes:
    """The plain file `path`, or the beginning of a longer one. Raises NotPlain where it is anything else."""
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read(most_bytes)
