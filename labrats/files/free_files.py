"""The number of files that a volume has room for, which is another limit than its space.

Ext4 reserves room for a number of files when it is created. Other file systems, such as Btrfs, have no such limit.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KEPT_SHARE: Final = 0.05
_MOST_KEPT: Final = 65_536
"""Ext4 reserves room for as many files in each GiB."""


@dataclass(frozen=True)
class FileRoom:
    """The number of files that a volume has room for. total: with the existing ones; 0 without a limit."""

    total: int
    free: int

    @property
    def kept(self) -> int:
        """The number of files for which room is kept free."""
        return min(int(self.total * _KEPT_SHARE), _MOST_KEPT)

    @property
    def missing(self) -> int:
        """The number of files for which there should be room and is none."""
        return max(self.kept - self.free, 0)


def file_room(folder: Path) -> FileRoom:
    """Return how many files the volume with `folder` has room for."""
    volume = os.statvfs(folder)
    return FileRoom(volume.f_files, volume.f_favail)
