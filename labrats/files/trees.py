"""Size and deletion of folders that an agent or its tools have filled, whose depth and modes may be hostile."""

import asyncio
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENTRY_BYTES: Final = 4096
"""Least size of a file, link or folder."""

_ENTRIES_AT_ONCE: Final = 1000
_SECTOR_BYTES: Final = 512
_LONG_PATH: Final = 2048  # bytes of a path and a name together are limited to 4096
_ANCHOR_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(tree: Path) -> None:
    """Delete as much of `tree` as possible."""
    with suppress(RecursionError):  # an agent can nest folders deeper than rmtree can recurse
        shutil.rmtree(tree, ignore_errors=True)
    if tree.is_dir() and not tree.is_symlink():
        make_accessible(tree)
        subprocess.run(["rm", "-rf", "--", str(tree)], check=False, stderr=subprocess.DEVNULL)


def make_accessible(tree: Path) -> None:
    """Let the owner, who is this user, read and write each file and folder of `tree`, as far as possible."""
    if not tree.is_symlink():
        subprocess.run(["chmod", "-R", "u+rwX", "--", str(tree)], check=False, stderr=subprocess.DEVNULL)


def sizes_on_disk(trees: Iterable[Path]) -> Iterator[int]:
    """Yield the bytes on the disk of each entry in the trees, which may change meanwhile or be missing.

    No link is followed, and a file with several names counts once. An entry counts at least as a block, since a disk
    has only so many files. Nothing is left out that its owner may read: a folder without the owner's permissions gets
    them, and folders may be nested deeper than a path can name.
    """
    known = set[tuple[int, int]]()
    for entry in _entries(trees):
        with suppress(OSError):  # it was deleted
            status = _status_of(entry)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in known:
                    continue
                known.add((status.st_dev, status.st_ino))
            yield size_on_disk(status)


async def remove_special_files(tree: Path) -> int:
    """Delete what is no file, folder or link: pipes, at which a reader would wait for ever, sockets and devices.

    Return their number. Other tasks run meanwhile, since an agent can make any number of files.
    """
    removed = 0
    for number, entry in enumerate(_entries([tree])):
        if number % _ENTRIES_AT_ONCE == 0:
            await asyncio.sleep(0)
        removed += not (_is_file_or_folder(entry) or entry.is_symlink()) and _remove(entry)
    return removed


def remove_links_and_special_files(tree: Path) -> None:
    """Delete everything but files and folders."""
    for entry in _entries([tree]):
        if not _is_file_or_folder(entry):
            _remove(entry)


def _is_file_or_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)


def _remove(entry: os.DirEntry[str]) -> bool:
    """Delete an entry that is no folder. Return whether that succeeded."""
    give_owner_access(os.path.dirname(entry.path))
    with suppress(OSError):
        os.unlink(entry.path)
        return True
    return False


def _entries(trees: Iterable[Path]) -> Iterator[os.DirEntry[str]]:
    """Yield each entry in the trees. See `sizes_on_disk`."""
    folders = [_Folder(None, str(tree)) for tree in trees]
    while folders:
        folder = folders.pop()
        try:
            folder = folder.shortened()
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(_Folder(folder.anchor, entry.path))
                    yield entry
        except PermissionError:
            if give_owner_access(folder.path):
                folders.append(folder)
        except OSError:
            continue


def _status_of(entry: os.DirEntry[str]) -> os.stat_result:
    """Return the status of an entry. Its owner may be able to list the folder, but not to look at what is in it."""
    try:
        return entry.stat(follow_symlinks=False)
    except PermissionError:
        give_owner_access(os.path.dirname(entry.path))
        return entry.stat(follow_symlinks=False)


def size_on_disk(status: os.stat_result) -> int:
    """Return the bytes on the disk of an entry, at least those of a block."""
    return max(status.st_blocks * _SECTOR_BYTES, ENTRY_BYTES)


class _Anchor:
    """An open folder, from which paths continue that would otherwise be too long. It is closed with its last use."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, _ANCHOR_FLAGS)
        self.path = f"/proc/self/fd/{self._descriptor}"

    def __del__(self) -> None:
        with suppress(AttributeError):  # it was never opened
            os.close(self._descriptor)


@dataclass(frozen=True)
class _Folder:
    """A folder to examine. anchor: the open folder with which its path begins; None for none."""

    anchor: _Anchor | None
    path: str

    def shortened(self) -> "_Folder":
        """Return the folder with a path of its own if it is long. Raises OSError."""
        if len(self.path) < _LONG_PATH:
            return self
        anchor = _Anchor(self.path)
        return _Folder(anchor, anchor.path)


def give_owner_access(path: str | Path) -> bool:
    """Let the owner of a folder, who is this user, list it. Return whether the owner could not do so before."""
    with suppress(OSError):
        descriptor = os.open(path, _ANCHOR_FLAGS)
        try:
            status = os.fstat(descriptor)
            missing = stat.S_IRWXU & ~status.st_mode
            if missing and status.st_uid == os.geteuid():
                os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
                return True
        finally:
            os.close(descriptor)
    return False
