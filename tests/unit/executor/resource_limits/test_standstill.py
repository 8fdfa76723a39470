"""Processes that stand still while they are measured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labrats.executor.resource_limits import memory, standstill
from labrats.executor.resource_limits.standstill import Standstill
from labrats.processes import become_subreaper, children, descendants, is_stopped, kill_descendants

BECOME_ANOTHER_PROCESS = """
import os, pathlib, sys, time
end = time.monotonic() + 20
for number in range(10**9):
    if os.fork() > 0 or time.monotonic() > end:
        os._exit(0)
    os.pwrite(3, b"%020d" % number, 0)
"""


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[int]:
    """Run a process that becomes another one all the time, and counts in an open file."""
    become_subreaper()
    with (tmp_path / "counter").open("wb+") as file:
        program = "import os, sys; os.dup2(int(sys.argv.pop()), 3);" + BECOME_ANOTHER_PROCESS.strip()
        command = [sys.executable, "-c", program.replace(";import", "\nimport"), str(file.fileno())]
        with subprocess.Popen(command, pass_fds=[file.fileno()]):
            while os.fstat(file.fileno()).st_size == 0:
                time.sleep(0.01)
            yield file.fileno()
            assert kill_descendants(os.getpid())


def value_of(counter: int) -> bytes:
    return os.pread(counter, 20, 0)


def test_nothing_moves_meanwhile_and_all_goes_on_afterwards(counter: int) -> None:
    def measure() -> tuple[bytes, bytes, list[int]]:
        before = value_of(counter)
        time.sleep(0.2)
        return before, value_of(counter), descendants(os.getpid())

    measured = Standstill().measured(measure)
    assert measured
    before, after, pids = measured
    assert before == after
    assert pids
    time.sleep(0.2)
    assert value_of(counter) > after


WATCH_CHILD = """
import os, sys
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFEXITED(status):
        break
    print("stopped", flush=True)
"""


def test_no_process_finds_its_child_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell would report a stopped job, and `su` and `script` would stop themselves for ever."""
    monkeypatch.setattr(standstill, "_REST_SECONDS", 0)
    monkeypatch.setattr(standstill, "_REST_FACTOR", 0)
    still, command = Standstill(), [sys.executable, "-c", WATCH_CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        while not children(parent.pid):
            time.sleep(0.01)
        for _ in range(100):
            assert still.measured(lambda: is_stopped(parent.pid))
        assert parent.communicate()[0] == b""


STOP_LIKE_ITS_CHILD = """
import os, signal, sys
child = os.fork()
if child == 0:
    os.execvp("sleep", ["sleep", "20"])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
print(child, flush=True)
while signal.sigwaitinfo([signal.SIGCHLD]).si_status != signal.SIGKILL:
    os.kill(os.getpid(), signal.SIGSTOP)
print("ended")
"""


def test_process_that_stops_itself_when_its_child_was_stopped_goes_on() -> None:
    """`script` does so, by the signal that tells of its child."""
    with subprocess.Popen([sys.executable, "-c", STOP_LIKE_ITS_CHILD], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert Standstill().measured(lambda: is_stopped(child))
        os.kill(child, signal.SIGKILL)
        assert parent.stdout.read() == b"ended\n"


def test_processes_go_on_if_the_measurement_waits_for_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may look at a file system whose server is one of them."""
    monkeypatch.setattr(standstill, "_LONGEST_SECONDS", 0.5)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin
        assert server.stdout

        def ask() -> bytes:
            assert server.stdin
            assert server.stdout
            server.stdin.write(b"answer\n")
            server.stdin.flush()
            return server.stdout.readline()

        assert Standstill().measured(ask) == b"answer\n"


def test_debugger_finds_no_further_signal_in_the_program_that_it_traces() -> None:
    script = """import ctypes, os, signal, sys
child = os.fork()
if child == 0:
    ctypes.CDLL(None).ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), signal.SIGUSR1)
    sys.stdin.read()
    os._exit(7)
os.waitpid(child, 0)
ctypes.CDLL(None).ptrace(7, child, None, None)
print("traced", flush=True)
print(os.waitpid(child, 0)[1])
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as debugger:
        assert debugger.stdout
        assert debugger.stdout.readline() == b"traced\n"
        assert Standstill().measured(lambda: is_stopped(debugger.pid))
        assert debugger.communicate()[0] == b"%d\n" % (7 << 8)


def test_process_that_its_user_has_stopped_stays_so() -> None:
    with subprocess.Popen(["sleep", "20"]) as process:
        process.send_signal(signal.SIGSTOP)
        while not is_stopped(process.pid):
            time.sleep(0.01)
        assert Standstill().measured(lambda: is_stopped(process.pid))
        time.sleep(0.1)
        assert is_stopped(process.pid)
        process.kill()


def test_standstills_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    still = Standstill()
    found = []
    for seconds in (0.0, 4.9, 0.2):
        now[0] += seconds
        found.append(still.measured(lambda: "measured"))
    assert found == ["measured", None, "measured"]


@pytest.mark.parametrize(("grown", "may_miss"), [(100, False), (300, True)])
def test_memory_of_a_process_that_has_ended_may_be_that_by_which_the_machines_has_grown(
    monkeypatch: pytest.MonkeyPatch, grown: int, may_miss: bool
) -> None:
    free = [1000]
    monkeypatch.setattr(memory, "_machine_sizes", lambda: {"MemTotal": 1000, "MemAvailable": free[0], "Shmem": 0})
    monkeypatch.setattr(memory, "_own", lambda pid: (50, 0) if pid == 1 else None)
    meter = memory.MemoryMeter()
    assert (meter.excess(200, [1]), meter.may_miss) == (None, False)
    free[0] -= grown
    assert (meter.excess(200, [1]), meter.may_miss) == (None, False)  # another program has grown
    assert (meter.excess(200, [1, 2]), meter.may_miss) == (None, may_miss)
