"""The disk of the data folder once it is full: the engine can store nothing."""

import errno
import os
from pathlib import Path
from typing import Final

from labrats.model.sizes import shown_size

FULL_BYTES: Final = 2 * 1024 * 1024
"""Free space below which a disk is full: the log of the database and one large request may take as much."""

FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

RETRY_SECONDS: Final = 60
"""Time after which a refused writer may try again."""


def problem_of_full_disk(folder: Path) -> str | None:
    """Return why the volume with `folder` takes no further data, as a sentence; None if it does."""
    try:
        volume = os.statvfs(folder)
    except OSError:
        return None  # other checks report a folder that cannot be read
    free, total = volume.f_bavail * volume.f_frsize, volume.f_blocks * volume.f_frsize
    if free < FULL_BYTES:
        return f"the disk with {folder} is full ({shown_size(free)} of {shown_size(total)} free); free some space on it"
    if volume.f_files and volume.f_favail == 0:
        return f"the disk with {folder} is full (no room for another file, {shown_size(free)} free); delete some files"
    return None
