"""Measure the resident memory, the processes and the folders of an attempt, against its limits.

Without a limit on memory or processes, an attempt may have a share of the machine, which the engine needs, too.
"""

import math
import os
import re
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from labrats.files.trees import remove_tree, sizes_on_disk
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from labrats.model.sizes import shown_size
from labrats.processes import count_threads, descendants
from labrats.sandbox.control_groups import THREADS_PER_PROCESS

_THREADS_SHARE: Final = 0.25
_MOST_THREADS: Final = (Path("/proc/sys/kernel/pid_max"), Path("/proc/sys/kernel/threads-max"))

_MACHINE: Final = Path("/proc/meminfo")
_SHORT: Final = 0.05
"""Share of the memory below which the kernel may soon end any process, the largest first, which may be the engine."""

_MEMORY_SHARE: Final = 0.5
_DISK_SHARE: Final = 0.1
_LARGE_BYTES: Final = 2**30
"""Share of a nearly full disk, and size on a full one, beyond which an attempt may have filled it."""

_SIZE: Final = re.compile(r"^(\w+):\s*([0-9]+) kB$", re.MULTILINE)
_RESIDENT: Final = ("RssAnon", "RssShmem", "VmSwap")
_PROPORTIONAL: Final = ("Pss_Anon", "Pss_Shmem", "SwapPss")


class Sampler:
    """Measures an attempt. is_filled: whether it may have filled the disk. stopped: ends a measurement of the disk."""

    def __init__(self, limits: ResourceLimits, folders: Sequence[Path], stopped: threading.Event) -> None:
        self.is_filled = False
        self._limits, self._folders, self._stopped = limits, folders, stopped
        self._most_threads, self._had_excess = most_threads(), False

    def excess_of_processes(self) -> GiveUp | None:
        """Return the end of an attempt with too many processes or threads, or too much memory."""
        pids, most = descendants(os.getpid(), ended_too=True), self._limits.processes
        if most is not None and len(pids) > most:
            return _too_many(f"{len(pids)} processes, over LABRATS_AGENT_PROCESSES ({most}): raise the limit, or give")
        threads = count_threads(pids)
        if most is not None and threads > most * THREADS_PER_PROCESS:
            what = f"{threads} threads, over {THREADS_PER_PROCESS} for each of LABRATS_AGENT_PROCESSES ({most})"
            return _too_many(f"{what}: raise the limit, or give")
        if threads > self._most_threads:
            what = f"{threads} threads, over {_THREADS_SHARE:.0%} of what the machine may have"
            return _too_many(f"{what} (kernel.pid_max and kernel.threads-max): give")
        return self._excess_of_memory(pids)

    def _excess_of_memory(self, pids: Sequence[int]) -> GiveUp | None:
        """Return the end of an attempt that has exceeded its memory twice in a row.

        The processes are read one after the other: what one shares with a child that starts meanwhile counts twice.
        """
        if (most := self._limits.memory_bytes or _share_of_memory()) == math.inf:
            self._had_excess = False
            return None
        used = sum(_resident_bytes(pid) for pid in pids)
        if used > most:
            used = sum(_proportional_bytes(pid) for pid in pids)
        was_exceeded, self._had_excess = self._had_excess, used > most
        if used <= most or not was_exceeded:
            return None
        return out_of_memory(used, self._limits.memory_bytes)

    def excess_on_disk(self) -> GiveUp | None:
        """Return the end of an attempt that takes too much of the disk, or that may have filled it."""
        limit, share = self._limits.disk_bytes, self._share_of_full_disk()
        if (most := min(limit or math.inf, share)) == math.inf or (used := self._used_bytes(most)) <= most:
            return None
        if used > share:
            self.is_filled = True
            reason = (
                f"the disk was nearly full, and the attempt took at least {shown_size(used)} of it. What it wrote was "
                "deleted: free some space, or let the agent write less"
            )
        else:
            reason = (
                f"the workspace, with the agent's home and temporary files, took at least {shown_size(used)}, over "
                f"{self._limits.disk_setting} ({shown_size(limit or 0)}): raise the limit, or let the agent write less"
            )
        return GiveUp(FailedCode.DISK_LIMIT, reason)

    def remove_folders(self) -> None:
        """Remove the folders of an attempt that has filled the disk: the engine could not record its end otherwise."""
        for folder in self._folders:
            remove_tree(folder)

    def _share_of_full_disk(self) -> float:
        """Return what an attempt may take of a disk that is nearly full; infinity while it is not.

        The engine frees space by deleting what other jobs have left. A single agent must not make it delete all that.
        """
        kept, folder = self._limits.kept_free_bytes, next(filter(Path.exists, self._folders), None)
        if not (kept and folder):
            return math.inf
        disk = shutil.disk_usage(folder)
        if disk.free < kept / 2:  # faster than the engine can free space
            return min(kept, _LARGE_BYTES)
        return disk.total * _DISK_SHARE if disk.free < kept else math.inf

    def _used_bytes(self, enough: float) -> int:
        """Return the bytes of the folders on the disk, or more than `enough`. 0 once the attempt has ended."""
        used = 0
        for size in sizes_on_disk(self._folders):
            used += size
            if used > enough:
                break
            if self._stopped.is_set():
                return 0
        return used


def most_threads() -> float:
    """Return the number of threads that an attempt may have without a limit."""
    numbers = [int(file.read_text()) for file in _MOST_THREADS if file.exists()]  # gVisor has none
    return min(numbers, default=math.inf) * _THREADS_SHARE


def out_of_memory(used: int, limit: int | None) -> GiveUp:
    """Return the end of an attempt that has used too much memory. limit: None for a share of the machine's."""
    if limit is None:
        what = f"{_MEMORY_SHARE:.0%} of the machine's, which was nearly full: use a machine with more"
    else:
        what = f"LABRATS_AGENT_MEMORY ({shown_size(limit)}): raise the limit"
    reason = f"the attempt used {shown_size(used)} of memory, over {what}, or give the agent less to do at once"
    return GiveUp(FailedCode.OUT_OF_MEMORY, reason)


def _too_many(what: str) -> GiveUp:
    return GiveUp(FailedCode.PROCESS_LIMIT, f"the attempt had {what} the agent less to do at once")


def _share_of_memory() -> float:
    """Return what an attempt without a limit may have of the machine's memory; infinity while there is enough."""
    sizes = _sizes(_MACHINE)
    if sizes.get("MemAvailable", math.inf) + sizes.get("SwapFree", 0) > sizes["MemTotal"] * _SHORT:
        return math.inf
    return sizes["MemTotal"] * _MEMORY_SHARE


def _resident_bytes(pid: int) -> int:
    """Return the memory of a process, without mapped files. 0 once it has ended."""
    sizes = _sizes(Path(f"/proc/{pid}/status"))
    return sum(sizes.get(name, 0) for name in _RESIDENT)


def _proportional_bytes(pid: int) -> int:
    """Return the memory of a process, of which shared memory counts in part. The kernel looks at each page for it."""
    sizes = _sizes(Path(f"/proc/{pid}/smaps_rollup"))
    return sum(sizes.get(name, 0) for name in _PROPORTIONAL) if sizes else _resident_bytes(pid)


def _sizes(file: Path) -> dict[str, int]:
    """Return the sizes in a file of /proc, in bytes by their names: none if the process has ended or hides them."""
    with suppress(OSError):
        return {name: int(size) * 1024 for name, size in _SIZE.findall(file.read_text(errors="replace"))}
    return {}
