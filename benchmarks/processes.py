"""The processes below the measuring process: their processor time, their memory and their end."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labrats.processes import children, descendants, process_name, send_signal

ORPHAN_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36
_PAUSE_SECONDS = 0.01
_KIB_PER_MIB = 1024


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended, so that their processor time is counted here."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER)")


def cpu_seconds_below() -> float:
    """Return the total processor time of this process's descendants, both live and ended."""
    ended = os.times()
    living = sum(map(_cpu_ticks, descendants(os.getpid()))) / os.sysconf("SC_CLK_TCK")
    return ended.children_user + ended.children_system + living


def _cpu_ticks(pid: int) -> int:
    """Return the processor time of a process and of its reaped children; 0 when it has ended meanwhile."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, fields[11:15]))


def end_orphans(spare: Iterable[int] = (), seconds: float = ORPHAN_SECONDS) -> None:
    """Reap the orphans of an engine, and kill those that are still alive, such as its launcher, after a while.

    spare: children that are not orphans.
    """
    spared = {each for pid in spare for each in (pid, *descendants(pid))}
    deadline = time.monotonic() + seconds
    while True:
        _reap()
        if not set(children(os.getpid())) - spared:
            return
        if time.monotonic() > deadline:
            for pid in set(descendants(os.getpid())) - spared:
                send_signal(pid, signal.SIGKILL)
        time.sleep(_PAUSE_SECONDS)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


@contextmanager
def sleepers(number: int) -> Iterator[int]:
    """Run processes that only sleep during the block. Yield the pid of their parent."""
    script = f"i=0; while [ $i -lt {number} ]; do sleep 86400 & i=$((i + 1)); done; echo; wait"
    shell = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert shell.stdout
    with shell:
        shell.stdout.readline()
        try:
            yield shell.pid
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
    end_orphans(seconds=0)


def memory_mib(pids: Iterable[int]) -> float:
    """Return the memory of processes, in MiB. A page that several processes share counts in proportion."""
    return sum(map(_proportional_kib, pids)) / _KIB_PER_MIB


def _proportional_kib(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


def named(name: str, root: int) -> list[int]:
    """Return the processes called `name` below `root`, each with its descendants."""
    found = [pid for pid in descendants(root) if process_name(pid) == name]
    return list({each for pid in found for each in (pid, *descendants(pid))})
