"""The limits on the memory and the processes of an attempt, by sampling its process tree.

Limits of the kernel for single processes do not fit: RLIMIT_AS keeps Node, Go and the JVM from starting, and
RLIMIT_NPROC does not apply to root.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import NO_LIMITS, ResourceLimits
from labrats.processes import descendants, kill_descendants

T = TypeVar("T")

SAMPLE_SECONDS: Final = 0.1
_KIBIBYTE: Final = 1024
_SHOWN_UNITS: Final = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


async def run_within_limits(work: Callable[[], Awaitable[T]], limits: ResourceLimits) -> T:
    """Return the result of `work`, and measure the descendants of this process meanwhile.

    If they exceed a limit, they are killed, and GiveUp is raised.
    """
    if limits == NO_LIMITS:
        return await work()
    watcher = _Watcher(limits)
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watcher.run(), name="resource-limits")
            result = await work()
            watching.cancel()
    except BaseExceptionGroup as failures:
        # Without the group: callers distinguish the failures of `work` by their types.
        raise watcher.failure or failures.exceptions[0] from None
    return result


@dataclass
class _Watcher:
    limits: ResourceLimits
    failure: GiveUp | None = field(default=None, init=False)

    async def run(self) -> None:
        """Measure until cancelled. Raises GiveUp after it has killed all descendants."""
        while (failure := self._exceeded_limit()) is None:
            await asyncio.sleep(SAMPLE_SECONDS)
        self.failure = failure  # first, since their end makes `work` fail, too
        kill_descendants(os.getpid())
        raise failure

    def _exceeded_limit(self) -> GiveUp | None:
        pids, limits = descendants(os.getpid()), self.limits
        if limits.processes is not None and len(pids) > limits.processes:
            return GiveUp(
                FailedCode.PROCESS_LIMIT,
                f"the attempt had {len(pids)} processes, over LABRATS_AGENT_PROCESSES ({limits.processes}): raise the "
                "limit, or give the agent less to do at once",
            )
        if limits.memory_bytes is not None and (used := _memory_above(limits.memory_bytes, pids)):
            return GiveUp(
                FailedCode.OUT_OF_MEMORY,
                f"the attempt used {_shown(used)} of memory, over LABRATS_AGENT_MEMORY "
                f"({_shown(limits.memory_bytes)}): raise the limit, or give the agent less to do at once",
            )
        return None


def _memory_above(limit: int, pids: Sequence[int]) -> int | None:
    """Return the bytes of memory of the processes if they exceed the limit, otherwise None.

    Files that are only mapped do not count. Memory that processes share counts once, but that takes long to measure, so
    it is measured only where a sum with repetitions exceeds the limit.
    """
    if sum(map(_own_memory, pids)) <= limit:
        return None
    used = sum(map(_share_of_memory, pids))
    return used if used > limit else None


def _own_memory(pid: int) -> int:
    return _sizes(f"/proc/{pid}/status", "RssAnon:", "RssShmem:") or 0


def _share_of_memory(pid: int) -> int:
    """Return the memory of a process, of which shared memory counts in part.

    A process can hide the parts from other users' processes, and then counts as a whole.
    """
    size = _sizes(f"/proc/{pid}/smaps_rollup", "Pss_Anon:", "Pss_Shmem:")
    return _own_memory(pid) if size is None else size


def _sizes(file: str, *names: str) -> int | None:
    """Return the sum of the named sizes in a file of /proc, in bytes; None if it cannot be read."""
    with suppress(OSError):
        lines = [line.split() for line in Path(file).read_text().splitlines()]
        return sum(int(words[1]) for words in lines if words and words[0] in names) * _KIBIBYTE
    return None


def _shown(size: int) -> str:
    unit, divisor = next(((unit, divisor) for unit, divisor in _SHOWN_UNITS if size >= divisor), ("bytes", 1))
    return f"{size / divisor:.3g} {unit}"
