"""Kinds of files, or of what they watch, of which the kernel has only so many for all processes or those of a user."""

import ctypes
import errno
import os
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.libc import LIBC

_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_INSTANCES: Final = Path("/proc/sys/fs/inotify/max_user_instances")
_WATCHES: Final = Path("/proc/sys/fs/inotify/max_user_watches")
_QUEUED_EVENTS: Final = Path("/proc/sys/fs/inotify/max_queued_events")
_EVENT_BYTES: Final = 512
"""Memory of the kernel for an event of inotify with a long name."""

_DELETED_ITSELF: Final = 0x400
"""IN_DELETE_SELF, an event that does not happen to the root of the file system."""

_TERMINALS: Final = Path("/proc/sys/kernel/pty/max")
_RESERVED_TERMINALS: Final = Path("/proc/sys/kernel/pty/reserve")
_OPEN_TERMINALS: Final = Path("/proc/sys/kernel/pty/nr")
_NEARLY_ALL: Final = 0.9
_SEND_BUFFER: Final = Path("/proc/sys/net/core/wmem_max")
_LARGE_BUFFER: Final = 4 * 1024 * 1024
"""A machine for fast networks allows much larger ones, of which a browser's sockets could take all of the memory."""


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    links:      the beginnings of what a descriptor in /proc leads to.
    setting:    the name of the kernel's limit. most: returns this limit.
    is_used_up: returns whether there are no more, or nearly so.
    namespace:  the processes in another namespace of this kind have files of their own; empty for none.
    watch:      the beginning of the lines in /proc/PID/fdinfo that count instead of the descriptors; empty for none.
    """

    name: str
    links: tuple[str, ...]
    setting: str
    most: Callable[[], int]
    is_used_up: Callable[[], bool]
    namespace: str = ""
    watch: bytes = b""


MEMORY_OF_A_PIPE: Final = 2 * resource.getpagesize()
"""The bytes that can wait in each pipe of a user who has many (fs.pipe-user-pages-soft)."""


def most_memory_of_a_socket() -> int:
    """Return the most bytes that usually wait in a socket. The kernel doubles what a program asks for."""
    return 2 * min(_number(_SEND_BUFFER), _LARGE_BUFFER)


def _number(file: Path) -> int:
    """Return a number in a file of /proc; 0 without the file, as in gVisor."""
    return int(file.read_text()) if file.exists() else 0


def most_memory_of_inotify(descriptors: int) -> int:
    """Return the most bytes of the events that wait in instances of inotify with so many descriptors."""
    return min(descriptors, INOTIFY.most()) * _number(_QUEUED_EVENTS) * _EVENT_BYTES


def _no_inotify() -> bool:
    """Return whether the user has no instance of inotify left."""
    descriptor: int = LIBC.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return ctypes.get_errno() == errno.EMFILE
    os.close(descriptor)
    return False


def _no_watches() -> bool:
    """Return whether the user can watch no further file by inotify. It takes some 0.3 ms, and 10 ms of waiting."""
    descriptor: int = LIBC.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return False
    try:
        return LIBC.inotify_add_watch(descriptor, b"/", _DELETED_ITSELF) < 0 and ctypes.get_errno() == errno.ENOSPC
    finally:
        os.close(descriptor)


def _most_terminals() -> int:
    """Return the number of terminals outside of the machine's own file system of them, for which some are reserved."""
    return _number(_TERMINALS) - _number(_RESERVED_TERMINALS)


def _no_terminals() -> bool:
    return _OPEN_TERMINALS.exists() and _number(_OPEN_TERMINALS) > _most_terminals() * _NEARLY_ALL


def _no_ports() -> bool:
    """Return whether the machine has no port left for a further connection or server."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):  # without the latter, no name can be looked up
        with socket.socket(type=kind) as any_socket:
            try:
                any_socket.bind(("", 0))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
    return False


def _most_ports() -> int:
    first, last = map(int, _PORTS.read_text().split())
    return last - first + 1


_INOTIFY_LINKS: Final = ("anon_inode:inotify",)
INOTIFY: Final = Kind("instances of inotify", _INOTIFY_LINKS, str(_INSTANCES), lambda: _number(_INSTANCES), _no_inotify)
KINDS: Final = (
    INOTIFY,
    Kind(
        "watches of inotify",
        _INOTIFY_LINKS,
        str(_WATCHES),
        lambda: _number(_WATCHES),
        _no_watches,
        watch=b"inotify wd:",
    ),
    Kind("terminals", ("/dev/ptmx", "/dev/pts/"), str(_TERMINALS), _most_terminals, _no_terminals),
    Kind("sockets", ("socket:[",), str(_PORTS), _most_ports, _no_ports, namespace="net"),
)
