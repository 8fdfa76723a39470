"""Shares of the machine that an attempt may have, with real programs that exceed them."""

import re
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from labrats.executor.resource_limits import machine_shares
from labrats.executor.resource_limits.disk import DiskMeter
from labrats.executor.resource_limits.scarce_files import MEMORY_OF_A_PIPE, most_memory_of_inotify
from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from labrats.processes import with_environment
from tests.unit.executor.attempts import DEADLINE_SECONDS
from tests.unit.executor.resource_limits.limited_attempts import (
    BUSY,
    FILL_MEMORY_TOGETHER,
    MANY_ENDED,
    MANY_THREADS,
    MANY_WITHOUT_MAIN_THREAD,
    an_attempt_of,
)

WATCH_MANY_FILES = """
import os, select, time
watched = os.eventfd(0)
numbers = [os.dup(watched) for _ in range(5000)]
most = int(open("/proc/sys/fs/epoll/max_user_watches").read())
held = []
for _ in range(most // 10 // len(numbers) + 1):  # a tenth, also if the limit does not work
    held.append(select.epoll())
    for number in numbers:
        held[-1].register(number)
time.sleep(20)
"""
HOLD_LOCKS = """
import fcntl, os, struct, time
held, COMMAND = os.open("/usr/bin/env", os.O_RDONLY), fcntl.F_SETLK
for number in range(3000):
    fcntl.fcntl(held, COMMAND, struct.pack("hhqqi", fcntl.F_RDLCK, 0, 2 * number, 1, 0))
time.sleep(20)
"""
HOLD_INOTIFY = """
import ctypes, time
held = [ctypes.CDLL(None).inotify_init() for _ in range(10)]
time.sleep(20)
"""
WATCH_BY_INOTIFY = """
import ctypes, os, time
libc = ctypes.CDLL(None)
held = libc.inotify_init()
for file in list(os.scandir("/usr/bin"))[:20]:
    libc.inotify_add_watch(held, os.fsencode(file.path), 0x400)
time.sleep(20)
"""
HOLD_TERMINALS = "import os, time; held = [os.open('/dev/ptmx', os.O_RDWR) for _ in range(10)]; time.sleep(20)"
HOLD_SOCKETS = "import socket, time; held = [socket.socket() for _ in range(10)]; time.sleep(20)"
HOLD_SOCKETS_ELSEWHERE = f"""
import ctypes
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
assert ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK) == 0
{HOLD_SOCKETS.replace("20", "1")}
"""
HOLD_DATA = """
import socket, time
listener, held = socket.create_server(("127.0.0.1", 0)), []
for _ in range(10):
    held.append(socket.create_connection(listener.getsockname()))
    held.append(listener.accept()[0])
    held[-1].sendall(bytes(100_000))
time.sleep(20)
"""
NO_MEMORY_FOR_SOCKETS = """used_up = lambda memories: [
    __import__("dataclasses").replace(memory, most=9_000_000, least=0) for memory in memories
]"""
NO_MORE_THREADS = """thread_limits = lambda _: [
    __import__("labrats.executor.resource_limits.thread_limits", fromlist=[""]).ThreadLimit("pids.max", 40, lambda: 40)
]"""
USED_UP = """KINDS = [
    __import__("dataclasses").replace(kind, most=lambda: 50, is_used_up=lambda: True) for kind in machine_shares.KINDS
]"""


def test_an_attempt_that_watches_too_many_files_is_ended_without_any_setting(
    tmp_path: Path, unique_name: str, isolation: dict[str, Any]
) -> None:
    """The kernel's number is for all processes of a user. The engine aborts when it can watch no further connection."""
    attempt = an_attempt_of(tmp_path, WATCH_MANY_FILES, ResourceLimits(), attempt=unique_name, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.PROCESS_LIMIT
    assert "files by epoll, over 5% of what all processes of a user may watch" in message
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("F_SETLK", "F_SETLK"),
        ("F_SETLK", "F_OFD_SETLK"),
        ('os.open("/usr/bin/env", os.O_RDONLY)', "os.eventfd(0)"),  # all processes of the machine share its inode
    ],
    ids=["of a process", "of an open file", "of eventfd"],
)
def test_an_attempt_that_slows_down_others_by_locks_is_ended(
    tmp_path: Path, isolation: dict[str, Any], text: str, other: str
) -> None:
    script = HOLD_LOCKS.replace(text, other)
    attempt = an_attempt_of(tmp_path, script, ResourceLimits(), **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.PROCESS_LIMIT
    assert "held over 2000 locks of files" in message


@pytest.mark.parametrize(
    ("setting", "script", "code"),
    [
        ("_share = lambda share, *files: 20", MANY_THREADS, FailedCode.PROCESS_LIMIT),
        ("_share = lambda share, *files: 20", MANY_WITHOUT_MAIN_THREAD, FailedCode.PROCESS_LIMIT),
        ("_share = lambda share, *files: 20", MANY_ENDED, FailedCode.PROCESS_LIMIT),
        (NO_MORE_THREADS, MANY_THREADS, FailedCode.PROCESS_LIMIT),
        (NO_MORE_THREADS.replace("lambda: 40", "lambda: 30"), MANY_THREADS.replace("(20)", "(1)"), None),
        ("short_memory = lambda: 400 << 20", FILL_MEMORY_TOGETHER, FailedCode.OUT_OF_MEMORY),
        ("short_memory = lambda: None", FILL_MEMORY_TOGETHER.replace("sleep(20)", "sleep(1)"), None),
        ("short_memory = machine_shares.most_memory_of_a_socket", HOLD_SOCKETS, FailedCode.OUT_OF_MEMORY),
        (USED_UP, HOLD_INOTIFY, FailedCode.PROCESS_LIMIT),
        (USED_UP, WATCH_BY_INOTIFY, FailedCode.PROCESS_LIMIT),
        (USED_UP, WATCH_BY_INOTIFY.replace("20", "1"), None),
        (USED_UP, HOLD_TERMINALS, FailedCode.PROCESS_LIMIT),
        (USED_UP, HOLD_SOCKETS, FailedCode.PROCESS_LIMIT),
        (USED_UP, HOLD_SOCKETS_ELSEWHERE, None),
        (NO_MEMORY_FOR_SOCKETS, HOLD_DATA, FailedCode.OUT_OF_MEMORY),
        (NO_MEMORY_FOR_SOCKETS, HOLD_DATA.replace("(10)", "(5)").replace("20", "1"), None),
        (USED_UP.replace("True", "False"), HOLD_SOCKETS.replace("20", "1"), None),
    ],
    ids=[
        *(
            "threads",
            "processes",
            "ended processes",
            "threads of a service",
            "some threads of a service",
            "memory while it is short",
            "memory",
            "sockets while memory is short",
        ),
        *(
            "inotify",
            "watches of inotify",
            "one watch of inotify",
            "terminals",
            "ports",
            "ports of another namespace",
            "data in sockets",
            "less data in sockets",
            "sockets",
        ),
    ],
)
def test_an_attempt_without_limits_cannot_use_up_the_machine(
    setting: str, script: str, code: FailedCode | None
) -> None:
    """The numbers of the machine are set to small ones."""
    imports = "from labrats.executor.resource_limits import machine_shares, watcher"
    quick = "watcher.LONG_SAMPLE_SECONDS = 0.1"
    program = f"{imports}; {quick}; machine_shares.{setting}\n" + BUSY.replace(
        "ResourceLimits(memory_bytes=200 << 20)", "ResourceLimits()"
    ).replace("subprocess.run([sys", "await asyncio.to_thread(subprocess.run, [sys")
    done = subprocess.run(
        [sys.executable, "-c", program, script], capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True
    )
    assert done.stdout.strip() == (code or "ended by itself")


HOLD_PIPES = "import os; held = [os.pipe() for _ in range(100)]"
OPEN_INOTIFY = "import ctypes; held = [ctypes.CDLL(None).inotify_init() for _ in range(20)]"


@pytest.mark.parametrize(
    ("script", "memory", "found"),
    [
        (HOLD_PIPES, 200 * MEMORY_OF_A_PIPE, "0 sockets, 20[0-9] ends of pipes and 0 instances of inotify"),
        (OPEN_INOTIFY, most_memory_of_inotify(20), "0 sockets, [0-9] ends of pipes and 20 instances of inotify"),
    ],
    ids=["pipes", "inotify"],
)
def test_buffers_of_pipes_and_inotify_count_while_memory_is_short(script: str, memory: int, found: str) -> None:
    """They are memory of the kernel, which belongs to no process."""
    script += "; print(flush=True); input()"
    limits = ResourceLimits(memory_bytes=2**40)  # the memory of processes is measured elsewhere then
    shares = machine_shares.MachineShares(limits, DiskMeter((), limits, Event()), lambda _: True)
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout
        program.stdout.readline()
        [failure] = shares._excesses_of_memory([program.pid], memory * 3 // 2)
        more = list(shares._excesses_of_memory([program.pid], memory * 3))
        program.communicate(b"\n")
    assert failure.code == FailedCode.OUT_OF_MEMORY
    assert re.search(found, str(failure))
    assert more == []


@pytest.mark.parametrize(
    ("counts", "is_confined", "is_ended"),
    [((True, True, True), True, True), ((True, True, False, True, True), True, False), ((True,) * 5, False, False)],
    ids=["hidden", "hidden at times", "without a sandbox"],
)
def test_files_may_be_hidden_for_a_moment_and_without_a_sandbox(
    monkeypatch: pytest.MonkeyPatch, counts: tuple[bool, ...], is_confined: bool, is_ended: bool
) -> None:
    """Without a sandbox, programs such as browsers hide processes of their own."""
    left = iter(counts)
    monkeypatch.setattr(machine_shares, "hides_files", lambda pid: next(left))
    disk = DiskMeter((), ResourceLimits(), Event())
    shares = machine_shares.MachineShares(ResourceLimits(), disk, lambda pid: is_confined)
    assert any(shares._hides_files([1]) for _ in counts) == is_ended
