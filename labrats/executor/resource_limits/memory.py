"""Measure the memory of an attempt, and what is left of the machine's."""

import math
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from labrats.executor.resource_limits.open_descriptors import (
    memory_of_proc_files,
    memory_of_sandbox,
    memory_of_tables,
    unlinked_files,
)
from labrats.processes import thread_ids

_SAMPLES_IN_EXCESS: Final = 2
"""Samples that must all exceed a limit on memory. The processes are read one after the other, so that what one shares
with a child that starts meanwhile counts twice in one sample.
"""

_SHARES_SECONDS: Final = 1.0
"""Processor time for the parts of shared memory in one sample. The kernel looks at each mapped page for them."""

_FILES_EVERY: Final = 10
"""Samples for each look at the open files, which takes longer."""

_LARGE_EXECUTOR: Final = 512 * 1024 * 1024
"""Private memory of this process from which on it counts as the attempt's, whose output it reads."""

_MACHINE: Final = Path("/proc/meminfo")
_MACHINE_SIZES: Final = re.compile("^(MemTotal|MemAvailable|Shmem|SwapTotal|SwapFree): *([0-9]+)", re.MULTILINE)
_SHORT: Final = 0.05
"""Share of the memory below which the kernel may soon end any process, the largest first, which may be the engine."""

_KIBIBYTE: Final = 1024
_NOTHING: Final = (0, 0)


class MemoryMeter:
    """Measures the memory of an attempt's processes. Use it in one thread.

    may_miss: whether the last sample missed a process, and the attempt may have exceeded the limit by what it takes.
    """

    def __init__(self) -> None:
        self.may_miss = False
        self._samples = self._unlinked = self._tables = 0
        self._least_others = math.inf

    def excess(self, limit: int, pids: Sequence[int]) -> int | None:
        """Return the bytes of memory of the processes if they exceed the limit, otherwise None.

        Files that are only mapped do not count, but files in memory do. Memory that processes share counts once, but
        that takes long to measure, so it is measured only where a sum with repetitions exceeds the limit, and only for
        as many processes as a second allows.
        """
        if (_own(os.getpid()) or _NOTHING)[0] > _LARGE_EXECUTOR:
            pids = [*pids, os.getpid()]
        sizes = list(map(_own, pids))
        own = [size or _NOTHING for size in sizes]
        if self._samples % _FILES_EVERY == 0:
            # All files in memory of the machine take less than what is left to the attempt, as a rule.
            mapped = _total(own, 0) + _machine_files() > limit
            files = unlinked_files(pids, mapped=mapped)
            self._unlinked = sum(file.size or 0 for file in files if file.disk is None) + memory_of_sandbox(pids)
            self._tables = memory_of_tables(pids) + memory_of_proc_files(pids)
            self._growth_of_others(_total(own, 0))  # to learn the smallest, also while no process is missed
        self._samples += 1
        total = _total(own, self._unlinked) + self._tables
        self.may_miss = None in sizes and total <= limit < total + self._growth_of_others(total)
        if total <= limit:
            return None
        used = 0
        for _ in range(_SAMPLES_IN_EXCESS):
            started = time.thread_time()
            used = _total(_with_shares_in_time(pids), self._unlinked) + self._tables
            if used <= limit:
                return None
            if time.thread_time() - started > _SHARES_SECONDS:  # another sample would let the agent take much more
                break
        return used

    def _growth_of_others(self, used: int) -> float:
        """Return by how much the rest of the machine's memory has grown since it was smallest.

        used: what was found of the attempt.
        """
        sizes = _machine_sizes()
        free = sizes.get("MemAvailable", math.inf) + sizes.get("SwapFree", 0)
        others = sizes["MemTotal"] + sizes.get("SwapTotal", 0) - free - used
        self._least_others = min(self._least_others, others)
        return others - self._least_others


def short_memory() -> int | None:
    """Return the bytes of the machine's memory if it is nearly full, with the space to swap; otherwise None."""
    sizes = _machine_sizes()
    total, free = sizes["MemTotal"], sizes.get("MemAvailable", math.inf) + sizes.get("SwapFree", 0)
    return total if free < total * _SHORT else None


def _machine_files() -> float:
    """Return at least the bytes of all files in memory of the machine, some of which may be in the space to swap."""
    sizes = _machine_sizes()
    return sizes.get("Shmem", math.inf) + sizes.get("SwapTotal", 0) - sizes.get("SwapFree", 0)


def _machine_sizes() -> dict[str, int]:
    return {name: int(size) * _KIBIBYTE for name, size in _MACHINE_SIZES.findall(_MACHINE.read_text())}


def _total(memory: Iterable[tuple[int, int]], unlinked: int) -> int:
    """Return the sum of the private and the shared memory. Files in memory are part of the latter as far as mapped."""
    private, shared = (sum(sizes) for sizes in zip(*memory, strict=True)) if (memory := list(memory)) else (0, 0)
    return private + max(shared, unlinked)


def _own(pid: int) -> tuple[int, int] | None:
    """Return the private memory of a process, with its page tables and what is swapped out, and the shared one.

    None if the process has ended.
    """
    return _sizes(pid, "status", ("RssAnon:", "VmPTE:", "VmSwap:"), "RssShmem:")


def _with_shares_in_time(pids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the memory of each process, as `_with_shares` returns it until that has taken too long, and then `_own`."""
    end = time.thread_time() + _SHARES_SECONDS
    for pid in pids:
        yield _with_shares(pid) if time.thread_time() < end else _own(pid) or _NOTHING


def _with_shares(pid: int) -> tuple[int, int]:
    """Return the memory of a process, of which shared memory counts in part.

    A process can hide the parts from other users' processes, and then counts as a whole.
    """
    if (shares := _sizes(pid, "smaps_rollup", ("Pss_Anon:", "SwapPss:"), "Pss_Shmem:")) is None:
        return _own(pid) or _NOTHING
    page_tables, _ = _sizes(pid, "status", ("VmPTE:",), "") or (0, 0)
    return shares[0] + page_tables, shares[1]


def _sizes(pid: int, file: str, private: Sequence[str], shared: str) -> tuple[int, int] | None:
    """Return the sum of the sizes `private`, and the size `shared`, in a file of a process in /proc, in bytes.

    None if the process does not show them. The threads of a process share its memory, but a main thread that has ended
    shows none.
    """
    for place in _places(pid):
        with suppress(OSError):
            words = [line.split() for line in Path(place, file).read_text(errors="replace").splitlines()]
            if found := {line[0]: int(line[1]) * _KIBIBYTE for line in words if line and line[0] in (*private, shared)}:
                return sum(found.get(name, 0) for name in private), found.get(shared, 0)
    return None


def _places(pid: int) -> Iterator[str]:
    """Yield the folder of a process in /proc, and then those of its threads."""
    yield f"/proc/{pid}"
    yield from (f"/proc/{pid}/task/{thread}" for thread in thread_ids(pid))
