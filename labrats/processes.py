"""Functions to inspect Linux processes through /proc and programs on PATH, and to kill a process tree.

A process is identified by its pid, its start time and the boot: a pid alone is soon reused.
"""

import hashlib
import os
import pwd
import re
import resource
import shutil
import signal
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from labrats.libc import LIBC, Prctl, prctl

_READ_BYTES: Final = 16 * 1024
_M_TRIM_THRESHOLD: Final = -1
_GLIBC_DEFAULT_TRIM_BYTES: Final = 128 * 1024
OOM_SCORE_FILE: Final = Path("/proc/self/oom_score_adj")
_AGENT_OOM_SCORE: Final = 500


@dataclass(frozen=True)
class ProcessId:
    """A unique identity of a process. start_ticks: field 22 of /proc/PID/stat, clock ticks since boot."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """Return the identity of the process that has `pid` now; None if there is none."""
        fields = _stat_fields(pid)
        return cls(pid, int(fields[19]), boot_id()) if fields else None

    @classmethod
    def parse(cls, text: str) -> "ProcessId | None":
        """Parse the result of `str()`; return None for any other text."""
        parts = text.split()
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.pid} {self.start_ticks} {self.boot_id}"

    @property
    def is_alive(self) -> bool:
        """True while the process runs. A zombie has ended and only waits to be reaped."""
        return not self.is_reaped and _runs(self.pid)

    @property
    def is_reaped(self) -> bool:
        """True once nothing of the process is left, not even a zombie."""
        fields = _stat_fields(self.pid)
        return not fields or int(fields[19]) != self.start_ticks or self.boot_id != boot_id()


_boot_id = ""


def drop_relative_search_paths() -> list[str]:
    """Remove the relative and empty entries of PATH from this process's environment. Return the removed ones.

    Git and other programs run in workspaces, where these would be folders of the repository or of an agent.
    """
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(filter(os.path.isabs, entries)) or os.defpath
    return [entry for entry in entries if not os.path.isabs(entry)]


def denied_program(program: str) -> str | None:
    """Return why this user may not execute a program that exists, as part of a sentence; None otherwise.

    program: a path, or a name that is searched for in PATH.
    """
    if shutil.which(program):
        return None
    is_path = "/" in program
    folders = [""] if is_path else os.environ.get("PATH", os.defpath).split(os.pathsep)
    for path in (Path(folder, program) for folder in folders):
        try:
            is_denied = stat.S_ISREG(path.stat().st_mode) and not os.access(path, os.X_OK)
        except PermissionError:  # of its folder, or of the folder that a link names
            is_denied = is_path or os.path.lexists(path)
        except OSError:
            continue
        if is_denied:
            return f"permission denied: {user_name(os.geteuid())} may not execute {path}"
    return None


def user_name(user: int) -> str:
    """Return the name of a user of this machine, for messages."""
    try:
        return f"the user {pwd.getpwuid(user).pw_name}"
    except KeyError:  # of a container, or deleted
        return f"the user id {user}"


def boot_id() -> str:
    """Return the id of the machine's current boot."""
    global _boot_id
    if not _boot_id:
        _boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _boot_id


MAX_DESCRIPTORS: Final = 65_536
"""The limit on open files. No engine needs more, and some programs iterate over all possible descriptors."""


def raise_descriptor_limit() -> int:
    """Raise this process's limit on open files as far as the system permits. Return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def return_freed_memory() -> None:
    """Let this process return the memory of large values to the system when it frees them.

    Otherwise glibc keeps more and more of it, for larger and larger values. Does nothing with another C library.
    """
    with suppress(AttributeError):
        LIBC.mallopt(_M_TRIM_THRESHOLD, _GLIBC_DEFAULT_TRIM_BYTES)  # setting it at all ends the growth


def children(pid: int) -> list[int]:
    """Return the children of `pid`, including zombies; none if the process is gone."""
    if not _kernel_lists_children():
        return [each for each in _all_pids() if (fields := _stat_fields(each)) and int(fields[1]) == pid]
    found: list[int] = []
    for thread in thread_ids(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def has_child() -> bool:
    """Return whether this process has a child, running or not yet reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def descendants(root: int, *, ended_too: bool = False) -> list[int]:
    """Return the living processes below `root`, parents before children.

    The processes are found from parent to child, so that the cost does not depend on other processes of the machine. A
    process whose parent dies meanwhile may be missing, since it moves to a subreaper that has been read already.

    ended_too: also return those that have ended and that their parents have not waited for. Each still takes an id.
        Those that `root` itself will wait for are left out: it may have adopted them.
    """
    frontier = living(children(root))
    found = list(frontier)
    while frontier:
        frontier = [child for parent in frontier for child in children(parent)]
        found.extend(frontier)
    return found if ended_too else living(found)


def living(pids: Iterable[int]) -> list[int]:
    """Return the processes that have not ended."""
    return list(filter(_runs, pids))


def count_threads(pids: Iterable[int]) -> int:
    """Return the number of threads of these processes. One that has ended counts one until its parent waits for it."""
    return sum(int(fields[17]) for pid in pids if (fields := _stat_fields(pid)))


def threads_of_user() -> int:
    """Return the number of threads of this user on the machine, as far as this process sees them."""
    user, own = os.getuid(), list[int]()
    for pid in _all_pids():
        with suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == user:
                own.append(pid)
    return count_threads(own)


def thread_ids(pid: int) -> list[int]:
    """Return the ids of the threads of a process, also of a main thread that has ended; none if the process is gone."""
    try:
        return list(map(int, os.listdir(f"/proc/{pid}/task")))
    except (FileNotFoundError, ProcessLookupError):
        return []


def with_environment(name: str, value: str) -> list[int]:
    """Return the living processes that were started with `name=value` in their environment."""
    wanted = f"{name}={value}".encode()
    found = []
    for pid in _all_pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # it has ended, or belongs to another user
            continue
        if wanted in environment.split(b"\0") and _runs(pid):
            found.append(pid)
    return found


def with_mount(place: Path) -> list[int]:
    """Return the living processes for which something is mounted at `place`. A process in a sandbox cannot hide it."""
    wanted = re.sub(rb"[\\ \t\n]", lambda found: b"\\%03o" % found[0][0], os.fsencode(place))
    found = []
    for pid in _all_pids():
        try:
            mounts = _read(f"/proc/{pid}/mountinfo")
        except OSError:  # it has ended
            continue
        if any(line.split()[4] == wanted for line in mounts.splitlines()) and _runs(pid):
            found.append(pid)
    return found


def kill_descendants(root: int, *, spare: frozenset[int] = frozenset(), seconds: float = 5.0) -> bool:
    """Kill everything below `root` except `spare` until nothing is left. Return False if that takes too long.

    Orphans must be reparented to `root` or below: `root` is a child subreaper, or still runs.
    """
    deadline = monotonic() + seconds
    pause = 0.001
    empty_scans = 0
    while empty_scans < 2:  # a single scan may miss a child of a parent that dies meanwhile
        if not kill_once(root, spare=spare):
            empty_scans += 1
            continue
        empty_scans = 0
        if monotonic() > deadline:
            return False
        sleep(pause)
        pause = min(pause * 2, 0.05)
    return True


def kill_once(root: int, *, spare: frozenset[int] = frozenset()) -> list[int]:
    """Send SIGKILL to everything below `root` except `spare`. Return the processes that were found."""
    found = [pid for pid in descendants(root) if pid not in spare]
    for pid in found:
        send_signal(pid, signal.SIGKILL)
    return found


def send_signal(pid: int, number: int) -> bool:
    """Send a signal to `pid`. Return False if the process is gone, or belongs to another user such as root."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def hides_processes() -> bool:
    """Return whether /proc shows a user only the processes that the user may trace (mount option `hidepid`)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, filesystem = line.partition(" - ")
        if place.split()[4] == "/proc" and (hidepid := re.search(r"\bhidepid=(\w+)", filesystem)):
            return hidepid[1] not in ("0", "off")
    return False


def become_subreaper() -> None:
    """Make this process adopt its orphaned descendants, in whatever session they are. Raises OSError."""
    prctl(Prctl.PR_SET_CHILD_SUBREAPER, 1)


def become_unreadable() -> None:
    """Prevent other processes of this user from reading the memory of this one, which contains the secrets.

    The programs that it executes are not protected. The function has no effect if /proc hides processes that a user may
    not trace: the engine finds its executors in /proc, and they would be hidden from it too.
    """
    if not hides_processes():
        prctl(Prctl.PR_SET_DUMPABLE, 0)


def raise_oom_score() -> None:
    """Let the kernel end this process and its descendants before others once the memory is full.

    Its descendants can take that back, unless this process has the capability SYS_RESOURCE. Has no effect for an
    ordinary user's process after `become_unreadable`; its descendants can do it, see `agent_oom_score`.
    """
    with suppress(OSError):
        OOM_SCORE_FILE.write_text(str(agent_oom_score()))


def agent_oom_score() -> int:
    """Return the score by which the kernel ends an agent first, or that of this process if it is higher."""
    return max(_AGENT_OOM_SCORE, int(OOM_SCORE_FILE.read_text()))


def executor_process_name(folder: Path) -> str:
    """Return the process name of executors of the attempt in `folder`: at most 15 characters, the kernel's limit."""
    return f"lr-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]}"


def set_process_name(name: str) -> None:
    """Set the name of this process. Unlike most files of a process, every user may read it."""
    prctl(Prctl.PR_SET_NAME, name.encode())


def process_name(pid: int) -> str:
    """Return the name of the process `pid`; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def process_owner(pid: int) -> int | None:
    """Return the real user id of the process `pid`; None if there is none, or /proc hides it."""
    owners = _status_field(pid, "Uid").split()
    return int(owners[0]) if owners else None


def describe_exit(word: str, number: int) -> str:
    """Describe the end of an executor, for people."""
    if word != "signal":
        return f"exited with code {number}"
    with suppress(ValueError):
        return f"was killed by signal {number} ({signal.Signals(number).name})"
    return f"was killed by signal {number}"


def _runs(pid: int) -> bool:
    """Return whether the process runs, also if only its main thread has ended, which makes it look like a zombie."""
    fields = _stat_fields(pid)
    return bool(fields) and (fields[0] not in "ZX" or int(fields[17]) > 1)


def _status_field(pid: int, name: str) -> str:
    """Return a field of /proc/PID/status; empty if there is no such process, or /proc hides it."""
    try:
        status = _read(f"/proc/{pid}/status")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    found = re.search(rb"^%s:\t(.*)$" % name.encode(), status, re.MULTILINE)
    return found[1].decode() if found else ""


def _all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]


@cache
def _kernel_lists_children() -> bool:
    """Return whether the kernel lists the children of a thread in /proc (option CONFIG_PROC_CHILDREN)."""
    return Path("/proc/thread-self/children").exists()


def _read(path: str) -> bytes:
    """Read a file of /proc, with fewer system calls than open() needs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(descriptor, _READ_BYTES):
            content += chunk
        return content
    finally:
        os.close(descriptor)


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from field 3 (state) on; empty if there is no such process."""
    try:
        line = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return line[line.rindex(b")") + 2 :].decode().split()  # the name in field 2 may contain spaces and parentheses
