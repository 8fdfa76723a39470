"""Memory for the data that waits in the sockets of the whole machine, of which the kernel has only so much.

Once it is used up, the kernel resets connections and discards packets, also those of other users and of other network
namespaces.
"""

import re
import resource
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from labrats.executor.resource_limits.open_descriptors import SOCKET, links, namespace
from labrats.executor.resource_limits.scarce_files import most_memory_of_a_socket

_USED: Final = Path("/proc/net/sockstat")
_USED_PAGES: Final = re.compile("^(TCP|UDP):.* mem ([0-9]+)", re.MULTILINE)
_NEARLY_ALL: Final = 0.9
_PAGE: Final = resource.getpagesize()
_LISTENS: Final = b"0A"
_NO_INODE: Final = b"0"


@dataclass(frozen=True)
class QueueMemory:
    """Memory for the sockets of a protocol.

    name:    of the protocol in /proc/net/sockstat.
    setting: the file of the kernel's limits, in pages. most: the first one, in bytes, beyond which the kernel may leave
        too little to others.
    tables:  the files in /proc/PID/net that list the sockets.
    least:   the bytes that the data in a socket may take however little it is, up to a page for each byte.
    """

    name: str
    setting: Path
    most: int
    tables: tuple[str, ...]
    least: int = 0


def queue_memories() -> Iterator[QueueMemory]:
    """Yield each memory whose limits this process sees, as in the machine's own network namespace."""
    least = most_memory_of_a_socket()
    tcp, udp = (Path("/proc/sys/net/ipv4", name) for name in ("tcp_mem", "udp_mem"))
    if tcp.exists():
        yield QueueMemory("TCP", tcp, _first_limit(tcp), ("tcp", "tcp6"), least)
    if udp.exists():
        yield QueueMemory("UDP", udp, _first_limit(udp), ("udp", "udp6", "udplite", "udplite6"))


def _first_limit(setting: Path) -> int:
    return int(setting.read_text().split()[0]) * _PAGE


def used_up(memories: Sequence[QueueMemory]) -> list[QueueMemory]:
    """Return those of which hardly anything is left."""
    used = dict(_USED_PAGES.findall(_USED.read_text())) if memories and _USED.exists() else {}
    return [each for each in memories if int(used.get(each.name, 0)) * _PAGE > each.most * _NEARLY_ALL]


@dataclass(frozen=True)
class _Row:
    """A socket in such a table. inode: of one that a process has open. ports: the local and the remote one."""

    inode: bytes
    ports: tuple[bytes, bytes]
    queued: int


def queued_bytes(pids: Collection[int], memory: QueueMemory) -> int:
    """Return the bytes that wait in the sockets of the processes.

    In a network namespace of their own, all sockets count. In that of this process, those count that the processes have
    open, and those that no process has open if they are connected to one of these, or wait to be accepted there.
    """
    opened = {link.removeprefix(SOCKET).rstrip("]").encode() for link in links(pids) if link.startswith(SOCKET)}
    total = 0
    for name, pid in {namespace(pid, "net"): pid for pid in pids}.items():
        rows = list(_rows(pid, memory.tables)) if name else []
        counted = _of_processes(rows, opened) if name == namespace("self", "net") else rows
        # A byte that is sent by itself can take a page.
        total += sum(max(row.queued, min(memory.least, row.queued * _PAGE)) for row in counted)
    return total


def _of_processes(rows: Sequence[_Row], opened: Collection[bytes]) -> Iterator[_Row]:
    own_ports = {row.ports[0] for row in rows if row.inode in opened}
    for row in rows:
        if row.inode in opened or (row.inode == _NO_INODE and not own_ports.isdisjoint(row.ports)):
            yield row


def _rows(pid: int, tables: Iterable[str]) -> Iterator[_Row]:
    """Yield the sockets in the network namespace of a process."""
    for table in tables:
        with suppress(OSError), open(f"/proc/{pid}/net/{table}", "rb") as lines:
            next(lines, None)
            for line in lines:
                _, local, remote, state, queues, _, _, _, _, inode, *_ = line.split()
                sent, received = (int(size, 16) for size in queues.split(b":"))
                # The queue of a listening socket is a number of connections, which have rows of their own.
                queued = 0 if state == _LISTENS else sent + received
                yield _Row(inode, (local.rpartition(b":")[2], remote.rpartition(b":")[2]), queued)
