"""Read in /proc which files the processes of an attempt have open.

A file whose descriptor was sent to another process that has not received it is not found.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final

from labrats.executor.scarce_files import Kind
from labrats.processes import share_descriptors, thread_ids

SOCKET: Final = "socket:["
_IN_MEMORY: Final = "/memfd:"
_EPOLL: Final = "anon_inode:[eventpoll]"
_WATCH: Final = b"tfd:"


def nameless_files(pids: Iterable[int]) -> Iterator[tuple[int | None, int]]:
    """Yield the disk and the bytes of each open file that has no name any more; None for a file in memory.

    A process can hide its files from other users' processes.
    """
    known = set[tuple[int, int]]()
    for folder in chain.from_iterable(map(_descriptor_folders, pids)):
        with suppress(OSError):
            for descriptor in os.listdir(folder):
                with suppress(OSError):
                    path = f"{folder}/{descriptor}"
                    status = os.stat(path)
                    file = (status.st_dev, status.st_ino)
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and file not in known:
                        known.add(file)
                        is_in_memory = os.readlink(path).startswith(_IN_MEMORY)
                        yield None if is_in_memory else status.st_dev, status.st_blocks * 512


def watched_by_epoll(pids: Iterable[int], enough: float) -> int:
    """Return the number of files that the processes watch by epoll, or more than `enough`."""
    watched = 0
    for folder in chain.from_iterable(map(_descriptor_folders, pids)):
        with suppress(OSError):
            for descriptor in os.listdir(folder):
                with suppress(OSError):
                    if os.readlink(f"{folder}/{descriptor}") == _EPOLL:
                        watched += Path(f"{folder}info/{descriptor}").read_bytes().count(_WATCH)
                        if watched > enough:
                            return watched
    return watched


def open_files(pids: Iterable[int], kind: Kind) -> int:
    """Return the number of descriptors of files of a kind. See Kind for `namespace`."""
    if kind.namespace:
        own = _namespace("self", kind.namespace)
        pids = [pid for pid in pids if _namespace(pid, kind.namespace) == own]
    return sum(link.startswith(kind.links) for link in _links(pids))


def open_sockets(pids: Iterable[int]) -> int:
    """Return the number of sockets. Several descriptors of one count once."""
    return len({link for link in _links(pids) if link.startswith(SOCKET)})


def _namespace(pid: int | str, name: str) -> str | None:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/{name}")
    return None


def _links(pids: Iterable[int]) -> Iterator[str]:
    """Yield what each open descriptor leads to."""
    for folder in chain.from_iterable(map(_descriptor_folders, pids)):
        with suppress(OSError):
            for descriptor in os.listdir(folder):
                with suppress(OSError):
                    yield os.readlink(f"{folder}/{descriptor}")


def _descriptor_folders(pid: int) -> Iterator[str]:
    """Yield the folder of the open files of each thread of a process that does not share those of the last one."""
    last = None
    for thread in thread_ids(pid):
        if last is None or not share_descriptors(thread, last):
            last = thread
            yield f"/proc/{pid}/task/{thread}/fd"
