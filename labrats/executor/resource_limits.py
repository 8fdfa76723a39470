"""The limits on the processors, the memory, the processes and the disk of an attempt.

Without any setting, an attempt has no more than a share of what the machine has for all: of its threads, of the files
that all processes of a user may watch by epoll, and, once they are nearly full, of the memory, the disk, and some kinds
of files. Without most of these, the engine cannot run.

All but the first are enforced by sampling the attempt's process tree and its folders, in threads of their own, as an
agent can keep the event loop busy with its output. Limits of the kernel for single processes do not fit: RLIMIT_AS
keeps Node, Go and the JVM from starting, and RLIMIT_NPROC does not apply to root.
"""

import asyncio
import math
import os
import re
import shutil
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from labrats.control_groups import THREADS_PER_PROCESS, ControlGroup, own_group
from labrats.executor.open_descriptors import (
    NamelessFile,
    hides_files,
    memory_of_sandbox,
    nameless_files,
    open_files,
    open_sockets,
    watched_by_epoll,
)
from labrats.executor.scarce_files import KINDS, most_memory_of_a_socket
from labrats.files.free_files import file_room
from labrats.files.trees import remove_tree, sizes_on_disk
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from labrats.processes import count_threads, descendants, kill_descendants, thread_ids
from labrats.sandbox import TEMPORARY

T = TypeVar("T")

SAMPLE_SECONDS: Final = 0.1

DISK_SAMPLE_SECONDS: Final = 1.0
DISK_PAUSE_FACTOR: Final = 20.0
"""Pause between two measurements of the disk: at least a second, and many times as long as a measurement took."""

_MAPPED_EVERY: Final = 5
"""Measurements of the disk for each search of files that are only mapped, which takes about 1 µs for each mapping."""

_SAMPLES_IN_EXCESS: Final = 2
"""Samples that must all exceed a limit on memory. The processes are read one after the other, so that what one shares
with a child that starts meanwhile counts twice in one sample.
"""

_NAMELESS_EVERY: Final = 10
"""Samples of the memory for each search of files without a name, which takes longer."""

_LARGE_EXECUTOR: Final = 512 * 1024 * 1024
"""Private memory of this process from which on it counts as the attempt's, whose output it reads."""

_HIDDEN_COUNTS: Final = 3
"""Counts in a row in which some process hides its open files until the attempt is ended. Some do so at their start."""

SHARES_SAMPLE_SECONDS: Final = 1.0
SHARES_PAUSE_FACTOR: Final = 20.0
"""Shortest pause between two counts of what the machine has for all, and its least ratio to the time of a count. A
count takes 0.3 to 0.7 ms, and there may be a thousand attempts; an agent needs seconds to take all of it.
"""
SHARES_LONGEST_PAUSE_SECONDS: Final = 5.0
"""An agent could otherwise make a count slow, such as with many files, and take something else during the pause."""

_MOST_THREADS: Final = (Path("/proc/sys/kernel/pid_max"), Path("/proc/sys/kernel/threads-max"))
_THREADS_SHARE: Final = 0.25

_DISK_SHARE: Final = 0.1
_LARGE_BYTES: Final = 2**30
"""Share of a nearly full disk, and size on a full one, beyond which an attempt may have filled it."""

_MEMORY: Final = Path("/proc/meminfo")
_MEMORY_SIZES: Final = re.compile("^(MemTotal|MemAvailable|Shmem|SwapTotal|SwapFree): *([0-9]+)", re.MULTILINE)
_MEMORY_SHARE: Final = 0.5
_SHORT_MEMORY: Final = 0.05
"""Share of the memory below which the kernel may soon end any process, the largest first, which may be the engine."""

_SCARCE_SHARE: Final = 0.1
"""Share of the files of a kind beyond which an attempt is ended once there are no more: several may have taken them."""

_MOST_WATCHES: Final = Path("/proc/sys/fs/epoll/max_user_watches")
_WATCHES_SHARE: Final = 0.05

_KIBIBYTE: Final = 1024
_SHOWN_UNITS: Final = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


@contextmanager
def in_control_group(limits: ResourceLimits, name: str, log: Callable[[str], None]) -> Iterator[ControlGroup | None]:
    """Run this process and its descendants in a control group of their own, if the engine may create some.

    A failure is logged: the limits are then only measured.
    """
    if limits.control_groups is None:
        yield None
        return
    with ExitStack() as stack:
        group = None
        try:
            most_threads = _share(_THREADS_SHARE, *_MOST_THREADS)
            group = stack.enter_context(own_group(Path(limits.control_groups, name), limits, most_threads))
        except OSError as error:
            log(f"[limits are measured ten times a second: no control group can be created ({error.strerror})]")
        yield group


async def run_within_limits(
    work: Callable[[], Awaitable[T]],
    limits: ResourceLimits,
    folders: Sequence[Path] = (),
    group: ControlGroup | None = None,
    *,
    is_confined: bool = False,
) -> T:
    """Return the result of `work`, and measure the descendants of this process and `folders` meanwhile.

    If they exceed a limit, the descendants are killed, and GiveUp is raised. The limit on the processors stays in force
    after `work`. group: that of this process, in which the kernel ends processes beyond a limit on the memory.
    is_confined: whether the descendants are in the sandbox, where none of them needs to hide its open files.
    """
    if limits.cpus is not None:
        share_processors(limits.cpus)
    watcher = _Watcher(limits, folders, group, is_confined)
    try:
        with watcher.running():
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(watcher.excess(), name="resource-limits")
                result = await work()
                watching.cancel()
    except BaseExceptionGroup as failures:
        # Without the group: callers distinguish the failures of `work` by their types.
        raise watcher.failure or watcher.kernel_limit() or failures.exceptions[0] from None
    if failure := watcher.failure or watcher.kernel_limit():
        raise failure
    return result


def share_processors(count: int) -> None:
    """Run this thread, and all processes that it starts, on the last `count` processors, or on all if there are fewer.

    All attempts get the same processors, among which the kernel balances them.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


class _Watcher:
    """Threads that measure, each in its own time.

    failure: the limit that was exceeded, or the error for which a limit cannot be enforced.
    """

    def __init__(
        self, limits: ResourceLimits, folders: Sequence[Path], group: ControlGroup | None, is_confined: bool
    ) -> None:
        self.failure: Exception | None = None
        self._limits, self._folders, self._group, self._is_confined = limits, folders, group, is_confined
        self._loop, self._exceeded = asyncio.get_running_loop(), asyncio.Event()
        self._stopped = threading.Event()
        self._samples = self._nameless_memory = self._hidden_counts = 0
        self._has_filled_disk = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure during the block."""
        watches = [self._watch_disk] if self._limits.disk_bytes is not None else []
        if self._limits.memory_bytes is not None or self._limits.processes is not None:
            watches.append(self._watch_processes)
        threads = [self._thread(watch) for watch in watches]
        for thread in threads:
            thread.start()
        shares = self._thread(self._watch_shares)
        start = self._loop.call_later(SHARES_SAMPLE_SECONDS, shares.start)  # a thread costs a millisecond
        try:
            yield
        finally:
            self._stopped.set()
            start.cancel()
            for thread in [*threads, *([shares] if shares.ident else [])]:
                thread.join()

    def _thread(self, watch: Callable[[], GiveUp | None]) -> threading.Thread:
        return threading.Thread(target=self._run, args=(watch,), name="resource-limits")

    def kernel_limit(self) -> GiveUp | None:
        """Return the limit for which the kernel has ended processes, if any."""
        limit = self._limits.memory_bytes
        if self._group is None or limit is None or self._group.ended_processes == 0:
            return None
        return _out_of_memory(limit, limit)

    async def excess(self) -> None:
        """Wait until a limit was exceeded and all descendants were killed. Raises `failure` then."""
        await self._exceeded.wait()
        assert self.failure is not None
        raise self.failure

    def _run(self, watch: Callable[[], GiveUp | None]) -> None:
        failure: Exception | None
        try:
            failure = watch()
        except Exception as error:  # noqa: BLE001 - it ends the attempt, which would go on without this limit
            failure = error
        if failure is None or self._stopped.is_set():
            return
        self.failure = failure  # first, since the end of the descendants makes `work` fail, too
        try:
            kill_descendants(os.getpid())
        except BaseException:  # noqa: BLE001 - the agent would go on without this limit
            # The launcher ends what this process leaves behind. In a pod, the runtime does.
            traceback.print_exc()
            os._exit(1)
        if self._has_filled_disk:  # the engine cannot record the end of the attempt on a full disk
            for folder in self._folders:
                remove_tree(folder)
        self._loop.call_soon_threadsafe(self._exceeded.set)

    def _watch_processes(self) -> GiveUp | None:
        """Measure until stopped. Return the limit that was exceeded, if any."""
        while (failure := self._exceeded_limit()) is None:
            if self._stopped.wait(SAMPLE_SECONDS):
                return None
        return failure

    def _watch_shares(self) -> GiveUp | None:
        """Count until stopped. Return the share that was exceeded, if any."""
        threads, watches = _share(_THREADS_SHARE, *_MOST_THREADS), _share(_WATCHES_SHARE, _MOST_WATCHES)
        started = time.monotonic()
        while (failure := self._exceeded_share(threads, watches)) is None:
            taken = time.monotonic() - started
            pause = max(SHARES_SAMPLE_SECONDS, taken * SHARES_PAUSE_FACTOR)
            if self._stopped.wait(min(pause, SHARES_LONGEST_PAUSE_SECONDS)):
                return None
            started = time.monotonic()
        return failure

    def _exceeded_share(self, most_threads: float, most_watches: float) -> GiveUp | None:
        pids = descendants(os.getpid())
        if (threads := count_threads(pids)) > most_threads:
            return GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt had {threads} threads, over {_THREADS_SHARE:.0%} of what the machine may have "
                "(kernel.pid_max and kernel.threads-max): give the agent less to do at once",
            )
        if (watched := watched_by_epoll(pids, most_watches)) > most_watches:
            return GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt watched at least {watched} files by epoll, over {_WATCHES_SHARE:.0%} of what all "
                "processes of a user may watch (fs.epoll.max_user_watches): let the agent open fewer at once",
            )
        for kind in KINDS:
            if kind.is_used_up() and (held := open_files(pids, kind)) > kind.most() * _SCARCE_SHARE:
                return GiveUp(
                    FailedCode.PROCESS_LIMIT,
                    f"the attempt had {held} {kind.name}, over {_SCARCE_SHARE:.0%} of what the machine has for all "
                    f"({kind.setting}), when none was left: let the agent open fewer at once",
                )
        if failure := self._excess_on_full_disk() or self._excess_of_hidden(pids):
            return failure
        short = _short_memory()
        if short and (sockets := open_sockets(pids)) * most_memory_of_a_socket() > short * _MEMORY_SHARE:
            return GiveUp(
                FailedCode.OUT_OF_MEMORY,
                f"the attempt had {sockets} sockets, whose buffers can take over {_MEMORY_SHARE:.0%} of the machine's "
                "memory, which was nearly full: use a machine with more, or give the agent less to do at once",
            )
        if (
            short
            and self._limits.memory_bytes is None
            and (used := self._memory_above(int(short * _MEMORY_SHARE), pids))
        ):
            return GiveUp(
                FailedCode.OUT_OF_MEMORY,
                f"the attempt used {_shown(used)} of memory, over {_MEMORY_SHARE:.0%} of the machine's, which was "
                "nearly full: use a machine with more, or give the agent less to do at once",
            )
        return None

    def _watch_disk(self) -> GiveUp | None:
        """Measure until stopped. Return the limit that was exceeded, if any."""
        limit = self._limits.disk_bytes
        assert limit is not None
        started = time.monotonic()
        measurements = 0
        while (used := self._disk_usage(limit, mapped=measurements % _MAPPED_EVERY == 0)) <= limit:
            measurements += 1
            taken = time.monotonic() - started
            if self._stopped.wait(max(DISK_SAMPLE_SECONDS, taken * DISK_PAUSE_FACTOR)):
                return None
            started = time.monotonic()
        return GiveUp(
            FailedCode.DISK_LIMIT,
            f"the workspace, with the agent's home and temporary files, took at least {_shown(used)}, over "
            f"{self._limits.disk_setting} ({_shown(limit)}): raise the limit, or let the agent write less",
        )

    def _excess_on_full_disk(self) -> GiveUp | None:
        """Return the end of an attempt that may have filled the disk, if this is nearly full, also of files.

        The engine frees space by deleting what other jobs have left. A single agent must not make it delete all that.
        """
        kept, folder = self._limits.kept_free_bytes, next(filter(Path.exists, self._folders), None)
        if not (kept and folder):
            return None
        disk, files, excess = shutil.disk_usage(folder), file_room(folder), None
        most_files = _most_on_full_disk(files.total, files.free, files.kept, files.kept)
        if (most := _most_on_full_disk(disk.total, disk.free, kept, _LARGE_BYTES)) is not None:
            if (taken := self._disk_usage(most, mapped=True)) > most:
                excess = f"the attempt took at least {_shown(taken)} of it"
            elif disk.free < kept / 2 and self._has_unknown_files():
                excess = "the attempt had mapped deleted files, whose size the engine's user cannot read"
        if excess is None and most_files is not None:
            taken = self._disk_usage(most_files, mapped=True, each=lambda _: 1)
            if taken > most_files:
                excess = f"the attempt had at least {taken} files, when there was room for only {files.free} more"
        if excess is None:
            return None
        self._has_filled_disk = True
        return GiveUp(
            FailedCode.DISK_LIMIT,
            f"the disk was nearly full, and {excess}. What it wrote was deleted: free some space, or let the agent "
            "write less",
        )

    def _excess_of_hidden(self, pids: Sequence[int]) -> GiveUp | None:
        """Return the end of an attempt with a process that keeps its files hidden: they would count for nothing."""
        self._hidden_counts = self._hidden_counts + 1 if self._is_confined and any(map(hides_files, pids)) else 0
        if self._hidden_counts < _HIDDEN_COUNTS:
            return None
        return GiveUp(
            FailedCode.PROCESS_LIMIT,
            "the attempt ran a program that its user may not read, so that the memory and the disk that it takes "
            "cannot be measured: make the program readable (chmod +r)",
        )

    def _disk_usage(self, enough: int, *, mapped: bool, each: Callable[[int], int] = lambda size: size) -> int:
        """Return the bytes of the folders on the disk, or more than `enough`. 0 once the watcher is stopped.

        mapped: whether deleted files that are only mapped count, too. each: what a file of this size counts.
        """
        used = sum(each(file.size or 0) for file in self._nameless_files(mapped=mapped))
        for size in sizes_on_disk(self._folders):
            used += each(size)
            if used > enough:
                break
            if self._stopped.is_set():
                return 0
        return used

    def _has_unknown_files(self) -> bool:
        """Return whether the attempt has mapped deleted files of unknown size."""
        return any(file.size is None for file in self._nameless_files(mapped=True))

    def _nameless_files(self, *, mapped: bool) -> Iterator[NamelessFile]:
        """Yield the files without a name on the disks of the folders. In the sandbox, one folder is also `/tmp`."""
        disks = {os.stat(folder).st_dev for folder in self._folders if folder.exists()}
        folders = (*(os.path.realpath(folder) for folder in self._folders), str(TEMPORARY))
        names = tuple(os.fsencode(folder) + b"/" for folder in folders)
        for file in nameless_files(descendants(os.getpid()), mapped=mapped):
            if file.disk in disks or (file.size is None and file.name.startswith(names)):
                yield file

    def _memory_above(self, limit: int, pids: Sequence[int]) -> int | None:
        """Return the bytes of memory of the processes if they exceed the limit, otherwise None.

        Files that are only mapped do not count, but files in memory do. Memory that processes share counts once, but
        that takes long to measure, so it is measured only where a sum with repetitions exceeds the limit.
        """
        if _own_memory(os.getpid())[0] > _LARGE_EXECUTOR:
            pids = [*pids, os.getpid()]
        own = list(map(_own_memory, pids))
        if self._samples % _NAMELESS_EVERY == 0:
            # All files in memory of the machine take less than what is left to the attempt, as a rule.
            mapped = _total(own, 0) + _machine_files_in_memory() > limit
            files = nameless_files(pids, mapped=mapped)
            self._nameless_memory = sum(file.size or 0 for file in files if file.disk is None) + memory_of_sandbox(pids)
        self._samples += 1
        if _total(own, self._nameless_memory) <= limit:
            return None
        used = 0
        for _ in range(_SAMPLES_IN_EXCESS):
            used = _total(map(_share_of_memory, pids), self._nameless_memory)
            if used <= limit:
                return None
        return used

    def _exceeded_limit(self) -> GiveUp | None:
        pids, limits = descendants(os.getpid()), self._limits
        if limits.processes is not None and len(pids) > limits.processes:
            return GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt had {len(pids)} processes, over LABRATS_AGENT_PROCESSES ({limits.processes}): raise the "
                "limit, or give the agent less to do at once",
            )
        if limits.processes is not None and (threads := count_threads(pids)) > limits.processes * THREADS_PER_PROCESS:
            return GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt had {threads} threads, over {THREADS_PER_PROCESS} for each of LABRATS_AGENT_PROCESSES "
                f"({limits.processes}): raise the limit, or give the agent less to do at once",
            )
        if limits.memory_bytes is not None and (used := self._memory_above(limits.memory_bytes, pids)):
            return _out_of_memory(used, limits.memory_bytes)
        return self.kernel_limit()


def _out_of_memory(used: int, limit: int) -> GiveUp:
    return GiveUp(
        FailedCode.OUT_OF_MEMORY,
        f"the attempt used {_shown(used)} of memory, over LABRATS_AGENT_MEMORY ({_shown(limit)}): raise the limit, or "
        "give the agent less to do at once",
    )


def _share(share: float, *files: Path) -> float:
    """Return a share of the smallest number in files of /proc. One that is missing, as in gVisor, sets no limit."""
    numbers = [int(file.read_text()) for file in files if file.exists()]
    return min(numbers, default=math.inf) * share


def _short_memory() -> int | None:
    """Return the bytes of the machine's memory if it is nearly full, with the space to swap; otherwise None."""
    sizes = _memory_sizes()
    total, free = sizes["MemTotal"], sizes.get("MemAvailable", math.inf) + sizes.get("SwapFree", 0)
    return total if free < total * _SHORT_MEMORY else None


def _machine_files_in_memory() -> float:
    """Return at least the bytes of all files in memory of the machine, some of which may be in the space to swap."""
    sizes = _memory_sizes()
    return sizes.get("Shmem", math.inf) + sizes.get("SwapTotal", 0) - sizes.get("SwapFree", 0)


def _memory_sizes() -> dict[str, int]:
    return {name: int(size) * _KIBIBYTE for name, size in _MEMORY_SIZES.findall(_MEMORY.read_text())}


def _most_on_full_disk(total: int, free: int, kept: int, large: int) -> int | None:
    """Return what an attempt may take of a disk while it is nearly full; None while it is not.

    kept: what the engine keeps free. large: what an attempt that has filled the disk takes at least.
    """
    if free < kept / 2:  # faster than the engine can free space
        return min(kept, large)
    return int(total * _DISK_SHARE) if free < kept else None


def _total(memory: Iterable[tuple[int, int]], nameless: int) -> int:
    """Return the sum of the private and the shared memory. Files in memory are part of the latter as far as mapped."""
    private, shared = (sum(sizes) for sizes in zip(*memory, strict=True)) if (memory := list(memory)) else (0, 0)
    return private + max(shared, nameless)


def _own_memory(pid: int) -> tuple[int, int]:
    """Return the private memory of a process, page tables included, and the shared one."""
    return _sizes(pid, "status", ("RssAnon:", "VmPTE:"), "RssShmem:") or (0, 0)


def _share_of_memory(pid: int) -> tuple[int, int]:
    """Return the memory of a process, of which shared memory counts in part.

    A process can hide the parts from other users' processes, and then counts as a whole.
    """
    if (shares := _sizes(pid, "smaps_rollup", ("Pss_Anon:",), "Pss_Shmem:")) is None:
        return _own_memory(pid)
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


def _shown(size: int) -> str:
    unit, divisor = next(((unit, divisor) for unit, divisor in _SHOWN_UNITS if size >= divisor), ("bytes", 1))
    return f"{size / divisor:.3g} {unit}"
