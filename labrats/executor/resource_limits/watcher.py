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

from labrats.executor.resource_limits.sampler import Sampler, most_threads, out_of_memory
from labrats.model.errors import GiveUp
from labrats.model.protocol import ResourceLimits
from labrats.processes import kill_descendants
from labrats.sandbox.control_groups import ControlGroup, own_group

T = TypeVar("T")

SAMPLE_SECONDS: Final = 0.1
"""Pause between two measurements of the processes and their memory, if these are limited."""

LONG_SAMPLE_SECONDS: Final = 1.0
PAUSE_FACTOR: Final = 20.0
"""Shortest pause between two measurements of the disk, and its least ratio to the time of a measurement."""


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
) -> T:
    """Return the result of `work`, and measure the descendants of this process and `folders` meanwhile.

    If they exceed a limit, the descendants are killed, and GiveUp is raised. The limit on the processors stays in force
    after `work`. group: that of this process, in which the kernel ends processes beyond a limit on the memory.
    """
    if limits.cpus is not None:
        share_processors(limits.cpus)
    watcher = _Watcher(limits, folders, group)
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
    """Two threads that measure: the disk can take long, and an agent can keep the event loop busy with its output.

    failure: the limit that was exceeded, or the error for which a limit cannot be enforced.
    """

    def __init__(self, limits: ResourceLimits, folders: Sequence[Path], group: ControlGroup | None) -> None:
        self.failure: Exception | None = None
        self._limits, self._group = limits, group
        self._loop, self._exceeded = asyncio.get_running_loop(), asyncio.Event()
        self._stopped = threading.Event()
        self._sampler = Sampler(limits, folders, self._stopped)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure during the block. What has no limit of its own is measured once a second, and not at first."""
        is_limited = self._limits.memory_bytes is not None or self._limits.processes is not None
        pause = SAMPLE_SECONDS if is_limited else LONG_SAMPLE_SECONDS
        processes = self._thread(lambda: self._repeat(self._excess_of_processes, lambda _: pause))
        disk = self._thread(lambda: self._repeat(self._sampler.excess_on_disk, _long_pause))
        for thread, delay in ((processes, 0.0 if is_limited else LONG_SAMPLE_SECONDS), (disk, LONG_SAMPLE_SECONDS)):
            self._loop.call_later(delay, self._start, thread) if delay else thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            for thread in filter(threading.Thread.is_alive, (processes, disk)):
                thread.join()

    def kernel_limit(self) -> GiveUp | None:
        """Return the limit for which the kernel has ended processes, if any."""
        limit = self._limits.memory_bytes
        if self._group is None or limit is None or self._group.ended_processes == 0:
            return None
        return out_of_memory(limit, limit)

    async def excess(self) -> None:
        """Wait until a limit was exceeded and all descendants were killed. Raises `failure` then."""
        await self._exceeded.wait()
        assert self.failure is not None
        raise self.failure

    def _thread(self, watch: Callable[[], GiveUp | None]) -> threading.Thread:
        return threading.Thread(target=self._run, args=(watch,), name="resource-limits")

    def _start(self, thread: threading.Thread) -> None:
        if self._stopped.is_set():
            return
        try:
            thread.start()
        except RuntimeError as error:  # there is no thread left
            self._end(error)

    def _run(self, watch: Callable[[], GiveUp | None]) -> None:
        failure: Exception | None
        try:
            failure = watch()
        except Exception as error:  # noqa: BLE001 - it ends the attempt, which would go on without this limit
            failure = error
        if failure and not self._stopped.is_set():
            self._end(failure)

    def _end(self, failure: Exception) -> None:
        self.failure = failure  # first, since the end of the descendants makes `work` fail, too
        try:
            kill_descendants(os.getpid())
        except BaseException:  # noqa: BLE001 - the agent would go on without this limit
            # The launcher ends what this process leaves behind. In a pod, the runtime does.
            traceback.print_exc()
            os._exit(1)
        if self._sampler.is_filled:
            self._sampler.remove_folders()
        self._loop.call_soon_threadsafe(self._exceeded.set)

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

    def _excess_of_processes(self) -> GiveUp | None:
        return self._sampler.excess_of_processes() or self.kernel_limit()


def _long_pause(taken: float) -> float:
    return max(LONG_SAMPLE_SECONDS, taken * PAUSE_FACTOR)
