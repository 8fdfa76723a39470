"""Size and deletion of folders that an agent or its tools have filled, whose depth and modes may be hostile."""

import asyncio
import ctypes
import errno
import os
import shutil
import stat
import subprocess
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from labrats.libc import LIBC

ENTRY_BYTES: Final = 4096
"""Least size of a file, link or folder."""

NAME_BYTES: Final = 512
"""Size of each name of a file after the first one, which some file systems keep beside the files."""

_ENTRIES_AT_ONCE: Final = 1000
_MANY_ENTRIES: Final = 50_000
_SECTOR_BYTES: Final = 512
_LONG_PATH: Final = 512
"""Characters of a path. It continues with a name, and may have 4096 bytes in all."""

_MOST_OPEN: Final = 256
_PATH_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPENAT2: Final = 437
_RESOLVE_NO_LINKS: Final = 0x02 | 0x04  # RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS
_RESOLVE_BENEATH: Final = 0x08
_WITHOUT_OPENAT2: Final = (errno.ENOSYS, errno.EPERM)
"""The errors of a kernel without this system call, and of filters that do not know it."""


def remove_tree(tree: Path) -> None:
    """Delete as much of `tree` as possible. A program deletes many entries, so that they take none of our memory."""
    if sum(1 for _ in islice(_entries([tree]), _MANY_ENTRIES)) < _MANY_ENTRIES:
        with suppress(RecursionError):  # an agent can nest folders deeper than rmtree can recurse
            shutil.rmtree(tree, ignore_errors=True)
    if tree.is_dir() and not tree.is_symlink():
        make_accessible(tree)
        _run_quietly("rm", "-rf", "--", str(tree))


def is_plain_folder(path: Path) -> bool:
    """Return whether the path is a folder and not a link."""
    return path.is_dir() and not path.is_symlink()


def remove_path(path: Path) -> None:
    """Remove a file, folder or link that an agent may have created. The path may be missing."""
    if is_plain_folder(path):
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def make_accessible(tree: Path) -> None:
    """Let the owner, who is this user, read and write each file and folder of `tree`, as far as possible."""
    if not tree.is_symlink():
        _run_quietly("chmod", "-R", "u+rwX", "--", str(tree))


def _run_quietly(*command: str) -> None:
    """Run a program without the files that this process has open: other processes of the user could write to them."""
    nothing = subprocess.DEVNULL
    subprocess.run(command, check=False, stdin=nothing, stdout=nothing, stderr=nothing)


def sizes_on_disk(trees: Iterable[Path]) -> Iterator[int]:
    """Yield the bytes on the disk of each entry in the trees, which may change meanwhile or be missing.

    No link is followed, and a further name of a file counts NAME_BYTES. Any other entry counts at least as a block,
    since a disk has only so many files. Nothing is left out that its owner may read: a folder without the owner's
    permissions gets them, and folders may be nested deeper than a path can name.
    """
    known = set[tuple[int, int]]()
    for folder, entry in _entries(trees):
        with suppress(OSError):  # it was deleted
            status = _status_of(folder, entry)
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in known:
                    yield NAME_BYTES
                    continue
                known.add((status.st_dev, status.st_ino))
            yield size_on_disk(status)


async def remove_special_files(tree: Path) -> int:
    """Delete what is no file, folder or link: pipes, at which a reader would wait for ever, sockets and devices.

    Return their number. Other tasks run meanwhile, since an agent can make any number of files.
    """
    removed = 0
    for number, (folder, entry) in enumerate(_entries([tree])):
        if number % _ENTRIES_AT_ONCE == 0:
            await asyncio.sleep(0)
        removed += not (_is_file_or_folder(entry) or entry.is_symlink()) and _remove(folder, entry)
    return removed


def remove_links_and_special_files(tree: Path) -> None:
    """Delete everything but files and folders."""
    for folder, entry in _entries([tree]):
        if not _is_file_or_folder(entry):
            _remove(folder, entry)


def _is_file_or_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)


def _remove(folder: int, entry: os.DirEntry[str]) -> bool:
    """Delete an entry of an open folder that is no folder. Return whether that succeeded."""
    _give_owner_access(folder)
    with suppress(OSError):
        os.unlink(entry.name, dir_fd=folder)
        return True
    return False


def _entries(trees: Iterable[Path]) -> Iterator[tuple[int, os.DirEntry[str]]]:
    """Yield each entry in the trees, with its open folder. See `sizes_on_disk`."""
    opened = _OpenFolders()
    folders = [_Folder(_Start(str(tree))) for tree in trees]
    while folders:
        folder = folders.pop()
        with suppress(OSError):  # it is missing
            listed = _open_to_list(opened.get(folder.start), folder.path or ".")
            if len(folder.path) >= _LONG_PATH:
                folder = _Folder(_Start(folder.path, folder.start))
                opened.add(folder.start, listed)
            with os.scandir(listed.descriptor) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(_Folder(folder.start, os.path.join(folder.path, entry.name)))
                    yield listed.descriptor, entry


def _open_to_list(start: "_OpenFolder", path: str) -> "_OpenFolder":
    """Open a folder to list it. Its owner may lack permissions for it. Raises OSError."""
    try:
        return _OpenFolder(_open_below(start.descriptor, path, _LIST_FLAGS))
    except PermissionError:
        for name in path.split("/"):
            _give_owner_access(start.descriptor)
            start = _OpenFolder(os.open(name, _PATH_FLAGS, dir_fd=start.descriptor))
        _give_owner_access(start.descriptor)
        return _OpenFolder(_open_below(start.descriptor, ".", _LIST_FLAGS))


def _status_of(folder: int, entry: os.DirEntry[str]) -> os.stat_result:
    """Return the status of an entry. Its owner may be able to list the folder, but not to look at what is in it."""
    try:
        return entry.stat(follow_symlinks=False)
    except PermissionError:
        _give_owner_access(folder)
        return entry.stat(follow_symlinks=False)


def size_on_disk(status: os.stat_result) -> int:
    """Return the bytes on the disk of an entry, at least those of a block."""
    return max(status.st_blocks * _SECTOR_BYTES, ENTRY_BYTES)


class _OpenFolder:
    """An open folder, which is closed with its last use."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, eq=False)
class _Start:
    """A folder from which paths lead on, since a whole path may be too long. path: from the start `above`, if any."""

    path: str
    above: "_Start | None" = None


@dataclass(frozen=True)
class _Folder:
    """A folder to examine."""

    start: _Start
    path: str = ""


class _OpenFolders:
    """The starts that are open. The longest unused ones are closed, and are opened again when they are needed.

    An agent can nest folders more deeply than a process may have files open.
    """

    def __init__(self) -> None:
        self._opened: OrderedDict[_Start, _OpenFolder] = OrderedDict()

    def add(self, start: _Start, folder: _OpenFolder) -> None:
        self._opened[start] = folder
        if len(self._opened) > _MOST_OPEN:
            self._opened.popitem(last=False)

    def get(self, start: _Start) -> _OpenFolder:
        """Return an open folder. Raises OSError."""
        closed, nearest = list[_Start](), start
        while nearest.above and nearest not in self._opened:
            closed.append(nearest)
            nearest = nearest.above
        if nearest not in self._opened:
            self.add(nearest, _OpenFolder(os.open(nearest.path, _PATH_FLAGS)))
        folder = self._opened[nearest]
        for each in reversed(closed):
            folder = _open_to_list(folder, each.path)
            self.add(each, folder)
        self._opened.move_to_end(start)
        return folder


def _open_below(folder: int, path: str, flags: int) -> int:
    """Open a path below an open folder. No part of it may be a link, also if it changes meanwhile. Raises OSError."""
    how = (ctypes.c_uint64 * 3)(flags, 0, _RESOLVE_BENEATH | _RESOLVE_NO_LINKS)  # struct open_how: flags, mode, resolve
    descriptor: int = LIBC.syscall(_OPENAT2, folder, os.fsencode(path), how, ctypes.sizeof(how))
    if descriptor >= 0:
        return descriptor
    if (number := ctypes.get_errno()) not in _WITHOUT_OPENAT2:
        raise OSError(number, os.strerror(number), path)
    *above, last = path.split("/")
    place = _OpenFolder(os.dup(folder))
    for name in above:
        place = _OpenFolder(os.open(name, _PATH_FLAGS, dir_fd=place.descriptor))
    return os.open(last, flags, dir_fd=place.descriptor)


def give_owner_access(path: Path) -> bool:
    """Let the owner of a folder, who is this user, list it. Return whether the owner could not do so before."""
    with suppress(OSError):
        return _give_owner_access(_OpenFolder(os.open(path, _PATH_FLAGS)).descriptor)
    return False


def _give_owner_access(folder: int) -> bool:
    """Let the owner of an open folder list it; see `give_owner_access`."""
    with suppress(OSError):
        status = os.fstat(folder)
        missing = stat.S_IRWXU & ~status.st_mode
        if missing and status.st_uid == os.geteuid():
            os.chmod(f"/proc/self/fd/{folder}", stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
            return True
    return False
