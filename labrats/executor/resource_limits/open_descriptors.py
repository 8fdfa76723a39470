"""Read in /proc which files the processes of an attempt have open or mapped, or run as their program.

Folders count as files, too: on ext4, one that had many entries keeps its size until it is deleted.

A file whose descriptor was sent to another process that has not received it is not found.
"""

import math
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Final

from labrats.executor.resource_limits.scarce_files import INOTIFY, Kind
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.processes import share_descriptors, thread_ids

SOCKET: Final = "socket:["
_PIPE: Final = "pipe:["
_COLUMNS: Final = 7
"""Columns of /proc/net/unix after the first: the last ones are the inode and the path, which may be empty."""
_IN_MEMORY: Final = "/memfd:"
_EPOLL: Final = "anon_inode:[eventpoll]"
_WATCH: Final = b"tfd:"
_DELETED: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (?P<inode>[0-9]+) +(?P<name>.*) \(deleted\)$",
    re.MULTILINE,
)
"""A line in /proc/PID/maps of a deleted file. The kernel escapes line breaks in its name."""

_MARK: Final = b" (deleted)"
"""The end of such a line, by which others are skipped sooner than by the pattern."""

_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - a file system, in which nothing is written
_FILE_BYTES: Final = 1024
"""Memory of the kernel for a file in memory, without its content."""

_TABLE_SIZE: Final = re.compile(r"^FDSize:\s*([0-9]+)$", re.MULTILINE)
_ENTRY_BYTES: Final = 8
"""Memory of the kernel for an entry in a table of descriptors. A table ends with its highest descriptor."""

_RECORD_BYTES, _RECORD_OF_DESCRIPTOR_BYTES = 64 * 1024, 256 * 1024
"""Buffers of a file of /proc for a long record: any, and one in /proc/PID/fdinfo with the locks of a file."""

_WATCH_BYTES: Final = 200
"""Part of such a record for each file that the process watches, and the unused rest of the buffer."""

MOST_DESCRIPTORS: Final = 100_000
"""Limit on the open descriptors of all processes. To look at one takes up to 20 µs, and no limit is checked then."""


MOST_MAPPINGS: Final = 500_000
"""Limit on the mappings (VMAs) of all processes, of which each takes some 1 µs."""


@dataclass(frozen=True)
class UnlinkedFile:
    """A file that is open, mapped, or a process's program or current folder, and has been unlinked: it has no name.

    disk: None for a file in memory. size: the bytes that it takes; None if this process may not look at the file.
    name: the last one of a file of unknown size, as its process sees it.
    """

    disk: int | None
    size: int | None
    name: bytes = b""


def unlinked_files(pids: Iterable[int], *, mapped: bool) -> Iterator[UnlinkedFile]:
    """Yield each file that has been unlinked, and that a process has open, runs as its program, or works in.

    Raises GiveUp beyond MOST_DESCRIPTORS, like all that looks at descriptors here, and beyond MOST_MAPPINGS. A process
    can hide its open files from other users' processes; see `hides_files`.

    mapped: also yield the files that are only mapped, which takes longer. Only root may look at their sizes.
    """
    pids, known = list(pids), set[tuple[int, int]]()
    for path in chain(_programs(pids), _current_folders(pids), _descriptors(pids)):
        with suppress(OSError):
            status = os.stat(path)
            if _is_new(status, known):
                yield _unlinked_file(status, path)
    for path, file, name in _deleted_mappings(pids) if mapped else ():
        if file not in known:
            with suppress(OSError):
                try:
                    status = os.stat(path)
                except PermissionError:
                    known.add(file)
                    yield UnlinkedFile(None, None, name)
                else:
                    if _is_new(status, known):
                        yield _unlinked_file(status, path)


def _programs(pids: Iterable[int]) -> Iterator[str]:
    """Yield the link in /proc to the program of each process.

    The threads of a process share its program, but a main thread that has ended shows none.
    """
    for pid in pids:
        yield from (f"/proc/{pid}/task/{thread}/exe" for thread in thread_ids(pid)[-1:])


def _current_folders(pids: Iterable[int]) -> Iterator[str]:
    """Yield the link in /proc to the current folder of each thread, which may have one of its own."""
    for pid in pids:
        yield from (f"/proc/{pid}/task/{thread}/cwd" for thread in thread_ids(pid))


def _is_new(status: os.stat_result, known: set[tuple[int, int]]) -> bool:
    """Return whether a file is unlinked and is not among the known ones, to which it is added."""
    file = (status.st_dev, status.st_ino)
    has_content = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    if not has_content or status.st_nlink > 0 or file in known:
        return False
    known.add(file)
    return True


def _unlinked_file(status: os.stat_result, path: str) -> UnlinkedFile:
    """Return a file with this status. path: the link in /proc that leads to it."""
    is_in_memory = status.st_dev == _memory_device() or os.readlink(path).startswith(_IN_MEMORY)
    return UnlinkedFile(None if is_in_memory else status.st_dev, status.st_blocks * 512)


@cache
def _memory_device() -> int:
    """Return the device of the kernel's files in memory: those of memfd, and memory that processes share."""
    descriptor = os.memfd_create("device", os.MFD_CLOEXEC)
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


def _deleted_mappings(pids: Iterable[int]) -> Iterator[tuple[str, tuple[int, int], bytes]]:
    """Yield the link in /proc, the device and inode, and the last name of each deleted file that a process has mapped.

    Raises GiveUp beyond MOST_MAPPINGS.
    """
    found = 0
    for thread, mappings in chain.from_iterable(map(_mappings, pids)):
        if (found := found + mappings.count(b"\n")) > MOST_MAPPINGS:
            raise _not_measured(f"over {MOST_MAPPINGS} parts of memory mapped", "map fewer")
        lines = [line for line in mappings.split(b"\n") if line.endswith(_MARK)] if _MARK in mappings else []
        for match in filter(None, map(_DELETED.fullmatch, lines)):
            first, last, major, minor = (int(number, 16) for number in match.groups()[:4])
            file = (os.makedev(major, minor), int(match["inode"]))
            yield f"/proc/{thread}/map_files/{first:x}-{last:x}", file, match["name"]


def _mappings(pid: int) -> Iterator[tuple[int, bytes]]:
    """Yield a thread of a process, and its /proc/PID/maps.

    The threads of a process share its mappings, but a main thread that has ended shows none.
    """
    for thread in thread_ids(pid):
        with suppress(OSError):
            if mappings := Path(f"/proc/{thread}/maps").read_bytes():
                yield thread, mappings
                return


def _not_measured(had: str, advice: str) -> GiveUp:
    return GiveUp(
        FailedCode.PROCESS_LIMIT,
        f"the attempt had {had}, so that what it takes could not be measured in time: let the agent {advice} at once",
    )


def memory_of_sandbox(pids: Sequence[int]) -> int:
    """Return the bytes of memory of the files in the sandbox's own `/dev/shm`; 0 without a sandbox."""
    for pid in reversed(pids):  # the last ones are in the sandbox for sure
        with suppress(OSError):
            folder = f"/proc/{pid}/root{_SHARED_MEMORY}"
            if os.stat(folder).st_dev != os.stat(_SHARED_MEMORY).st_dev:
                used = os.statvfs(folder)
                files = (used.f_files - used.f_ffree) * _FILE_BYTES
                return (used.f_blocks - used.f_bfree) * used.f_frsize + files
    return 0


def memory_of_tables(pids: Iterable[int]) -> int:
    """Return the bytes of memory that the kernel takes for the tables of descriptors of the processes.

    Where the kernel does not say which threads share one, as in many containers, each process counts once.
    """
    used = 0
    for pid in pids:
        known = None if share_descriptors(pid, pid) else 1
        for place in islice(_threads_with_descriptors(pid), known):
            with suppress(OSError):
                size = _TABLE_SIZE.search(Path(place, "status").read_text(errors="replace"))
                used += int(size[1]) * _ENTRY_BYTES if size else 0
    return used


def memory_of_proc_files(pids: Collection[int]) -> int:
    """Return the most bytes of memory that the kernel takes for open files of /proc.

    It keeps what was read last: up to the longest record. In /proc/PID/fdinfo, this is all that a descriptor watches.
    """
    opened = [link for link in links(pids) if link.startswith("/proc/")]
    used = len(opened) * _RECORD_BYTES
    if not (of_descriptors := sum("/fdinfo/" in link for link in opened)):
        return used
    watched = _watched(pids, (_EPOLL,), _WATCH, math.inf) + _watched(pids, INOTIFY.links, b"inotify wd:", math.inf)
    return used + of_descriptors * (_RECORD_OF_DESCRIPTOR_BYTES + watched * _WATCH_BYTES)


def hides_files(pid: int) -> bool:
    """Return whether a process keeps this process from listing the files that it has open.

    It does so if it runs a program that its user may not read, unless this process is root's. A process can also ask
    the kernel for it, unless it is confined. Bubblewrap does so for a moment.
    """
    return _is_forbidden(f"/proc/{pid}/fd") and all(
        _is_forbidden(f"/proc/{pid}/task/{thread}/fd") for thread in thread_ids(pid)
    )


def is_in_sandbox(pid: int) -> bool:
    """Return whether a descendant is in the sandbox, which has a namespace of processes of its own."""
    return len(_pids_in_namespaces(pid)) > 1


def _is_forbidden(folder: str) -> bool:
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def _pids_in_namespaces(pid: int) -> Sequence[str]:
    """Return the ids of a process in this namespace of processes and in those below."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return line.split()[1:]
    return ()


def watched_by_epoll(pids: Iterable[int], enough: float) -> int:
    """Return the number of files that the processes watch by epoll, or more than `enough`."""
    return _watched(pids, (_EPOLL,), _WATCH, enough)


def held_locks(pids: Iterable[int], enough: float) -> int:
    """Return the number of locks that the processes hold on files and parts of files, or more than `enough`.

    /proc/locks names no process for some of them. Files of any kind can be locked, such as those of `eventfd`.
    """
    return _watched(pids, ("",), b"lock:", enough)


def _watched(pids: Iterable[int], targets: tuple[str, ...], watch: bytes, enough: float) -> int:
    """Return the number of files that the processes watch by some of their descriptors, or more than `enough`.

    targets: the beginnings of what these descriptors lead to.
    watch: the beginning of the lines in /proc/PID/fdinfo for one file, or lock, each.
    """
    watched = 0
    for path in _descriptors(pids):
        with suppress(OSError):
            if os.readlink(path).startswith(targets):
                folder, _, descriptor = path.rpartition("/")
                watched += Path(f"{folder}info/{descriptor}").read_bytes().count(watch)
                if watched > enough:
                    break
    return watched


def open_files(pids: Iterable[int], kind: Kind, enough: float = math.inf) -> int:
    """Return the number of descriptors of files of a kind, or of the files that they watch if these are what counts.

    enough: a number of watched files beyond which no more are counted.
    """
    if kind.namespace:
        own = namespace("self", kind.namespace)
        pids = [pid for pid in pids if namespace(pid, kind.namespace) == own]
    if kind.watch:
        return _watched(pids, kind.links, kind.watch, enough)
    return sum(link.startswith(kind.links) for link in links(pids))


def open_sockets(pids: Collection[int]) -> int:
    """Return the number of sockets. Several descriptors of one count once.

    With the connections to their Unix sockets that none of the processes has accepted yet. No descriptor leads to one
    whose client has closed it, but it keeps what the client has sent.
    """
    opened = {link for link in links(pids) if link.startswith(SOCKET)}
    namespaces = {namespace(pid, "net"): pid for pid in pids}
    return len(opened) + sum(_waiting_connections(pid, opened) for pid in namespaces.values())


def _waiting_connections(pid: int, opened: Collection[str]) -> int:
    """Return the number of connections that wait in these Unix sockets, in the network namespace of a process.

    A connection has the path of the socket in which it waits, and no inode yet.
    """
    listening, waiting = set[bytes](), Counter[bytes]()
    with suppress(OSError), open(f"/proc/{pid}/net/unix", "rb") as table:
        for line in table:
            columns = line.split(maxsplit=_COLUMNS)[1:]
            if len(columns) >= _COLUMNS - 1:  # otherwise it is the rest of a path with a line break
                inode, path = columns[_COLUMNS - 2], b"".join(columns[_COLUMNS - 1 :])
                if inode == b"0":
                    waiting[path] += 1
                elif SOCKET + inode.decode(errors="replace") + "]" in opened:
                    listening.add(path)
    return sum(waiting[path] for path in listening)


def open_pipes(pids: Iterable[int]) -> int:
    """Return the number of descriptors of pipes. Two of one pipe count twice: there can be millions."""
    return sum(link.startswith(_PIPE) for link in links(pids))


def namespace(pid: int | str, name: str) -> str | None:
    """Return the namespace of a process, by the kind's name in /proc; None if the process has ended or hides it."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/{name}")
    return None


def links(pids: Iterable[int]) -> Iterator[str]:
    """Yield what each open descriptor leads to."""
    for path in _descriptors(pids):
        with suppress(OSError):
            yield os.readlink(path)


def _descriptors(pids: Iterable[int]) -> Iterator[str]:
    """Yield the link in /proc of each open descriptor. Raises GiveUp beyond MOST_DESCRIPTORS."""
    found = 0
    for thread in chain.from_iterable(map(_threads_with_descriptors, pids)):
        folder = f"{thread}/fd"
        with suppress(OSError):
            descriptors = os.listdir(folder)
            if (found := found + len(descriptors)) > MOST_DESCRIPTORS:
                raise _not_measured(f"over {MOST_DESCRIPTORS} files open", "open fewer")
            yield from (f"{folder}/{descriptor}" for descriptor in descriptors)


def _threads_with_descriptors(pid: int) -> Iterator[str]:
    """Yield the folder in /proc of each thread of a process that does not share its open files with the last one."""
    last = None
    for thread in thread_ids(pid):
        if last is None or not share_descriptors(thread, last):
            last = thread
            yield f"/proc/{pid}/task/{thread}"
