"""Run the work of an attempt, and end it once it exceeds a limit."""

import asyncio
import os
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from labrats.executor.resource_limits.disk import DiskMeter
from labrats.executor.resource_limits.machine_shares import MachineShares, most_threads
from labrats.executor.resource_limits.memory import MemoryMeter
from labrats.executor.resource_limits.standstill import Standstill
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from labrats.model.sizes import shown_size
from labrats.processes import count_threads, descendants, kill_descendants
from labrats.sandbox.control_groups import THREADS_PER_PROCESS, ControlGroup, own_group

T = TypeVar("T")

SAMPLE_SECONDS: Final = 0.1
"""Pause between two measurements of the processes and their memory."""

LONG_SAMPLE_SECONDS: Final = 1.0
PAUSE_FACTOR: Final = 20.0
"""Shortest pause between two measurements of the disk, or of the shares of the machine, and its least ratio to the time
of a measurement. A count of the shares takes 0.3 to 0.7 ms, and there may be a thousand attempts; an agent needs
seconds to take all of it.
"""

SHARES_LONGEST_PAUSE_SECONDS: Final = 5.0
"""An agent could otherwise make a count slow, such as with many files, and take something else during the pause."""


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
            group = stack.enter_context(own_group(Path(limits.control_groups, name), limits, most_threads()))
        except OSError as error:
            log(f"[limits are measured ten times a second: no control group can be created ({error.strerror})]")
        yield group


async def run_within_limits(
    work: Callable[[], Awaitable[T]],
    limits: ResourceLimits,
    folders: Sequence[Path] = (),
    group: ControlGroup | None = None,
    is_confined: Callable[[int], bool] = lambda _: False,
) -> T:
    """Return the result of `work`, and measure the descendants of this process and `folders` meanwhile.

    If they exceed a limit, the descendants are killed, and GiveUp is raised. The limit on the processors stays in force
    after `work`. group: that of this process, in which the kernel ends processes beyond a limit on the memory.
    is_confined: returns whether a descendant is confined, so that it has no reason to hide its open files.
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
        self,
        limits: ResourceLimits,
        folders: Sequence[Path],
        group: ControlGroup | None,
        is_confined: Callable[[int], bool],
    ) -> None:
        self.failure: Exception | None = None
        self._limits, self._group, self._is_confined = limits, group, is_confined
        self._loop, self._exceeded = asyncio.get_running_loop(), asyncio.Event()
        self._stopped = threading.Event()
        self._standstill = Standstill()
        self._memory, self._disk = MemoryMeter(), DiskMeter(folders, limits, self._stopped)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure during the block."""
        threads = []
        if self._limits.disk_bytes is not None:
            threads.append(self._thread(lambda: self._repeat(self._disk.excess, _long_pause)))
        if self._limits.memory_bytes is not None or self._limits.processes is not None:
            threads.append(self._thread(lambda: self._repeat(self._exceeded_limit, lambda _: SAMPLE_SECONDS)))
        for thread in threads:
            thread.start()
        shares = self._thread(self._watch_shares)
        self._start_later(shares)  # a thread costs a millisecond
        try:
            yield
        finally:
            self._stopped.set()
            self._start.cancel()
            for thread in [*threads, *([shares] if shares.ident else [])]:
                thread.join()

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

    def _thread(self, watch: Callable[[], GiveUp | None]) -> threading.Thread:
        return threading.Thread(target=self._run, args=(watch,), name="resource-limits")

    def _start_later(self, thread: threading.Thread) -> None:
        self._start = self._loop.call_later(LONG_SAMPLE_SECONDS, self._start_or_measure, thread)

    def _start_or_measure(self, thread: threading.Thread) -> None:
        """Start the thread that measures the shares. If there is no thread left, measure them here and try again."""
        try:
            thread.start()
        except RuntimeError:
            self._run(MachineShares(self._limits, self._disk, self._is_confined).excess)
            self._start_later(thread)

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
        if self._disk.is_filled:
            self._disk.remove_folders()
        self._loop.call_soon_threadsafe(self._exceeded.set)

    def _watch_shares(self) -> GiveUp | None:
        shares = MachineShares(self._limits, self._disk, self._is_confined)
        return self._repeat(shares.excess, lambda taken: min(_long_pause(taken), SHARES_LONGEST_PAUSE_SECONDS))

    def _repeat(self, measure: Callable[[], GiveUp | None], pause: Callable[[float], float]) -> GiveUp | None:
        """Measure until stopped. Return the limit that was exceeded, if any.

        pause: returns the seconds until the next measurement, from those that the last one took.
        """
        started = time.monotonic()
        while (failure := measure()) is None:
            if self._stopped.wait(pause(time.monotonic() - started)):
                return None
            started = time.monotonic()
        return failure

    def _exceeded_limit(self) -> GiveUp | None:
        pids, limits = descendants(os.getpid(), ended_too=True), self._limits
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
        if (most := limits.memory_bytes) is not None:
            used = self._memory.excess(most, pids)
            if used is None and self._memory.may_miss:
                used = self._standstill.measured(lambda: self._memory.excess(most, descendants(os.getpid())))
            if used:
                return _out_of_memory(used, most)
        return self.kernel_limit()


def _long_pause(taken: float) -> float:
    return max(LONG_SAMPLE_SECONDS, taken * PAUSE_FACTOR)


def _out_of_memory(used: int, limit: int) -> GiveUp:
    return GiveUp(
        FailedCode.OUT_OF_MEMORY,
        f"the attempt used {shown_size(used)} of memory, over LABRATS_AGENT_MEMORY ({shown_size(limit)}): raise the "
        "limit, or give the agent less to do at once",
    )
