"""Kill the processes that the programs of an attempt leave running.

A process can survive SIGKILL: it waits in the kernel, for example for a lock that an agent holds, or it belongs to
another user, for example after `sudo`. It could exchange files that the executor reads and writes. Therefore no other
program is started beside it, the workspace is not read, and the attempt fails.
"""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.processes import children, descendants, has_child, kill_once, process_name, process_owner

_SECONDS: Final = 15.0
"""Time for processes to end, of which an agent can leave many. One that waits for a disk ends when the disk answers."""

_SECONDS_WHEN_STOPPED: Final = 5.0
"""The time in an attempt that was stopped, and is killed soon, or that has reached its time limit."""

_SECONDS_BESIDE_SURVIVOR: Final = 1.0
"""The time for other processes once one has survived: the attempt fails in any case."""

_SHORTEST_PAUSE_SECONDS: Final = 0.001
_LONGEST_PAUSE_SECONDS: Final = 0.05
_MOST_NAMED: Final = 3

_PROBLEM: Final = "a process that a program has left running cannot be killed, and could still change files"
_ADVICE: Final = "; it belongs to another user: end it in the command that starts it, or start it outside of the job"

_survivors: set[int] = set()
"""Ids of the processes that have survived SIGKILL, for which nobody waits again."""


class LeftRunning(GiveUp):
    """A process that a program has left running survives SIGKILL."""

    def __init__(self, code: FailedCode, pids: Sequence[int]) -> None:
        advice = _ADVICE if any(map(_is_out_of_reach, pids)) else ""
        super().__init__(code, f"{_PROBLEM}: {describe_processes(pids)}{advice}")


@asynccontextmanager
async def nothing_left_running(code: FailedCode) -> AsyncIterator[None]:
    """Kill every descendant of this process when the context exits.

    Raises LeftRunning with `code` if one survives. An exception with which the context exits, such as a timeout, is not
    replaced.
    """
    try:
        yield
        left = await kill_leftovers()
    except BaseException:
        await kill_leftovers()
        raise
    if left:
        raise LeftRunning(code, left)


async def kill_leftovers() -> list[int]:
    """Kill every descendant of this process. Return those that survive.

    This process is a subreaper, so that no descendant is left once it has no child. A scan of /proc alone could miss a
    process whose parent dies during the scan, and processes that /proc hides.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _seconds()
    pause = _SHORTEST_PAUSE_SECONDS
    while has_child():
        found = kill_once(os.getpid())
        if found and _survivors.issuperset(found):
            return found
        if loop.time() > deadline:
            left = found or children(os.getpid())
            _survivors.update(left)
            return left
        if found or not _reap_children():
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    return []


async def wait_until_killed(pid: int, exited: "asyncio.Future[int]") -> None:
    """Wait for the exit of a child that was sent SIGKILL, for as long as `kill_leftovers` would."""
    await asyncio.wait([exited], timeout=_seconds())
    if not exited.done():
        _survivors.add(pid)


def survivors() -> list[int]:
    """Return the processes that have survived SIGKILL and have not ended since."""
    if not _survivors:
        return []
    present = {*children(os.getpid()), *descendants(os.getpid())}  # the first also if /proc hides it
    return sorted(_survivors & present)


def describe_processes(pids: Sequence[int]) -> str:
    """Describe processes for people, by their names, ids and users."""
    named = [f"{process_name(pid)!r} (process {pid} of the user {_owner_name(pid)})" for pid in pids[:_MOST_NAMED]]
    return ", ".join(named) + (f" and {len(pids) - _MOST_NAMED} more" if len(pids) > _MOST_NAMED else "")


def _is_out_of_reach(pid: int) -> bool:
    """Return whether this process may send no signal to `pid`."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        pass
    return False


def _owner_name(pid: int) -> str:
    if (owner := process_owner(pid)) is None:
        return "unknown"
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return str(owner)


def _seconds() -> float:
    if survivors():
        return _SECONDS_BESIDE_SURVIVOR
    task = asyncio.current_task()
    return _SECONDS_WHEN_STOPPED if task and task.cancelling() > 0 else _SECONDS


def _reap_children() -> bool:
    """Reap the children that have ended. Return whether there was one."""
    has_reaped = False
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            has_reaped = True
    return has_reaped
