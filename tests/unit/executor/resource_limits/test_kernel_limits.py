"""Limits of the kernel for each program of an attempt, and the order in which it ends programs."""

import os
import resource
import shutil
from pathlib import Path
from typing import Any

from labrats.model.protocol import ResourceLimits, Sandbox
from tests.unit.executor.resource_limits.limited_attempts import MEBIBYTE, an_attempt_of, in_sandbox

SHOW_LIMITS = """
import resource
with open("out", "w") as out:
    print(*(resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC)), file=out)
"""


def test_files_and_an_ordinary_users_threads_are_limited_in_the_sandbox(tmp_path: Path) -> None:
    before, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    limits = ResourceLimits(processes=100, disk_bytes=8 * MEBIBYTE)
    attempt = an_attempt_of(tmp_path, SHOW_LIMITS, limits, **in_sandbox())
    attempt.run()
    size, threads = map(int, (attempt.workspace / "out").read_text().split())
    assert size == (8 + 1024) * MEBIBYTE
    if os.geteuid() == 0:  # the kernel counts none
        assert threads == before
    else:
        assert 6400 < threads < 6400 + 10_000


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
