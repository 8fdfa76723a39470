"""End an attempt that takes more than its share of what the machine has for all. Without most of this, no engine runs.

Some of it is limited at all times: threads, and the files that all processes of a user may watch by epoll. The rest is
limited once there is hardly any left: the memory, also that for sockets, the disk, some kinds of files, and the threads
of a service, container or user that may have fewer than the machine.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from labrats.executor.resource_limits.disk import DiskMeter
from labrats.executor.resource_limits.memory import MemoryMeter, short_memory
from labrats.executor.resource_limits.open_descriptors import (
    held_locks,
    hides_files,
    open_files,
    open_pipes,
    open_sockets,
    watched_by_epoll,
)
from labrats.executor.resource_limits.scarce_files import (
    INOTIFY,
    KINDS,
    MEMORY_OF_A_PIPE,
    Kind,
    most_memory_of_a_socket,
    most_memory_of_inotify,
)
from labrats.executor.resource_limits.socket_queues import queue_memories, queued_bytes, used_up
from labrats.executor.resource_limits.standstill import Standstill
from labrats.executor.resource_limits.thread_limits import thread_limits
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from labrats.model.sizes import shown_size
from labrats.processes import count_threads, descendants, living

_MOST_THREADS: Final = (Path("/proc/sys/kernel/pid_max"), Path("/proc/sys/kernel/threads-max"))
_THREADS_SHARE: Final = 0.25

_MOST_WATCHES: Final = Path("/proc/sys/fs/epoll/max_user_watches")
_WATCHES_SHARE: Final = 0.05

_LOCKS: Final = Path("/proc/locks")
_MOST_LOCKS: Final = 2000
"""Most locks of an attempt. Each process of the machine that closes a file waits while the kernel goes through all of
its locks, and an agent can lock the system's libraries, although it may only read them.
"""

_SCARCE_SHARE: Final = 0.1
"""Share of the files of a kind beyond which an attempt is ended once there are no more: several may have taken them."""

_WATCHES_EVERY: Final = 10
"""Counts for each test whether watches of inotify are left, which takes as long as half of all else."""

_MEMORY_SHARE: Final = 0.5

_HIDDEN_COUNTS: Final = 3
"""Counts in a row in which some process hides its open files until the attempt is ended. Some do so at their start."""


class MachineShares:
    """Counts what an attempt takes of the machine.

    is_confined: returns whether a process is confined, so that it has no reason to hide its open files.
    """

    def __init__(self, limits: ResourceLimits, disk: DiskMeter, is_confined: Callable[[int], bool]) -> None:
        self._memory = MemoryMeter() if limits.memory_bytes is None else None
        self._disk, self._standstill, self._is_confined = disk, Standstill(), is_confined
        self._most_threads, self._most_watches = most_threads(), _share(_WATCHES_SHARE, _MOST_WATCHES)
        self._queue_memories = list(queue_memories())
        self._thread_limits = list(thread_limits(Path(limits.control_groups) if limits.control_groups else None))
        self._counts = self._hidden_counts = 0

    def excess(self) -> GiveUp | None:
        """Return the end of an attempt that exceeds a share."""
        found = descendants(os.getpid(), ended_too=True)
        return next(self._excesses(living(found), count_threads(found)), None)

    def _excesses(self, pids: Sequence[int], threads: int) -> Iterator[GiveUp]:
        """Yield the shares that are exceeded. threads: of the processes, also of those that have ended."""
        if threads > self._most_threads:
            yield GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt had {threads} threads, over {_THREADS_SHARE:.0%} of what the machine may have "
                "(kernel.pid_max and kernel.threads-max): give the agent less to do at once",
            )
        for limit in self._thread_limits:
            if threads > limit.most * _THREADS_SHARE and limit.is_nearly_reached():
                yield GiveUp(
                    FailedCode.PROCESS_LIMIT,
                    f"the attempt had {threads} threads, over {_THREADS_SHARE:.0%} of the {limit.most} that the engine "
                    f"and all attempts may have ({limit.setting}), when hardly any was left: give the agent less to do "
                    "at once",
                )
        if (watched := watched_by_epoll(pids, self._most_watches)) > self._most_watches:
            yield GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt watched at least {watched} files by epoll, over {_WATCHES_SHARE:.0%} of what all "
                "processes of a user may watch (fs.epoll.max_user_watches): let the agent open fewer at once",
            )
        if _machine_locks() > _MOST_LOCKS and held_locks(pids, _MOST_LOCKS) > _MOST_LOCKS:
            yield GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt held over {_MOST_LOCKS} locks of files, for which all programs that use these files "
                "wait: let the agent hold fewer at once",
            )
        for kind in self._scarce_kinds():
            enough = kind.most() * _SCARCE_SHARE
            if (held := open_files(pids, kind, enough)) > enough:
                yield GiveUp(
                    FailedCode.PROCESS_LIMIT,
                    f"the attempt had {held} {kind.name}, over {_SCARCE_SHARE:.0%} of what the machine has for all "
                    f"({kind.setting}), when none was left: let the agent open fewer at once",
                )
        for memory in used_up(self._queue_memories):
            if (held := queued_bytes(pids, memory)) > memory.most * _SCARCE_SHARE:
                yield GiveUp(
                    FailedCode.OUT_OF_MEMORY,
                    f"data that waited in the attempt's {memory.name} sockets could take {shown_size(held)}, over "
                    f"{_SCARCE_SHARE:.0%} of what the machine has for all ({memory.setting}), when hardly any was "
                    "left: let the agent receive what it is sent, or open fewer connections",
                )
        if failure := self._disk.excess_on_full_disk():
            yield failure
        if self._hides_files(pids):
            yield GiveUp(
                FailedCode.PROCESS_LIMIT,
                "the attempt ran a program that its user may not read, so that the memory and the disk that it takes "
                "cannot be measured: make the program readable (chmod +r)",
            )
        if total := short_memory():
            yield from self._excesses_of_memory(pids, total)
            if failure := self._standstill.measured(lambda: self._excess_of_memory(total)):
                yield failure

    def _scarce_kinds(self) -> Iterator[Kind]:
        """Yield the kinds of files of which none is left."""
        is_due = self._counts % _WATCHES_EVERY == 0
        self._counts += 1
        for kind in KINDS:
            if (is_due or not kind.watch) and kind.is_used_up():
                yield kind

    def _hides_files(self, pids: Sequence[int]) -> bool:
        """Return whether a process keeps its files hidden: they would count for nothing."""
        is_any_hidden = any(hides_files(pid) and self._is_confined(pid) for pid in pids)
        self._hidden_counts = self._hidden_counts + 1 if is_any_hidden else 0
        return self._hidden_counts >= _HIDDEN_COUNTS

    def _excess_of_memory(self, total: int) -> GiveUp | None:
        return next(self._excesses_of_memory(descendants(os.getpid()), total), None)

    def _excesses_of_memory(self, pids: Sequence[int], total: int) -> Iterator[GiveUp]:
        """Yield what exceeds a share of the machine's memory, of `total` bytes, which is nearly full."""
        most, advice = int(total * _MEMORY_SHARE), "use a machine with more, or give the agent less to do at once"
        sockets, pipes, queues = open_sockets(pids), open_pipes(pids), open_files(pids, INOTIFY)
        buffers = sockets * most_memory_of_a_socket() + pipes * MEMORY_OF_A_PIPE + most_memory_of_inotify(queues)
        if buffers > most:
            yield GiveUp(
                FailedCode.OUT_OF_MEMORY,
                f"the attempt had {sockets} sockets, {pipes} ends of pipes and {queues} instances of inotify, whose "
                f"buffers can take over {_MEMORY_SHARE:.0%} of the machine's memory, which was nearly full: {advice}",
            )
        if self._memory and (used := self._memory.excess(most, pids)):
            yield GiveUp(
                FailedCode.OUT_OF_MEMORY,
                f"the attempt used {shown_size(used)} of memory, over {_MEMORY_SHARE:.0%} of the machine's, which was "
                f"nearly full: {advice}",
            )


def _machine_locks() -> int:
    """Return the number of locks of files that all processes hold; 0 where it is unknown, as in gVisor."""
    return _LOCKS.read_bytes().count(b"\n") if _LOCKS.exists() else 0


def most_threads() -> float:
    """Return the number of threads that an attempt may have."""
    return _share(_THREADS_SHARE, *_MOST_THREADS)


def _share(share: float, *files: Path) -> float:
    """Return a share of the smallest number in files of /proc. One that is missing, as in gVisor, sets no limit."""
    numbers = [int(file.read_text()) for file in files if file.exists()]
    return min(numbers, default=math.inf) * share
