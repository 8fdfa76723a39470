"""Read the files in which agent programs record their sessions. An agent can write any amount to them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from labrats.files.safe_paths import open_inside
from labrats.model.errors import GiveUp

MOST_BYTES: Final = 256 * 1024 * 1024
"""Largest file that is read. A sparse file can be larger without using space on the disk."""

_LINE_BYTES: Final = 16 * 1024 * 1024


def open_in_home(home: Path, path: Path) -> BinaryIO | None:
    """Open a file in the agent's home. Return None if it is missing, or if there is a link on the way to it."""
    try:
        return open_inside(home, str(path.relative_to(home)))
    except GiveUp:
        return None


def complete_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines that a program has added to the file, from the current position on.

    The position then is at the end of the last complete line. A line of more than 16 MiB is yielded in parts, so that
    memory is limited. Nothing is read of a file of more than 256 MiB.
    """
    if os.fstat(file.fileno()).st_size > MOST_BYTES:
        return
    while line := file.readline(_LINE_BYTES):
        if len(line) < _LINE_BYTES and not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line
