"""Limits on the memory of an attempt, with real programs that exceed them."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.resource_limits import memory
from labrats.model.job import FailedCode
from labrats.processes import with_environment
from tests.unit.executor.resource_limits.limited_attempts import (
    FILL_FILE_IN_MEMORY,
    FILL_MEMORY,
    FILL_MEMORY_TOGETHER,
    MEMORY,
    an_attempt_of,
    in_sandbox,
    looks_at_mapped_files,
)

FILL_MEMORY_WITHOUT_MAIN_THREAD = """
import ctypes, threading, time
def fill():
    held = bytearray(b'x') * (400 << 20)
    time.sleep(20)
threading.Thread(target=fill).start()
ctypes.CDLL(None).pthread_exit(None)
"""


FILL_TABLES_OF_DESCRIPTORS = """
import ctypes, os, resource, threading, time
UNSHARE_FILES = 0x400
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
os.dup2(0, min(most, 1 << 14) - 1)  # a table of 128 KiB
def fill():
    ctypes.CDLL(None).unshare(UNSHARE_FILES)
    time.sleep(20)
for _ in range(50):
    if os.fork() == 0:
        break
for _ in range(40):
    threading.Thread(target=fill, daemon=True).start()
time.sleep(20)
"""


FILL_FILE_OF_A_THREAD = """
import ctypes, os, threading, time
UNSHARE_FILES = 0x400
def fill():
    ctypes.CDLL(None).unshare(UNSHARE_FILES)
    file = os.memfd_create('file')
    for _ in range(400):
        os.write(file, b'x' * (1 << 20))
    time.sleep(20)
threading.Thread(target=fill, daemon=True).start()
time.sleep(20)
"""


FORGET_SHARED_MEMORY = """
import mmap, time
memory = mmap.mmap(-1, 400 << 20)
for place in range(0, 400 << 20, 16 << 20):
    memory[place : place + (16 << 20)] = b'x' * (16 << 20)
    memory.madvise(mmap.MADV_DONTNEED, place, 16 << 20)
time.sleep(20)
"""
CREATE_FILES_IN_MEMORY = """
import os, time
for number in range(300_000):
    os.close(os.open(f'/dev/shm/{number}', os.O_CREAT | os.O_WRONLY))
time.sleep(20)
"""
HIDE_FILE_IN_MEMORY = f"""
import os, shutil, sys
shutil.copy(os.path.realpath("/usr/bin/python3"), "hidden")
os.chmod("hidden", 0o111)
os.execv("hidden", ["hidden", "-c", {FILL_FILE_IN_MEMORY!r}])
"""
SHARE_FILE_IN_MEMORY = """
import mmap, os, time
file = os.memfd_create('file')
os.truncate(file, 120 << 20)
memory = mmap.mmap(file, 120 << 20)
for _ in range(120):
    memory.write(b'x' * (1 << 20))
os.fork()
time.sleep(2)
"""
SHARE_MEMORY = """
import os, time
held = bytearray(b'x') * (120 << 20)
for _ in range(4):
    os.fork()
time.sleep(1)
os._exit(0)
"""
RESERVE_MEMORY = "import mmap, time; held = mmap.mmap(-1, 20 << 30); held[0] = 1; time.sleep(1)"
KEEP_RECORDS = """
import os, resource, select, time
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
poll, pipe, kept = select.epoll(), os.pipe()[0], []
for _ in range(4000):
    poll.register(os.dup(pipe))
for _ in range(600):
    kept.append(os.open(f"/proc/self/fdinfo/{poll.fileno()}", os.O_RDONLY))
    os.read(kept[-1], 1)  # takes 512 KiB of the kernel's memory
time.sleep(20)
"""
FILL_PAGE_TABLES = """
import mmap, time
NO_RESERVE = 0x4000
memory = mmap.mmap(-1, 128 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE, prot=mmap.PROT_READ)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for place in range(0, 128 << 30, 2 << 20):
    memory[place]
time.sleep(20)
"""


@pytest.mark.parametrize(
    "script",
    [
        FILL_MEMORY,
        FILL_MEMORY_TOGETHER,
        FILL_MEMORY_WITHOUT_MAIN_THREAD,
        FILL_FILE_IN_MEMORY,
        FILL_FILE_OF_A_THREAD,
        FILL_PAGE_TABLES,
        FILL_TABLES_OF_DESCRIPTORS,
        KEEP_RECORDS,
    ],
    ids=[
        "one process",
        "four processes",
        "no main thread",
        "file in memory",
        "file of a thread",
        "page tables",
        "descriptors",
        "records of /proc",
    ],
)
def test_an_attempt_that_needs_too_much_memory_is_ended(
    tmp_path: Path, unique_name: str, isolation: dict[str, Any], script: str
) -> None:
    attempt = an_attempt_of(tmp_path, script, MEMORY, attempt=unique_name, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.OUT_OF_MEMORY
    assert "of memory, over LABRATS_AGENT_MEMORY (200 MiB): raise the limit" in message
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


@pytest.mark.skipif(not looks_at_mapped_files(), reason="only root may look at mapped files")
def test_shared_memory_counts_that_a_process_has_given_back(
    tmp_path: Path, unique_name: str, isolation: dict[str, Any]
) -> None:
    attempt = an_attempt_of(tmp_path, FORGET_SHARED_MEMORY, MEMORY, attempt=unique_name, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.OUT_OF_MEMORY
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_many_files_in_memory_count(tmp_path: Path) -> None:
    """The kernel needs memory for each, also for an empty one."""
    attempt = an_attempt_of(tmp_path, CREATE_FILES_IN_MEMORY, MEMORY, **in_sandbox())
    attempt.run()
    assert attempt.failure[0] is FailedCode.OUT_OF_MEMORY


def test_an_attempt_with_a_program_that_its_user_may_not_read_is_ended(tmp_path: Path) -> None:
    """The executor of an ordinary user does not see which files such a program has open."""
    attempt = an_attempt_of(tmp_path, HIDE_FILE_IN_MEMORY, MEMORY, **in_sandbox())
    attempt.run()
    code, message = attempt.failure
    if looks_at_mapped_files():
        assert code is FailedCode.OUT_OF_MEMORY
    else:
        assert code is FailedCode.PROCESS_LIMIT
        assert "make the program readable" in message


def test_process_may_have_any_name(tmp_path: Path, isolation: dict[str, Any]) -> None:
    script = "import ctypes, time; ctypes.CDLL(None).prctl(15, bytes([255, 254])); time.sleep(0.5)"
    attempt = an_attempt_of(tmp_path, script, MEMORY, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the script prints no result


@pytest.mark.parametrize(
    "script", [SHARE_MEMORY, SHARE_FILE_IN_MEMORY, RESERVE_MEMORY], ids=["shared", "shared file", "reserved"]
)
def test_shared_and_unused_memory_does_not_count(tmp_path: Path, isolation: dict[str, Any], script: str) -> None:
    attempt = an_attempt_of(tmp_path, script, MEMORY, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the script prints no result


@pytest.mark.usefixtures("without_tables")
@pytest.mark.parametrize(("samples", "used"), [((300, 100), None), ((300, 250), 250), ((100,), None)])
def test_memory_is_measured_again_in_excess_of_its_limit(
    monkeypatch: pytest.MonkeyPatch, samples: tuple[int, ...], used: int | None
) -> None:
    left = iter(samples)
    monkeypatch.setattr(memory, "_own", lambda pid: (1000, 0))
    monkeypatch.setattr(memory, "_with_shares", lambda pid: (next(left), 0))
    assert memory.MemoryMeter().excess(200, [1]) == used


@pytest.mark.usefixtures("without_tables")
def test_shared_memory_that_takes_too_long_to_measure_counts_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent could otherwise fill the memory during the measurement."""
    measured = []

    def with_shares(pid: int) -> tuple[int, int]:
        measured.append(pid)
        end = time.thread_time() + 0.04
        while time.thread_time() < end:
            pass
        return 10, 0

    monkeypatch.setattr(memory, "_SHARES_SECONDS", 0.1)
    monkeypatch.setattr(memory, "_own", lambda pid: (100, 0))
    monkeypatch.setattr(memory, "_with_shares", with_shares)
    assert memory.MemoryMeter().excess(200, [1, 2, 3, 4, 5]) == 3 * 10 + 2 * 100
    assert measured == [1, 2, 3]


@pytest.mark.usefixtures("without_tables")
@pytest.mark.parametrize(("own", "used"), [(600 << 20, 600 << 20), (500 << 20, None)])
def test_memory_of_the_executor_counts_once_it_is_large(
    monkeypatch: pytest.MonkeyPatch, own: int, used: int | None
) -> None:
    """The output of an agent and the schema of a caller can make it large."""
    for measure in ("_own", "_with_shares"):
        monkeypatch.setattr(memory, measure, lambda pid: (own if pid == os.getpid() else 1000, 0))
    assert memory.MemoryMeter().excess(200 << 20, []) == used
