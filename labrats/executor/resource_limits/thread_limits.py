"""Limits on the threads of a service, a container or a user, which attempts share with the engine."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from labrats.processes import count_threads
from labrats.sandbox.control_groups import groups_above

_NEARLY_ALL: Final = 0.9
_NO_LIMIT: Final = "max"


@dataclass(frozen=True)
class ThreadLimit:
    """A limit. setting: where it is set. used: returns the number of threads that count for it."""

    setting: str
    most: int
    used: Callable[[], int]

    def is_nearly_reached(self) -> bool:
        """Return whether there are hardly any threads left."""
        try:
            return self.used() > self.most * _NEARLY_ALL
        except OSError:  # the group was removed, or there is no descriptor left
            return False


def thread_limits(group: Path | None = None) -> Iterator[ThreadLimit]:
    """Yield the limits. group: the control group of all attempts, whose own limits do not count; None without one."""
    for folder in groups_above("pids", group):
        with suppress(OSError):
            if (most := (folder / "pids.max").read_text().strip()) != _NO_LIMIT:
                yield ThreadLimit(f"{folder}/pids.max", int(most), partial(_current, folder))
    most_of_user, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.getuid() != 0 and most_of_user != resource.RLIM_INFINITY:  # the kernel does not limit root
        yield ThreadLimit("ulimit -u", most_of_user, _threads_of_user)


def _current(group: Path) -> int:
    return int((group / "pids.current").read_text())


def _threads_of_user() -> int:
    """Return the number of threads of this user on the machine, as far as this process sees them."""
    user, own = os.getuid(), list[int]()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == user:
                own.append(int(name))
    return count_threads(own)
