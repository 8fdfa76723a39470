"""The entries of cached folders on the disk, which the executors of several jobs read, store and delete."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import Final

from labrats.files.safe_paths import read_regular_file
from labrats.files.trees import remove_tree

SIZE_FILE: Final = "size"
"""The file in a complete entry with the bytes of its folder."""

UNUSED_SECONDS: Final = 86_400.0
"""Time after which the empty folder of a scope is deleted that no job has used."""

_SIZE_BYTES: Final = 32


@contextmanager
def locked_entry(folder: Path, operation: int) -> Iterator[bool]:
    """Lock a folder that another executor may delete. Yield whether it exists and is locked. Links are not followed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # it does not exist, or is no folder that can be used
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            is_locked = folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())
        except BlockingIOError:
            is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def shrink_caches(root: Path, most_bytes: int) -> None:
    """Delete what unfinished copies left, and the least recently used entries until the rest fits the limit."""
    entries = list(root.glob("*/*"))
    sizes = {entry: size for entry in entries if (size := _stored_size(entry)) is not None}
    for entry in entries:
        if entry.is_symlink() or not entry.is_dir():  # setup commands may have left it by a trick
            with suppress(OSError):
                entry.unlink()
            sizes.pop(entry, None)
        elif entry not in sizes:
            _delete(entry, sizes)
    for entry in sorted(sizes, key=_last_use):
        if sum(sizes.values()) <= most_bytes:
            break
        _delete(entry, sizes)
    for scope in root.glob("*"):  # one for each ref, of which there may be any number
        if time() - _last_use(scope) > UNUSED_SECONDS:
            with suppress(OSError):  # it has entries
                scope.rmdir()


def use_entries(scope: Path) -> None:
    """Count the entries of a scope as used now: jobs in pods can only read those of the default branch."""
    for entry in scope.iterdir():
        with suppress(OSError):
            os.utime(entry)


def _delete(entry: Path, sizes: dict[Path, int]) -> None:
    """Delete an entry that no executor uses."""
    with locked_entry(entry, fcntl.LOCK_EX) as is_locked:
        if is_locked:
            remove_tree(entry)
            sizes.pop(entry, None)


def _stored_size(entry: Path) -> int | None:
    try:
        return int(read_regular_file(entry / SIZE_FILE, _SIZE_BYTES))
    except (OSError, ValueError):
        return None


def _last_use(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0
