"""Control groups (cgroup v2), by which the kernel limits the processes of an attempt, also between two measurements.

The engine uses them where an operator lets it create some: systemd marks the group of a service with `Delegate=`. The
engine must then run in a group below (`DelegateSubgroup=`), since a group with processes of its own cannot pass limits
on.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from labrats.model.protocol import ResourceLimits

THREADS_PER_PROCESS: Final = 32
"""Threads that an attempt may have for each of its processes: the kernel's numbers for both are the same."""

_OWN_GROUP: Final = Path("/proc/self/cgroup")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_MOUNT: Final = r"\S+ \S+ \S+ (?P<root>\S+) (?P<place>\S+) .* - "
_VERSION_2: Final = re.compile(f"{_MOUNT}cgroup2 ", re.MULTILINE)
_PROCESSES: Final = "cgroup.procs"
_ENABLED: Final = "cgroup.subtree_control"
_NEEDED: Final = frozenset({"memory", "pids"})
_MARKS: Final = ("trusted.delegate", "user.delegate")
"""Attributes with which systemd marks a group that it leaves to a service."""

_JOBS: Final = "jobs"
"""The group of all attempts."""

_EXECUTORS: Final = "executors"
"""The group of executors between two attempts, beside that of attempts. The engine's own may belong to another user."""

_EXECUTOR_BYTES: Final = 512 * 2**20
_EXECUTOR_THREADS: Final = 64
"""Memory and threads of the executor, with its proxies, which is in the group of its attempt."""

_PERIOD_MICROSECONDS: Final = 100_000


def create_group_of_jobs(limits: ResourceLimits) -> Path | None:
    """Create the group of all attempts if it does not exist, and return its folder; None without a delegated group.

    Empty groups of attempts are removed. Raises OSError. limits: those of an attempt, and the processors of all.
    """
    if (group := delegated_group()) is None:
        return None
    jobs = group / _JOBS
    enabled = _NEEDED | ({"cpu"} & _words(group / "cgroup.controllers"))
    (group / _ENABLED).write_text(" ".join(f"+{name}" for name in sorted(enabled)))
    jobs.mkdir(exist_ok=True)
    (group / _EXECUTORS).mkdir(exist_ok=True)
    (jobs / _ENABLED).write_text(" ".join(f"+{name}" for name in sorted(_NEEDED)))
    if "cpu" in enabled:
        quota = "max" if limits.cpus is None else str(limits.cpus * _PERIOD_MICROSECONDS)
        (jobs / "cpu.max").write_text(f"{quota} {_PERIOD_MICROSECONDS}")
    for attempt in filter(Path.is_dir, jobs.iterdir()):
        remove_group(attempt)
    return jobs


def remove_group(group: Path) -> None:
    """Remove the group of an attempt, unless it has processes."""
    with suppress(OSError):
        group.rmdir()


def delegated_group() -> Path | None:
    """Return the folder of the group that is left to this process; None if there is none, or if it cannot be used."""
    return group if (group := _marked_group()) and _problem_of(group) is None else None


def problem_of_delegated_group() -> str | None:
    """Return why the group that is left to this process cannot be used; None if it can, or if there is none."""
    return _problem_of(group) if (group := _marked_group()) else None


def _marked_group() -> Path | None:
    """Return the folder of the group above that of this process, if systemd has left it to the service."""
    with suppress(OSError):
        if (own := _own_group()) and own.parent != own and _is_marked(own.parent):
            return own.parent
    return None


def _problem_of(group: Path) -> str | None:
    try:
        if missing := _NEEDED - _words(group / "cgroup.controllers"):
            return f"{group} has no controller {', '.join(sorted(missing))}: see `Delegate=`"
        if _words(group / _PROCESSES):
            return f"{group} has processes of its own, perhaps jobs of an earlier version: restart once they have ended"
    except OSError as error:
        return f"{group} cannot be read: {error.strerror}"
    return None


def _own_group() -> Path | None:
    """Return the folder of this process's group; None without cgroup v2."""
    return _own_group_in(_VERSION_2, "")


def _own_group_in(mounts: re.Pattern[str], controller: str) -> Path | None:
    """Return the folder of this process's group in a hierarchy. controller: one of version 1, or empty."""
    mount = mounts.search(_MOUNTS.read_text())
    groups = (line.split(":", 2) for line in _OWN_GROUP.read_text().splitlines())
    own = next((group for _, names, group in groups if controller in names.split(",")), None)
    if mount is None or own is None or not Path(own).is_relative_to(mount["root"]):
        return None
    return Path(mount["place"]) / Path(own).relative_to(mount["root"])


def groups_above(controller: str, below: Path | None = None) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, in both versions of control groups.

    Others than a controller's are not yielded in version 1, and may be in version 2. below: without this group of
    version 2, and those below it.
    """
    version_1 = re.compile(rf"{_MOUNT}cgroup \S+ (?:\S*,)?{controller}(?:,|$)", re.MULTILINE)
    with suppress(OSError):
        for group in (below.parent if below else _own_group(), _own_group_in(version_1, controller)):
            while group and (group / _PROCESSES).exists():
                yield group
                group = group.parent


def _is_marked(group: Path) -> bool:
    """Return whether systemd leaves the group to a service. Others may be writable, and are systemd's all the same."""
    for mark in _MARKS:
        with suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return False


def _words(file: Path) -> set[str]:
    return set(file.read_text().split())


class ControlGroup:
    """The group of an attempt, with its executor."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def ended_processes(self) -> int:
        """The number of processes that the kernel has ended because the group reached its limit on the memory.

        0 if it has ended some because the machine, or the whole service, had no more.
        """
        with suppress(OSError, KeyError, ValueError):
            lines = (self._folder / "memory.events").read_text().splitlines()
            events = {name: int(count) for name, count in map(str.split, lines)}
            return events["oom_kill"] if events["oom"] else 0
        return 0

    def limit(self, limits: ResourceLimits, most_threads: float) -> None:
        """Set the kernel's limits, above those at which the executor ends the attempt. Raises OSError.

        most_threads: of an attempt without a limit on its processes.
        """
        threads = most_threads if limits.processes is None else limits.processes * THREADS_PER_PROCESS
        self._set("pids.max", int(min(threads, 2**22)) + _EXECUTOR_THREADS)
        if limits.memory_bytes is not None:
            self._set("memory.max", limits.memory_bytes + _EXECUTOR_BYTES)
            with suppress(FileNotFoundError):  # a kernel without swap
                self._set("memory.swap.max", 0)

    def _set(self, file: str, value: int) -> None:
        (self._folder / file).write_text(str(value))


@contextmanager
def own_group(folder: Path, limits: ResourceLimits, most_threads: float) -> Iterator[ControlGroup]:
    """Run this process, and all that it starts, in a new group. Raises OSError.

    At the end, this process leaves the new group, which is removed unless other processes are left.
    """
    folder.mkdir(exist_ok=True)
    group = ControlGroup(folder)
    try:
        group.limit(limits, most_threads)
        _enter(folder)
    except OSError:
        remove_group(folder)
        raise
    try:
        yield group
    finally:
        with suppress(OSError):  # the engine tries again to remove the group
            _enter(folder.parents[1] / _EXECUTORS)
        remove_group(folder)


def _enter(folder: Path) -> None:
    (folder / _PROCESSES).write_text("0")
