"""Tests of the inspection of processes, with real processes."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from labrats import processes
from labrats.processes import (
    ProcessId,
    children,
    count_threads,
    denied_program,
    descendants,
    kill_descendants,
    process_name,
    process_owner,
)
from tests.unit.executor.attempts import wait_until


@pytest.fixture(params=["listed by the kernel", "not listed by the kernel"])
def _each_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with and without the kernel's lists of children."""
    listed = request.param == "listed by the kernel"
    monkeypatch.setattr(processes, "_kernel_lists_children", lambda: listed)


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """Yield a shell with a child, and with a child in a session of its own that has a child."""
    script = "sleep 600 & setsid sh -c 'sleep 600; :' & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.DEVNULL, process_group=0) as shell:
        yield shell
        assert kill_descendants(shell.pid)


@pytest.mark.usefixtures("_each_kernel")
def test_descendants_are_found_in_every_generation_and_session(family: subprocess.Popen[bytes]) -> None:
    def names() -> list[str]:
        return sorted(process_name(pid) for pid in descendants(family.pid))

    wait_until(lambda: names() == ["sh", "sleep", "sleep"], "the shells have started")

    found = descendants(family.pid)
    assert all(found.index(child) > found.index(pid) for pid in found for child in children(pid))


def test_dead_descendants_are_no_descendants() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

        assert child.pid in children(os.getpid())
        assert child.pid not in descendants(os.getpid())
        assert child.pid not in descendants(os.getpid(), ended_too=True), "this process will wait for it"


def test_dead_descendants_that_nobody_waits_for_can_be_counted() -> None:
    script = (
        "import os\nif os.fork() == 0: os._exit(0)\nos.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT); print(); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        parent.stdout.readline()
        [ended] = children(parent.pid)
        assert ended not in descendants(os.getpid())
        assert ended in descendants(os.getpid(), ended_too=True)
        assert count_threads([ended]) == 1
        parent.communicate(b"\n")


def test_process_whose_main_thread_has_ended_is_found_and_killed() -> None:
    script = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start(); "
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    others = frozenset(descendants(os.getpid()))  # such as an engine that tests of the same worker share
    with subprocess.Popen([sys.executable, "-c", script]) as child:
        wait_until(lambda: processes._stat_fields(child.pid)[0] == "Z", "the main thread has ended")

        assert child.pid in descendants(os.getpid())
        assert (process := ProcessId.of(child.pid))
        assert process.is_alive
        assert kill_descendants(os.getpid(), spare=others)
        assert child.wait() == -signal.SIGKILL


def test_children_of_other_threads_are_found() -> None:
    started, done = threading.Event(), threading.Event()
    found: list[int] = []

    def start_child() -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
            found.append(child.pid)
            started.set()
            done.wait()

    thread = threading.Thread(target=start_child)
    thread.start()
    try:
        assert started.wait(10)
        assert found[0] in descendants(os.getpid())
    finally:
        done.set()
        thread.join()


def test_descendants_are_found_without_reading_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    read_file = processes._read

    def record(path: str) -> bytes:
        read.append(int(Path(path).parts[2]))
        return read_file(path)

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        monkeypatch.setattr(processes, "_read", record)

        assert descendants(child.pid) == []

        assert set(read) == {child.pid}


def test_children_of_a_missing_process_are_none() -> None:
    with subprocess.Popen(["true"]) as child:
        pass

    assert children(child.pid) == []


FREE_LARGE_VALUES = """
import sys
from pathlib import Path
from labrats.processes import return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "True":
    return_freed_memory()
bytearray(24 << 20)  # from then on, glibc would keep values up to this size
before = resident()
values, small = [], []
for _ in range(20):
    values.append(bytearray(b"x") * (1 << 20))
    small.append(bytearray(b"x") * 4096)  # above the large ones, so that they could not be returned
values.clear()
print(resident() - before)
"""


@pytest.mark.parametrize("returned", [True, False])
def test_memory_of_large_values_is_returned(returned: bool) -> None:
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no such setting")
    done = subprocess.run(
        [sys.executable, "-c", FREE_LARGE_VALUES, str(returned)], capture_output=True, text=True, check=True
    )
    assert (int(done.stdout) < 8 * 2**20) == returned


def test_owner_of_a_process_is_the_user_that_runs_it() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert process_owner(os.getpid()) == os.getuid()
    assert process_owner(child.pid) is None


def test_program_that_this_user_may_not_execute_is_named_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, other = tmp_path / "bin" / "claude", tmp_path / "other"
    program.parent.mkdir()
    other.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:{other}")
    assert denied_program("claude") is None
    assert denied_program(str(program)) is None
    program.symlink_to("missing")
    assert denied_program("claude") is None
    program.unlink()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    for name in ("claude", str(program)):
        problem = denied_program(name)
        assert problem
        assert problem.startswith("permission denied: the user ")
        assert problem.endswith(f" may not execute {program}")
    (other / "claude").write_text("#!/bin/sh\n")
    (other / "claude").chmod(0o755)
    assert denied_program("claude") is None


def test_program_in_a_folder_that_this_user_may_not_enter_is_denied(tmp_path: Path) -> None:
    """As `claude` in /usr/local/bin often is a link to a file in the home of root."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    home, link = tmp_path / "home", tmp_path / "claude"
    home.mkdir(mode=0o700)
    (home / "claude").write_text("#!/bin/sh\n")
    (home / "claude").chmod(0o755)
    os.chown(home, 54321, 54321)
    link.symlink_to(home / "claude")
    ask = "import sys; from labrats.processes import denied_program; print(*map(denied_program, sys.argv[1:]), sep='|')"
    command = [
        shutil.which("setpriv") or "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        sys.executable,
        "-c",
        ask,
    ]
    environment = {**os.environ, "PATH": f"{home}:{tmp_path}"}
    names = ["claude", str(link), str(home / "claude"), "codex"]
    asked = subprocess.run([*command, *names], capture_output=True, text=True, check=True, env=environment)
    *denied, unknown = asked.stdout.strip().split("|")
    paths = [link, link, home / "claude"]
    assert denied == [f"permission denied: the user root may not execute {path}" for path in paths]
    assert unknown == "None"
