"""The limits on the processors, the memory, the processes and the disk of an attempt.

All but the first are enforced by sampling the attempt's process tree and its folders. Limits of the kernel for single
processes do not fit: RLIMIT_AS keeps Node, Go and the JVM from starting, and RLIMIT_NPROC does not apply to root.
"""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from labrats.files.trees import sizes_on_disk
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import NO_LIMITS, ResourceLimits
from labrats.processes import descendants, kill_descendants

T = TypeVar("T")

SAMPLE_SECONDS: Final = 0.1

DISK_SAMPLE_SECONDS: Final = 1.0
DISK_PAUSE_FACTOR: Final = 20.0
"""Pause between two measurements of the disk: at least a second, and many times as long as a measurement took."""

_SAMPLES_IN_EXCESS: Final = 2
"""Samples that must all exceed a limit on memory. The processes are read one after the other, so that what one shares
with a child that starts meanwhile counts twice in one sample.
"""

_NAMELESS_EVERY: Final = 10
"""Samples of the memory for each search of files without a name, which takes longer."""

_IN_MEMORY: Final = "/memfd:"
ENTRIES_AT_ONCE: Final = 256
"""Files measured before other tasks run."""

_KIBIBYTE: Final = 1024
_SHOWN_UNITS: Final = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


async def run_within_limits(
    work: Callable[[], Awaitable[T]], limits: ResourceLimits, folders: Sequence[Path] = ()
) -> T:
    """Return the result of `work`, and measure the descendants of this process and `folders` meanwhile.

    If they exceed a limit, the descendants are killed, and GiveUp is raised. The limit on the processors stays in force
    after `work`.
    """
    if limits == NO_LIMITS:
        return await work()
    if limits.cpus is not None:
        share_processors(limits.cpus)
    watcher = _Watcher(limits, folders)
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = [
                tasks.create_task(watcher.watch_processes(), name="process-limits"),
                tasks.create_task(watcher.watch_disk(), name="disk-limit"),
            ]
            result = await work()
            for task in watching:
                task.cancel()
    except BaseExceptionGroup as failures:
        # Without the group: callers distinguish the failures of `work` by their types.
        raise watcher.failure or failures.exceptions[0] from None
    return result


def share_processors(count: int) -> None:
    """Run this thread, and all processes that it starts, on the last `count` processors, or on all if there are fewer.

    All attempts get the same processors, among which the kernel balances them.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


@dataclass
class _Watcher:
    limits: ResourceLimits
    folders: Sequence[Path]
    failure: GiveUp | None = field(default=None, init=False)
    _samples: int = field(default=0, init=False)
    _nameless_memory: int = field(default=0, init=False)

    async def watch_processes(self) -> None:
        """Measure until cancelled. Raises GiveUp after it has killed all descendants."""
        if self.limits.memory_bytes is None and self.limits.processes is None:
            return
        while (failure := self._exceeded_limit()) is None:
            await asyncio.sleep(SAMPLE_SECONDS)
        self._end(failure)

    async def watch_disk(self) -> None:
        """Measure until cancelled. Raises GiveUp after it has killed all descendants."""
        if (limit := self.limits.disk_bytes) is None:
            return
        clock = asyncio.get_running_loop().time
        started = clock()
        while (used := await self._disk_usage(limit)) <= limit:
            await asyncio.sleep(max(DISK_SAMPLE_SECONDS, (clock() - started) * DISK_PAUSE_FACTOR))
            started = clock()
        self._end(
            GiveUp(
                FailedCode.DISK_LIMIT,
                f"the workspace, with the agent's home and temporary files, took at least {_shown(used)}, over "
                f"LABRATS_WORKSPACE_GIB ({_shown(limit)}): raise the limit, or let the agent write less",
            )
        )

    async def _disk_usage(self, limit: int) -> int:
        disks = {os.stat(folder).st_dev for folder in self.folders if folder.exists()}
        nameless = sum(size for disk, size in nameless_files(descendants(os.getpid())) if disk in disks)
        return nameless + await _disk_usage(self.folders, limit)

    def _end(self, failure: GiveUp) -> None:
        self.failure = failure  # first, since the end of the descendants makes `work` fail, too
        kill_descendants(os.getpid())
        raise failure

    def _memory_above(self, limit: int, pids: Sequence[int]) -> int | None:
        """Return the bytes of memory of the processes if they exceed the limit, otherwise None.

        Files that are only mapped do not count, but files in memory do. Memory that processes share counts once, but
        that takes long to measure, so it is measured only where a sum with repetitions exceeds the limit.
        """
        if self._samples % _NAMELESS_EVERY == 0:
            self._nameless_memory = sum(size for disk, size in nameless_files(pids) if disk is None)
        self._samples += 1
        if _total(map(_own_memory, pids), self._nameless_memory) <= limit:
            return None
        used = 0
        for _ in range(_SAMPLES_IN_EXCESS):
            used = _total(map(_share_of_memory, pids), self._nameless_memory)
            if used <= limit:
                return None
        return used

    def _exceeded_limit(self) -> GiveUp | None:
        pids, limits = descendants(os.getpid()), self.limits
        if limits.processes is not None and len(pids) > limits.processes:
            return GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt had {len(pids)} processes, over LABRATS_AGENT_PROCESSES ({limits.processes}): raise the "
                "limit, or give the agent less to do at once",
            )
        if limits.memory_bytes is not None and (used := self._memory_above(limits.memory_bytes, pids)):
            return GiveUp(
                FailedCode.OUT_OF_MEMORY,
                f"the attempt used {_shown(used)} of memory, over LABRATS_AGENT_MEMORY "
                f"({_shown(limits.memory_bytes)}): raise the limit, or give the agent less to do at once",
            )
        return None


async def _disk_usage(folders: Sequence[Path], enough: int) -> int:
    """Return the bytes of the folders on the disk, or more than `enough`. Other tasks run in between."""
    used = 0
    for number, size in enumerate(sizes_on_disk(folders)):
        used += size
        if used > enough:
            break
        if number % ENTRIES_AT_ONCE == 0:
            await asyncio.sleep(0)
    return used


def nameless_files(pids: Iterable[int]) -> Iterator[tuple[int | None, int]]:
    """Yield the disk and the bytes of each open file that has no name any more; None for a file in memory.

    A process can hide its files from other users' processes.
    """
    known = set[tuple[int, int]]()
    for pid in pids:
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    path = f"/proc/{pid}/fd/{descriptor}"
                    status = os.stat(path)
                    file = (status.st_dev, status.st_ino)
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and file not in known:
                        known.add(file)
                        is_in_memory = os.readlink(path).startswith(_IN_MEMORY)
                        yield None if is_in_memory else status.st_dev, status.st_blocks * 512


def _total(memory: Iterable[tuple[int, int]], nameless: int) -> int:
    """Return the sum of the private and the shared memory. Files in memory are part of the latter as far as mapped."""
    private, shared = (sum(sizes) for sizes in zip(*memory, strict=True)) if (memory := list(memory)) else (0, 0)
    return private + max(shared, nameless)


def _own_memory(pid: int) -> tuple[int, int]:
    """Return the private and the shared memory of a process."""
    return _sizes(f"/proc/{pid}/status", "RssAnon:", "RssShmem:") or (0, 0)


def _share_of_memory(pid: int) -> tuple[int, int]:
    """Return the memory of a process, of which shared memory counts in part.

    A process can hide the parts from other users' processes, and then counts as a whole.
    """
    return _sizes(f"/proc/{pid}/smaps_rollup", "Pss_Anon:", "Pss_Shmem:") or _own_memory(pid)


def _sizes(file: str, private: str, shared: str) -> tuple[int, int] | None:
    """Return the two named sizes in a file of /proc, in bytes; None if it cannot be read."""
    with suppress(OSError):
        words = [line.split() for line in Path(file).read_text().splitlines()]
        found = {line[0]: int(line[1]) * _KIBIBYTE for line in words if line and line[0] in (private, shared)}
        return found.get(private, 0), found.get(shared, 0)
    return None


def _shown(size: int) -> str:
    unit, divisor = next(((unit, divisor) for unit, divisor in _SHOWN_UNITS if size >= divisor), ("bytes", 1))
    return f"{size / divisor:.3g} {unit}"
