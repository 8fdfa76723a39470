"""Limits on the processors, the memory, the processes and the disk of an attempt, with real programs that exceed them.

The programs end by themselves soon, should a limit not work.
"""

import asyncio
import mmap
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labrats.executor import resource_limits, scarce_files
from labrats.model.config import JobConfig
from labrats.model.job import FailedCode
from labrats.model.mcp_server import McpServer
from labrats.model.protocol import ResourceLimits, Sandbox
from labrats.processes import with_environment
from labrats.settings import EngineSettings
from tests.unit.executor.attempts import DEADLINE_SECONDS, AttemptFolder, a_unique_name, an_attempt

MEBIBYTE = 2**20
MEMORY = ResourceLimits(memory_bytes=200 * MEBIBYTE)

FILL_MEMORY = "import time; held = bytearray(b'x') * (400 << 20); time.sleep(20)"
FILL_MEMORY_TOGETHER = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(b'x') * (100 << 20)
        time.sleep(20)
        os._exit(0)
time.sleep(20)
"""
FILL_FILE_IN_MEMORY = """
import os, time
file = os.memfd_create('file')
for _ in range(400):
    os.write(file, b'x' * (1 << 20))
time.sleep(20)
"""
FILL_MEMORY_WITHOUT_MAIN_THREAD = """
import ctypes, threading, time
def fill():
    held = bytearray(b'x') * (400 << 20)
    time.sleep(20)
threading.Thread(target=fill).start()
ctypes.CDLL(None).pthread_exit(None)
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
FORK_BOMB = """
import os, time
for _ in range(7):  # at most 128 processes, also if the limit does not work
    os.fork()
    time.sleep(0.05)
time.sleep(20)
"""
MANY_CHILDREN = """
import subprocess, time
children = [subprocess.Popen(["sleep", "20"]) for _ in range(30)]
time.sleep(20)
"""


MANY_WITHOUT_MAIN_THREAD = """
import ctypes, os, threading, time
for _ in range(30):
    if os.fork() == 0:
        threading.Thread(target=time.sleep, args=(20,)).start()
        ctypes.CDLL(None).pthread_exit(None)
time.sleep(20)
"""
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
HOLD_INOTIFY = """
import ctypes, time
held = [ctypes.CDLL(None).inotify_init() for _ in range(10)]
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
QUEUE_SIGNALS = """
import ctypes, os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN + 5])
libc, queued = ctypes.CDLL(None), 0
while queued < 10**6 and libc.sigqueue(os.getpid(), signal.SIGRTMIN + 5, ctypes.c_void_p(0)) == 0:
    queued += 1
print(queued, file=open("out", "w"))
"""
MANY_THREADS = """
import threading, time
threading.stack_size(64 * 1024)
for _ in range(700):
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
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
USED_UP = """KINDS = [
    __import__("dataclasses").replace(kind, most=lambda: 50, is_used_up=lambda: True) for kind in resource_limits.KINDS
]"""
BUSY = """
import asyncio, subprocess, sys
from labrats.executor.resource_limits import run_within_limits
from labrats.model.errors import GiveUp
from labrats.model.protocol import ResourceLimits

async def work():
    done = subprocess.run([sys.executable, "-c", sys.argv[1]])  # the event loop stands still meanwhile
    return "ended by itself" if done.returncode == 0 else f"failed with {done.returncode}"

async def main():
    try:
        print(await run_within_limits(work, ResourceLimits(memory_bytes=200 << 20)))
    except GiveUp as failure:
        print(failure.code)

asyncio.run(main())
"""


@pytest.fixture(params=["sandbox", "process"])
def isolation(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the inputs of an attempt with this isolation."""
    return {} if request.param == "process" else in_sandbox()


def in_sandbox() -> dict[str, Any]:
    """Return the inputs of an attempt in the sandbox."""
    program = shutil.which("bwrap")
    assert program, "bubblewrap is missing: run `make setup`"
    return {"sandbox": Sandbox(program=program, shm_bytes=MEMORY.memory_bytes)}


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name for the attempt, by which its processes are found."""
    with a_unique_name() as unique:
        yield unique


def an_attempt_of(tmp_path: Path, script: str, limits: ResourceLimits, **inputs: Any) -> AttemptFolder:
    """Build an attempt whose agent runs a Python script."""
    program = tmp_path / "programs" / "agent"
    program.parent.mkdir()
    (program.parent / "script.py").write_text(script)
    program.write_text(f"#!/bin/sh\nexec /usr/bin/python3 {program.parent}/script.py\n")
    program.chmod(0o755)
    config = JobConfig(provider="claude", mcp_servers={"docs": McpServer(command="docs")})  # in a file of credentials
    inputs |= {"config": config, "programs": {"claude": str(program)}, "limits": limits}
    return an_attempt(tmp_path, **inputs)


@pytest.mark.parametrize(
    "script",
    [
        FILL_MEMORY,
        FILL_MEMORY_TOGETHER,
        FILL_MEMORY_WITHOUT_MAIN_THREAD,
        FILL_FILE_IN_MEMORY,
        FILL_FILE_OF_A_THREAD,
        FILL_PAGE_TABLES,
    ],
    ids=["one process", "four processes", "no main thread", "file in memory", "file of a thread", "page tables"],
)
def test_an_attempt_that_needs_too_much_memory_is_ended(
    tmp_path: Path, name: str, isolation: dict[str, Any], script: str
) -> None:
    attempt = an_attempt_of(tmp_path, script, MEMORY, attempt=name, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.OUT_OF_MEMORY
    assert "of memory, over LABRATS_AGENT_MEMORY (200 MiB): raise the limit" in message
    assert with_environment("LABRATS_ATTEMPT", name) == []


def looks_at_mapped_files() -> bool:
    """Return whether this process may look at the files that others have only mapped, as root may."""
    with mmap.mmap(-1, mmap.PAGESIZE):
        line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(" (deleted)"))
        try:
            return Path("/proc/self/map_files", line.split()[0].lstrip("0")).exists()
        except PermissionError:
            return False


@pytest.mark.skipif(not looks_at_mapped_files(), reason="only root may look at mapped files")
def test_shared_memory_counts_that_a_process_has_given_back(
    tmp_path: Path, name: str, isolation: dict[str, Any]
) -> None:
    attempt = an_attempt_of(tmp_path, FORGET_SHARED_MEMORY, MEMORY, attempt=name, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.OUT_OF_MEMORY
    assert with_environment("LABRATS_ATTEMPT", name) == []


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


@pytest.mark.parametrize(
    ("counts", "is_confined", "is_ended"),
    [((True, True, True), True, True), ((True, True, False, True, True), True, False), ((True,) * 5, False, False)],
    ids=["hidden", "hidden at times", "without a sandbox"],
)
async def test_files_may_be_hidden_for_a_moment_and_without_a_sandbox(
    monkeypatch: pytest.MonkeyPatch, counts: tuple[bool, ...], is_confined: bool, is_ended: bool
) -> None:
    """Without a sandbox, programs such as browsers hide processes of their own."""
    left = iter(counts)
    monkeypatch.setattr(resource_limits, "hides_files", lambda pid: next(left))
    watcher = resource_limits._Watcher(ResourceLimits(), (), None, is_confined=is_confined)
    assert any(watcher._excess_of_hidden([1]) for _ in counts) == is_ended


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


@pytest.mark.parametrize(("samples", "used"), [((300, 100), None), ((300, 250), 250), ((100,), None)])
async def test_memory_is_measured_again_in_excess_of_its_limit(
    monkeypatch: pytest.MonkeyPatch, samples: tuple[int, ...], used: int | None
) -> None:
    left = iter(samples)
    monkeypatch.setattr(resource_limits, "_own_memory", lambda pid: (1000, 0))
    monkeypatch.setattr(resource_limits, "_share_of_memory", lambda pid: (next(left), 0))
    watcher = resource_limits._Watcher(ResourceLimits(memory_bytes=200), (), None, is_confined=False)
    assert watcher._memory_above(200, [1]) == used


@pytest.mark.parametrize(("own", "used"), [(600 << 20, 600 << 20), (500 << 20, None)])
async def test_memory_of_the_executor_counts_once_it_is_large(
    monkeypatch: pytest.MonkeyPatch, own: int, used: int | None
) -> None:
    """The output of an agent and the schema of a caller can make it large."""
    for measure in ("_own_memory", "_share_of_memory"):
        monkeypatch.setattr(resource_limits, measure, lambda pid: (own if pid == os.getpid() else 1000, 0))
    watcher = resource_limits._Watcher(ResourceLimits(memory_bytes=200 << 20), (), None, is_confined=False)
    assert watcher._memory_above(200 << 20, []) == used


def test_limits_hold_while_the_event_loop_is_busy() -> None:
    """An agent can print events whose reading takes long."""
    done = subprocess.run(
        [sys.executable, "-c", BUSY, FILL_MEMORY.replace("sleep(20)", "sleep(60)")],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    assert done.stdout.strip() == FailedCode.OUT_OF_MEMORY


async def test_an_error_of_the_measurement_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> list[int]:
        raise MemoryError("no memory to measure with")

    monkeypatch.setattr(resource_limits, "descendants", fail)
    monkeypatch.setattr(resource_limits, "kill_descendants", lambda _: None)
    with pytest.raises(MemoryError):
        await resource_limits.run_within_limits(asyncio.Event().wait, MEMORY)


def test_executor_that_cannot_end_its_agent_ends_itself() -> None:
    """Whoever has started it then ends the agent, which would otherwise go on without limits."""
    setting = "from labrats.executor import resource_limits; resource_limits.kill_descendants = None"
    done = subprocess.run(
        [sys.executable, "-c", f"{setting}\n{BUSY}", FILL_MEMORY.replace("sleep(20)", "sleep(3)")],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "TypeError" in done.stderr


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (FORK_BOMB, "processes, over"),
        (MANY_CHILDREN, "processes, over"),
        (MANY_WITHOUT_MAIN_THREAD, "processes, over"),
        (MANY_THREADS, "threads, over 32 for each of"),
    ],
    ids=["bomb", "children", "children without main threads", "threads"],
)
def test_an_attempt_with_too_many_processes_is_ended(
    tmp_path: Path, name: str, isolation: dict[str, Any], script: str, what: str
) -> None:
    attempt = an_attempt_of(tmp_path, script, ResourceLimits(processes=20), attempt=name, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.PROCESS_LIMIT
    assert f"{what} LABRATS_AGENT_PROCESSES (20): raise the limit" in message
    assert with_environment("LABRATS_ATTEMPT", name) == []


def test_an_attempt_that_watches_too_many_files_is_ended_without_any_setting(
    tmp_path: Path, name: str, isolation: dict[str, Any]
) -> None:
    """The kernel's number is for all processes of a user. The engine aborts when it can watch no further connection."""
    attempt = an_attempt_of(tmp_path, WATCH_MANY_FILES, ResourceLimits(), attempt=name, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.PROCESS_LIMIT
    assert "files by epoll, over 5% of what all processes of a user may watch" in message
    assert with_environment("LABRATS_ATTEMPT", name) == []


@pytest.mark.parametrize(
    ("setting", "script", "code"),
    [
        ("_share = lambda share, *files: 20", MANY_THREADS, FailedCode.PROCESS_LIMIT),
        ("_share = lambda share, *files: 20", MANY_WITHOUT_MAIN_THREAD, FailedCode.PROCESS_LIMIT),
        ("_short_memory = lambda: 400 << 20", FILL_MEMORY_TOGETHER, FailedCode.OUT_OF_MEMORY),
        ("_short_memory = lambda: None", FILL_MEMORY_TOGETHER.replace("sleep(20)", "sleep(1)"), None),
        ("_short_memory = resource_limits.most_memory_of_a_socket", HOLD_SOCKETS, FailedCode.OUT_OF_MEMORY),
        (USED_UP, HOLD_INOTIFY, FailedCode.PROCESS_LIMIT),
        (USED_UP, HOLD_TERMINALS, FailedCode.PROCESS_LIMIT),
        (USED_UP, HOLD_SOCKETS, FailedCode.PROCESS_LIMIT),
        (USED_UP, HOLD_SOCKETS_ELSEWHERE, None),
        (USED_UP.replace("True", "False"), HOLD_SOCKETS.replace("20", "1"), None),
    ],
    ids=[
        *("threads", "processes", "memory while it is short", "memory", "sockets while memory is short"),
        *("inotify", "terminals", "ports", "ports of another namespace", "sockets"),
    ],
)
def test_an_attempt_without_limits_cannot_use_up_the_machine(
    setting: str, script: str, code: FailedCode | None
) -> None:
    """The numbers of the machine are set to small ones."""
    quick = "resource_limits.SHARES_SAMPLE_SECONDS = 0.1"
    program = f"from labrats.executor import resource_limits; {quick}; resource_limits.{setting}\n" + BUSY.replace(
        "ResourceLimits(memory_bytes=200 << 20)", "ResourceLimits()"
    ).replace("subprocess.run([sys", "await asyncio.to_thread(subprocess.run, [sys")
    done = subprocess.run(
        [sys.executable, "-c", program, script], capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True
    )
    assert done.stdout.strip() == (code or "ended by itself")


IS_USED_UP = (
    "from labrats.executor.scarce_files import KINDS; print([kind.name for kind in KINDS if kind.is_used_up()])"
)
TAKE_PORTS = "import socket; held = [socket.create_server(('', 0)) for _ in range(2)]"


@pytest.mark.parametrize(
    ("setting", "program", "used_up"),
    [
        ("true", IS_USED_UP, "[]"),
        ("echo 0 > /proc/sys/user/max_inotify_instances", IS_USED_UP, "['instances of inotify']"),
        ("echo 2000 2001 > /proc/sys/net/ipv4/ip_local_port_range", f"{TAKE_PORTS}; {IS_USED_UP}", "['sockets']"),
    ],
    ids=["nothing", "inotify", "ports"],
)
def test_used_up_files_are_noticed(setting: str, program: str, used_up: str) -> None:
    script = f'{setting} && exec "$0" -c "$1"'
    command = ["unshare", "--user", "--net", "--map-root-user", "sh", "-c", script, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True)
    assert done.stdout.strip() == used_up


def test_used_up_terminals_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nr").write_text("3072\n")
    monkeypatch.setattr(scarce_files, "_OPEN_TERMINALS", tmp_path / "nr")
    assert [kind.name for kind in scarce_files.KINDS if kind.is_used_up()] == ["terminals"]


def test_signals_that_wait_are_left_to_others(tmp_path: Path) -> None:
    """Without any left, other processes of the user could set no timer."""
    program = shutil.which("bwrap")
    assert program
    attempt = an_attempt_of(tmp_path, QUEUE_SIGNALS, ResourceLimits(), sandbox=Sandbox(program=program))
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


FILL_DISK = """
import asyncio, pathlib, subprocess, sys, types
from labrats.executor import resource_limits
from labrats.model.errors import GiveUp
from labrats.model.protocol import ResourceLimits

MIB = 2**20
folder, free = pathlib.Path(sys.argv[1]), int(sys.argv[2]) * MIB
resource_limits.SHARES_SAMPLE_SECONDS = 0.1
resource_limits.shutil.disk_usage = lambda _: types.SimpleNamespace(total=100 * MIB, free=free)
script = f"import os, time; open('{folder}/file', 'wb').write(os.urandom(12 << 20)); time.sleep({sys.argv[3]})"

async def work():
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script])
    return "ended by itself"

async def main():
    try:
        limits = ResourceLimits(kept_free_bytes=(20 if free else 8) * MIB)
        print(await resource_limits.run_within_limits(work, limits, [folder]))
    except GiveUp as failure:
        print(failure.code)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("free", "seconds", "is_ended"),
    [(0, 20, True), (15, 20, True), (25, 1, False)],
    ids=["full", "nearly full", "not full"],
)
def test_an_attempt_that_fills_the_disk_is_ended_and_its_files_are_deleted(
    tmp_path: Path, free: int, seconds: int, is_ended: bool
) -> None:
    """Otherwise the engine deletes what all other jobs have left, and cannot record the end of the attempt."""
    done = subprocess.run(
        [sys.executable, "-c", FILL_DISK, str(tmp_path), str(free), str(seconds)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    assert done.stdout.strip() == (FailedCode.DISK_LIMIT if is_ended else "ended by itself")
    assert tmp_path.exists() != is_ended


MAP_DELETED_FILES = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
READ_AND_WRITE, SHARED = 3, 1
for number in range(3):
    name = FOLDER + str(number)
    with open(name, 'wb+') as file:
        file.write(os.urandom(4 << 20))
        file.flush()
        libc.mmap(None, 4096, READ_AND_WRITE, SHARED, file.fileno(), 0)
    os.unlink(name)
time.sleep(20)
"""


def result_on_full_disk(folder: Path, script: str, free: int, setting: str = "") -> str:
    """Run a script as the work of an attempt with `free` MiB left on the disk, and return what came of it."""
    program = FILL_DISK.replace("script = ", "_ = ").replace('"-c", script', f'"-c", {script!r}')
    done = subprocess.run(
        [sys.executable, "-c", program.replace("MIB = 2**20", f"MIB = 2**20; {setting}"), str(folder), str(free), ""],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=True,
    )
    return done.stdout.strip()


def test_an_attempt_that_fills_the_disk_with_deleted_and_mapped_files_is_ended(tmp_path: Path) -> None:
    """Only root can read their size. With an executor of another user, any such file ends the attempt."""
    script = MAP_DELETED_FILES.replace("FOLDER", f"'{tmp_path}/'")
    assert result_on_full_disk(tmp_path, script, free=0) == FailedCode.DISK_LIMIT


@pytest.mark.parametrize(
    ("room", "is_ended"), [(0, True), (40, True), (50, False)], ids=["full", "nearly full", "not full"]
)
def test_an_attempt_with_many_files_is_ended_when_the_disk_has_room_for_few(
    tmp_path: Path, room: int, is_ended: bool
) -> None:
    """Otherwise no other attempt can start."""
    seconds = 20 if is_ended else 1
    script = f"import time; [open(f'{tmp_path}/{{i}}', 'w') for i in range(120)]; time.sleep({seconds})"
    setting = (
        "from labrats.files.free_files import FileRoom; resource_limits.file_room = lambda _: FileRoom(1000, ROOM)"
    )
    result = result_on_full_disk(tmp_path, script, free=25, setting=setting.replace("ROOM", str(room)))
    assert result == (FailedCode.DISK_LIMIT if is_ended else "ended by itself")
    assert tmp_path.exists() != is_ended


def test_an_attempt_within_its_limits_is_not_ended(tmp_path: Path, isolation: dict[str, Any]) -> None:
    limits = ResourceLimits(memory_bytes=2**30, processes=100)
    attempt = an_attempt_of(tmp_path, "print('out of words')", limits, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the script prints no result


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


CHOOSE_PROCESSORS = """
import os
given = sorted(os.sched_getaffinity(0))
try:
    os.sched_setaffinity(0, range(os.cpu_count()))
except OSError as error:
    print(given, error.strerror, file=open("out", "w"))
else:
    print(given, sorted(os.sched_getaffinity(0)), file=open("out", "w"))
"""


@pytest.mark.parametrize("cpus", [1, 1000, None])
def test_an_attempt_runs_on_the_last_processors_which_it_cannot_change_in_the_sandbox(
    tmp_path: Path, isolation: dict[str, Any], cpus: int | None
) -> None:
    every = sorted(os.sched_getaffinity(0))
    attempt = an_attempt_of(tmp_path, CHOOSE_PROCESSORS, ResourceLimits(cpus=cpus), **isolation)
    attempt.run()
    given = every[-1:] if cpus == 1 else every
    chosen = "Operation not permitted" if cpus and isolation else every
    assert (attempt.workspace / "out").read_text() == f"{given} {chosen}\n"


@pytest.mark.parametrize(
    ("memory", "processes", "cpus", "limits"),
    [
        ("4Gi", "100", "2", ResourceLimits(memory_bytes=2**32, processes=100, cpus=2)),
        ("", "", "", ResourceLimits()),
    ],
)
def test_settings_are_read(
    monkeypatch: pytest.MonkeyPatch, memory: str, processes: str, cpus: str, limits: ResourceLimits
) -> None:
    monkeypatch.setenv("LABRATS_AGENT_MEMORY", memory)
    monkeypatch.setenv("LABRATS_AGENT_PROCESSES", processes)
    monkeypatch.setenv("LABRATS_AGENT_CPUS", cpus)
    assert EngineSettings().agent_limits == limits


def test_attempts_in_pods_do_not_share_the_processors_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRATS_AGENT_CPUS", "2")
    assert EngineSettings(backend="kubernetes").agent_limits == ResourceLimits()


@pytest.mark.parametrize(
    ("name", "value"),
    [("LABRATS_AGENT_MEMORY", "4 GB"), ("LABRATS_AGENT_PROCESSES", "0"), ("LABRATS_AGENT_CPUS", "0.5")],
)
def test_invalid_settings_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=name):
        EngineSettings()


DISK = ResourceLimits(disk_bytes=4 * MEBIBYTE)
FILL = "import os, time; open({path} + 'large', 'wb').write(os.urandom(8 << 20)); time.sleep(20)"
FILL_DELETED_FILE = """
import os, time
with open('deleted', 'wb') as file:
    os.unlink('deleted')
    file.write(os.urandom(8 << 20))
    file.flush()
    time.sleep(20)
"""
FILL_DELETED_FILE_OF_A_THREAD = """
import ctypes, os, threading, time
UNSHARE_FILES = 0x400
def fill():
    ctypes.CDLL(None).unshare(UNSHARE_FILES)
    with open('deleted', 'wb') as file:
        os.unlink('deleted')
        file.write(os.urandom(8 << 20))
        file.flush()
        time.sleep(20)
threading.Thread(target=fill, daemon=True).start()
time.sleep(20)
"""
PLACES = {
    "workspace": "''",
    "home": "os.environ['HOME'] + '/'",
    "temporary files": "os.environ['TMPDIR'] + '/'",
    "credentials": "os.environ['HOME'] + '/../credentials/'",
}
WRITE_LITTLE = """
import os, time
with open('sparse', 'wb') as sparse:
    sparse.truncate(1 << 25)
with open('once', 'wb') as file:
    file.write(os.urandom(3 << 20))
for number in range(9):
    os.link('once', str(number))
os.symlink('/', 'root')
time.sleep(2.5)
"""


@pytest.mark.parametrize(
    "script",
    [*(FILL.format(path=place) for place in PLACES.values()), FILL_DELETED_FILE, FILL_DELETED_FILE_OF_A_THREAD],
    ids=[*PLACES, "deleted file", "deleted file of a thread"],
)
def test_attempt_over_the_disk_limit_is_ended(tmp_path: Path, isolation: dict[str, Any], script: str) -> None:
    attempt = an_attempt_of(tmp_path, script, limits=DISK, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.DISK_LIMIT
    assert "over LABRATS_WORKSPACE_GIB (4 MiB): raise the limit, or let the agent write less" in message


@pytest.mark.skipif(not looks_at_mapped_files(), reason="only root may look at mapped files")
def test_deleted_files_that_are_only_mapped_count(tmp_path: Path, isolation: dict[str, Any]) -> None:
    attempt = an_attempt_of(tmp_path, MAP_DELETED_FILES.replace("FOLDER", "''"), limits=DISK, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.DISK_LIMIT


def test_sparse_files_links_and_further_names_take_no_disk(tmp_path: Path, isolation: dict[str, Any]) -> None:
    attempt = an_attempt_of(tmp_path, WRITE_LITTLE, limits=DISK, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the program ends without a result
