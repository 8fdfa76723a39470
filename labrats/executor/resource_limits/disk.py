"""Measure what an attempt takes on the disk, and end one that may have filled it."""

import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from labrats.executor.resource_limits.open_descriptors import UnlinkedFile, unlinked_files
from labrats.executor.resource_limits.standstill import Standstill
from labrats.files.free_files import file_room
from labrats.files.trees import ENTRY_BYTES, remove_tree, sizes_on_disk
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from labrats.model.sizes import shown_size
from labrats.processes import descendants
from labrats.sandbox.bubblewrap import TEMPORARY

_MAPPED_EVERY: Final = 5
"""Measurements for each search of files that are only mapped, which takes about 1 µs for each mapping."""

_SHARE: Final = 0.1
_LARGE_BYTES: Final = 2**30
"""Share of a nearly full disk, and size on a full one, beyond which an attempt may have filled it."""


class DiskMeter:
    """Measures what the folders of an attempt take on the disk, with its unlinked files.

    stopped: ends a measurement. is_filled: whether the attempt may have filled the disk.
    """

    def __init__(self, folders: Sequence[Path], limits: ResourceLimits, stopped: threading.Event) -> None:
        self.is_filled = False
        self._folders, self._limits, self._stopped = folders, limits, stopped
        self._standstill = Standstill()
        self._measurements = 0
        self._least_others = math.inf

    def excess(self) -> GiveUp | None:
        """Return the end of an attempt that exceeds its limit."""
        limit = self._limits.disk_bytes
        assert limit is not None
        used = self._usage(limit, mapped=self._measurements % _MAPPED_EVERY == 0)
        self._measurements += 1
        if used <= limit and self._growth_of_others(used) > limit - used:
            used = self._standstill.measured(lambda: self._usage(limit, mapped=True)) or used
        if used <= limit:
            return None
        return GiveUp(
            FailedCode.DISK_LIMIT,
            f"the workspace, with the agent's home and temporary files, took at least {shown_size(used)}, over "
            f"{self._limits.disk_setting} ({shown_size(limit)}): raise the limit, or let the agent write less",
        )

    def _growth_of_others(self, used: int) -> float:
        """Return by how much the rest of the disks has grown since it was smallest. The attempt may have hidden that.

        used: what was found of the attempt.
        """
        disks = {os.stat(folder).st_dev: folder for folder in self._folders if folder.exists()}
        others = sum(shutil.disk_usage(folder).used for folder in disks.values()) - used
        self._least_others = min(self._least_others, others)
        return others - self._least_others

    def excess_on_full_disk(self) -> GiveUp | None:
        """Return the end of an attempt that may have filled the disk, if this is nearly full, also of files.

        The engine frees space by deleting what other jobs have left. A single agent must not make it delete all that.
        """
        kept, folder = self._limits.kept_free_bytes, next(filter(Path.exists, self._folders), None)
        if not (kept and folder):
            return None

        def found() -> str | None:
            return self._excess_of_bytes(folder, kept) or self._excess_of_files(folder)

        is_nearly_full = shutil.disk_usage(folder).free < kept or file_room(folder).missing > 0
        if not is_nearly_full or (excess := found() or self._standstill.measured(found)) is None:
            return None
        self.is_filled = True
        return GiveUp(
            FailedCode.DISK_LIMIT,
            f"the disk was nearly full, and {excess}. What it wrote was deleted: free some space, or let the agent "
            "write less",
        )

    def remove_folders(self) -> None:
        """Remove the folders of an attempt that has filled the disk: the engine could not record its end otherwise."""
        for folder in self._folders:
            remove_tree(folder)

    def _excess_of_bytes(self, folder: Path, kept: int) -> str | None:
        disk = shutil.disk_usage(folder)
        if (most := _most_on_full_disk(disk.total, disk.free, kept, _LARGE_BYTES)) is None:
            return None
        if (taken := self._usage(most, mapped=True)) > most:
            return f"the attempt took at least {shown_size(taken)} of it"
        if disk.free < kept / 2 and any(file.size is None for file in self._unlinked_files(mapped=True)):
            return "the attempt had mapped deleted files, whose size the engine's user cannot read"
        return None

    def _excess_of_files(self, folder: Path) -> str | None:
        room = file_room(folder)
        if (most := _most_on_full_disk(room.total, room.free, room.kept, room.kept)) is None:
            return None
        taken = self._usage(most, mapped=True, each=lambda size: int(size >= ENTRY_BYTES))
        if taken <= most:
            return None
        return f"the attempt had at least {taken} files, when there was room for only {room.free} more"

    def _usage(self, enough: int, *, mapped: bool, each: Callable[[int], int] = lambda size: size) -> int:
        """Return the bytes of the folders on the disk, or more than `enough`. 0 once the watcher is stopped.

        mapped: whether deleted files that are only mapped count, too. each: what a file of this size counts.
        """
        used = sum(each(max(file.size or 0, ENTRY_BYTES)) for file in self._unlinked_files(mapped=mapped))
        for size in sizes_on_disk(self._folders):
            used += each(size)
            if used > enough:
                break
            if self._stopped.is_set():
                return 0
        return used

    def _unlinked_files(self, *, mapped: bool) -> Iterator[UnlinkedFile]:
        """Yield the unlinked files on the disks of the folders. In the sandbox, one folder is also `/tmp`."""
        disks = {os.stat(folder).st_dev for folder in self._folders if folder.exists()}
        folders = (*(os.path.realpath(folder) for folder in self._folders), str(TEMPORARY))
        names = tuple(os.fsencode(folder) + b"/" for folder in folders)
        for file in unlinked_files(descendants(os.getpid()), mapped=mapped):
            if file.disk in disks or (file.size is None and file.name.startswith(names)):
                yield file


def _most_on_full_disk(total: int, free: int, kept: int, large: int) -> int | None:
    """Return what an attempt may take of a disk while it is nearly full; None while it is not.

    kept: what the engine keeps free. large: what an attempt that has filled the disk takes at least.
    """
    if free < kept / 2:  # faster than the engine can free space
        return min(kept, large)
    return int(total * _SHARE) if free < kept else None
