"""Limits of the kernel for each program of an attempt, and the order in which it ends programs."""

import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from labrats.model.protocol import ResourceLimits, Sandbox
from tests.unit.executor.resource_limits.limited_attempts import MEBIBYTE, an_attempt_of

QUEUE_SIGNALS = """
import ctypes, os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN + 5])
libc, queued = ctypes.CDLL(None), 0
while queued < 10**6 and libc.sigqueue(os.getpid(), signal.SIGRTMIN + 5, ctypes.c_void_p(0)) == 0:
    queued += 1
print(queued, file=open("out", "w"))
"""


@pytest.mark.parametrize("place", ["sandbox", "pod"])
def test_signals_that_wait_are_left_to_others(tmp_path: Path, place: str) -> None:
    """Without any left, other processes of the user could set no timer. The pods of a node have the same user."""
    program = shutil.which("bwrap")
    assert program
    fields: dict[str, Any] = {"sandbox": Sandbox(program=program)} if place == "sandbox" else {"on_cluster": True}
    attempt = an_attempt_of(tmp_path, QUEUE_SIGNALS, ResourceLimits(), **fields)
    attempt.run()
    most, _ = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    assert most == resource.RLIM_INFINITY or int((attempt.workspace / "out").read_text()) <= most // 16


def has_resource_capability() -> bool:
    """Return whether this process may lower the score by which the kernel chooses a victim."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> 24 & 1)


def test_the_kernel_ends_agents_before_the_engine(tmp_path: Path, isolation: dict[str, Any]) -> None:
    """Only root can do it without a sandbox, and only with all capabilities keep agents from taking that back."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    score = "/proc/self/oom_score_adj"
    script = f"""
with open("out", "w") as out:
    print(open("{score}").read().strip(), file=out)
try:
    open("{score}", "w").write("0")
except OSError:
    pass
print(open("{score}").read().strip(), file=open("out", "a"))
"""
    attempt = an_attempt_of(tmp_path, script, ResourceLimits(), **isolation)
    attempt.run()
    first, last = map(int, (attempt.workspace / "out").read_text().split())
    assert first == (max(500, own) if isolation or os.geteuid() == 0 else own)
    assert last == first if has_resource_capability() else last <= first


def test_files_in_memory_are_limited_in_the_sandbox(tmp_path: Path) -> None:
    program = shutil.which("bwrap")
    assert program
    script = """
import os
def fill(path):
    try:
        with open(path, "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
        return "filled"
    except OSError as error:
        return os.strerror(error.errno)
print(fill("/dev/shm/a"), fill("/dev/a"), file=open("out", "w"))
"""
    sandbox = Sandbox(program=program, shm_bytes=16 * MEBIBYTE)
    attempt = an_attempt_of(tmp_path, script, ResourceLimits(), sandbox=sandbox)
    attempt.run()
    assert (attempt.workspace / "out").read_text() == "No space left on device Read-only file system\n"
