"""Facts about Linux processes, read from /proc, and how to end a whole tree of them.

A process is known by its pid, its start time and the boot it lived in: a pid alone is soon reused.
"""

import hashlib
import os
import re
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final


@dataclass(frozen=True)
class ProcessId:
    """One process, for ever. start_ticks: field 22 of /proc/PID/stat, clock ticks since boot."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The identity of `pid` as it is now, or None when there is no such process."""
        fields = _stat_fields(pid)
        return cls(pid, int(fields[19]), boot_id()) if fields else None

    @classmethod
    def parse(cls, text: str) -> "ProcessId | None":
        """Reads what `str()` wrote; None for anything else."""
        parts = text.split()
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.pid} {self.start_ticks} {self.boot_id}"

    @property
    def is_alive(self) -> bool:
        """Whether it still runs. A zombie does not: it has ended and only waits to be counted."""
        fields = _stat_fields(self.pid)
        return not self.is_reaped and bool(fields) and fields[0] not in "ZX"

    @property
    def is_reaped(self) -> bool:
        """Whether nothing of it is left, not even a zombie."""
        fields = _stat_fields(self.pid)
        return not fields or int(fields[19]) != self.start_ticks or self.boot_id != boot_id()


_boot_id = ""


def boot_id() -> str:
    """This boot of the machine."""
    global _boot_id
    if not _boot_id:
        _boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _boot_id


MOST_DESCRIPTORS: Final = 65_536
"""More than this no engine needs, and some programs walk through all that they might have open."""


def raise_descriptor_limit() -> int:
    """Let this process have as many open files as the system permits. Return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def children(pid: int) -> list[int]:
    """Return the children of the main thread of `pid`, dead ones that are not reaped included; none when it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(root: int) -> list[int]:
    """All living processes below `root`, parents before children."""
    children: dict[int, list[int]] = {}
    dead = set()
    for pid in _all_pids():
        if fields := _stat_fields(pid):
            children.setdefault(int(fields[1]), []).append(pid)
            if fields[0] in "ZX":
                dead.add(pid)  # it may have died since its child was looked at, so it still leads to that one
    found, frontier = [], [root]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, ())]
        found.extend(frontier)
    return [pid for pid in found if pid not in dead]


def with_environment(name: str, value: str) -> list[int]:
    """The living processes that were started with `name=value` in their environment."""
    wanted = f"{name}={value}".encode()
    found = []
    for pid in _all_pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # ended meanwhile, or not ours to read
            continue
        if wanted in environment.split(b"\0") and (fields := _stat_fields(pid)) and fields[0] not in "ZX":
            found.append(pid)
    return found


def kill_descendants(root: int, *, spare: frozenset[int] = frozenset(), seconds: float = 5.0) -> bool:
    """SIGKILL everything below `root` but `spare`, again until nothing is left. Whether it succeeded in time.

    Orphans must arrive at `root` or below, so `root` is a child subreaper, or is asked before it ends.
    """
    deadline = monotonic() + seconds
    pause = 0.001
    empty_looks = 0
    while empty_looks < 2:  # the first may have missed a child that was born of a dying parent meanwhile
        remaining = [pid for pid in descendants(root) if pid not in spare]
        if not remaining:
            empty_looks += 1
            continue
        if monotonic() > deadline:
            return False
        empty_looks = 0
        for pid in remaining:
            send_signal(pid, signal.SIGKILL)
        sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def send_signal(pid: int, number: int) -> bool:
    """Signal `pid`. False when it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def hides_processes() -> bool:
    """Return whether /proc shows a user only the processes that this user may trace (its option `hidepid`)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, filesystem = line.partition(" - ")
        if place.split()[4] == "/proc" and (hidepid := re.search(r"\bhidepid=(\w+)", filesystem)):
            return hidepid[1] not in ("0", "off")
    return False


def folder_mark(folder: Path) -> str:
    """The name by which an executor of the attempt in `folder` is known: at most 15 characters, as the kernel takes."""
    return f"lr-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def take_name(name: str) -> None:
    """Have the kernel call this process `name`. Everybody may read it, unlike most of a process's files."""
    Path("/proc/self/comm").write_text(name)


def name_of(pid: int) -> str:
    """The name of the process `pid`; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def describe_exit(word: str, number: int) -> str:
    """How an executor ended, for people."""
    if word != "signal":
        return f"exited with code {number}"
    with suppress(ValueError):
        return f"was killed by signal {number} ({signal.Signals(number).name})"
    return f"was killed by signal {number}"


def _all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


def _stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from field 3 (state) on; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            line = stat.read()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return line[line.rindex(b")") + 2 :].decode().split()  # the name before may hold spaces and parentheses
