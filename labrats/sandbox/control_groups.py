"""Control groups (cgroup v2), by which the kernel limits the processes of an attempt, also between two measurements.

The engine uses them where it may create some: in a service of systemd with `Delegate=` and `DelegateSubgroup=`, in a
scope of systemd, which an engine that is started by hand makes for itself (`restart_in_scope`), and in a container
whose groups it may write. A group with processes of its own cannot pass limits on, so that the engine moves what runs
in its scope or container into a group below.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from labrats.model.protocol import ResourceLimits

THREADS_PER_PROCESS: Final = 32
"""Threads that an attempt may have for each of its processes: the kernel's numbers for both are the same."""

_OWN_GROUP: Final = Path("/proc/self/cgroup")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_MOUNT: Final = re.compile(r"\S+ \S+ \S+ (?P<root>\S+) (?P<place>\S+) .* - cgroup2 ", re.MULTILINE)
_OWN_LINE: Final = re.compile("^0::(.+)$", re.MULTILINE)
_PROCESSES: Final = "cgroup.procs"
_OF_PARTS: Final = "cgroup.type"
"""A file that every group has but the root of the whole hierarchy."""

_ENABLED: Final = "cgroup.subtree_control"
_NEEDED: Final = frozenset({"memory", "pids"})
_MARKS: Final = ("trusted.delegate", "user.delegate")
"""Attributes with which systemd marks a group that it leaves to a service."""

_ENGINE: Final = "engine"
"""The group of an engine in a scope or a container."""

_JOBS: Final = "jobs"
"""The group of all attempts."""

_EXECUTORS: Final = "executors"
"""The group of executors between two attempts, beside that of attempts. The engine's own may belong to another user."""

_EXECUTOR_BYTES: Final = 512 * 2**20
_EXECUTOR_THREADS: Final = 64
"""Memory and threads of the executor, with its proxies, which is in the group of its attempt."""

_SYSTEMD: Final = Path("/run/systemd/system")
_SECONDS: Final = 10.0

_SECONDS_TO_LEAVE, _PAUSE_SECONDS = 1.0, 0.02
"""Longest time until the kernel has released the processes that it has just ended, and between two looks."""

_PERIOD_MICROSECONDS: Final = 100_000


def create_group_of_jobs(limits: ResourceLimits) -> Path | None:
    """Create the group of all attempts if it does not exist, and return its folder; None without a delegated group.

    Empty groups of attempts are removed. Raises OSError. limits: those of an attempt, and the processors of all.
    """
    if (group := delegated_group()) is None:
        return None
    if processes := _words(group / _PROCESSES):
        (group / _ENGINE).mkdir(exist_ok=True)
        for pid in processes:
            with suppress(ProcessLookupError):
                (group / _ENGINE / _PROCESSES).write_text(pid)
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


def restart_in_scope(systemd: Path = _SYSTEMD) -> str | None:
    """Replace this process by the same program in a scope of systemd, where it may create control groups.

    Return why there is no scope; None where none is needed or systemd does not run. systemd: see `scope_command`.
    """
    if (command := scope_command(systemd)) is None:
        return None
    if (problem := problem_of_scope(command)) is None:
        os.execv(command[0], [*command, f"--unit={_scope()}", *sys.orig_argv])  # noqa: S606 - the same program again
    return problem


def scope_command(systemd: Path = _SYSTEMD) -> list[str] | None:
    """Return the start of a command that runs a program in a scope.

    None if this process is a service or has a group that is left to it, or where systemd does not run.
    systemd: a folder that exists while systemd runs.
    """
    own, program = _own_group(), shutil.which("systemd-run")
    if not (own and program and systemd.is_dir()) or own.suffix == ".service" or _marked_group():
        return None
    user = () if os.geteuid() == 0 else ("--user",)
    return [program, *user, "--scope", "--quiet", "--collect", "--property=Delegate=yes"]


def problem_of_scope(command: Sequence[str]) -> str | None:
    """Return why no program can run in a scope; None if one can. command: see `scope_command`."""
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    refusal = tried.stderr.strip() or f"exit status {tried.returncode}"
    return f"{command[0]}: {refusal}" if tried.returncode != 0 else None


def _scope() -> str:
    """Return the name of the scope of this process, whose id stays the same in it."""
    return f"labrats-{os.getpid()}.scope"


def remove_group(group: Path) -> bool:
    """Remove the group of an attempt. Return False if it has processes."""
    with suppress(FileNotFoundError):
        try:
            group.rmdir()
        except OSError:
            return False
    return True


def delegated_group() -> Path | None:
    """Return the folder of the group that is left to this process; None if there is none, or if it cannot be used."""
    return group if (group := _marked_group()) and _problem_of(group) is None else None


def problem_of_delegated_group() -> str | None:
    """Return why the group that is left to this process cannot be used; None if it can, or if there is none."""
    return _problem_of(group) if (group := _marked_group()) else None


def _marked_group() -> Path | None:
    """Return the folder of the group of this process or the one above, if it is left to this process."""
    with suppress(OSError):
        if own := _own_group():
            return next((group for group in (own.parent, own) if _is_marked(group) or _is_of_container(group)), None)
    return None


def _is_of_container(group: Path) -> bool:
    """Return whether the group is that of a container, and writable: the root of a hierarchy that is not the whole."""
    return (group / _OF_PARTS).exists() and not (group.parent / _PROCESSES).exists() and os.access(group, os.W_OK)


def _problem_of(group: Path) -> str | None:
    try:
        if missing := _NEEDED - _words(group / "cgroup.controllers"):
            return f"{group} has no controller {', '.join(sorted(missing))}: see `Delegate=`"
        if _own_group() != group and _words(group / _PROCESSES):
            return f"{group} has processes of its own, perhaps jobs of an earlier version: restart once they have ended"
    except OSError as error:
        return f"{group} cannot be read: {error.strerror}"
    return None


def _own_group() -> Path | None:
    """Return the folder of this process's group; None without cgroup v2."""
    mount, own = _MOUNT.search(_MOUNTS.read_text()), _OWN_LINE.search(_OWN_GROUP.read_text())
    if mount is None or own is None or not Path(own[1]).is_relative_to(mount["root"]):
        return None
    return Path(mount["place"]) / Path(own[1]).relative_to(mount["root"])


def _is_marked(group: Path) -> bool:
    """Return whether systemd leaves the group to a service. Others may be writable, and are systemd's all the same."""
    for mark in _MARKS:
        with suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return group.name == _scope()


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
        with suppress(OSError):
            _enter(folder.parents[1] / _EXECUTORS)
        end = time.monotonic() + _SECONDS_TO_LEAVE
        while not remove_group(folder) and time.monotonic() < end:  # later, the engine tries again
            time.sleep(_PAUSE_SECONDS)


def _enter(folder: Path) -> None:
    (folder / _PROCESSES).write_text("0")
