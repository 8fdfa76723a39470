"""Processes that stand still while they are measured. All of them descend from a process of their own."""

import subprocess
import sys
import threading
import time

import pytest

from labrats.executor.resource_limits import memory
from labrats.executor.resource_limits.standstill import Standstill

BEGIN = """
import os, signal, subprocess, sys, time
from labrats.executor.resource_limits import standstill
from labrats.executor.resource_limits.standstill import Standstill
from labrats.processes import become_subreaper, children, descendants, has_child, is_stopped, kill_once
become_subreaper()

def start(script):
    return subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
"""
END = """
while has_child():
    kill_once(os.getpid())
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass
print("ended")
"""


def run(script: str) -> None:
    """Run a script, whose assertions must hold."""
    command = [sys.executable, "-c", BEGIN + script + END]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ended\n", done.stderr


def test_nothing_moves_meanwhile_and_all_goes_on_afterwards() -> None:
    run("""
# A process that becomes another one all the time, and writes. Nobody waits for those that have ended.
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
writer = start('''
import os, time
end = time.monotonic() + 20
while time.monotonic() < end:
    if os.fork() > 0:
        os._exit(0)
    os.write(1, b"x")
''').stdout
os.set_blocking(writer.fileno(), False)
while not writer.read():
    time.sleep(0.01)

def measure():
    writer.read()
    time.sleep(0.2)
    return writer.read(), descendants(os.getpid())

written, pids = Standstill().measured(measure)
assert not written and pids, (written, pids)
time.sleep(0.2)
assert writer.read()
""")


def test_no_process_finds_its_child_stopped() -> None:
    """A shell would report a stopped job, and `su` and `script` would stop themselves for ever."""
    run("""
parent = start('''
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
''')
while not children(parent.pid):
    time.sleep(0.01)
standstill._REST_SECONDS = standstill._REST_FACTOR = standstill._SECONDS_TO_NOTICE = 0
still = Standstill()
for _ in range(100):
    assert still.measured(lambda: is_stopped(parent.pid))
found = parent.communicate()[0]
assert found == b"", found
""")


def test_process_that_stops_itself_when_its_child_was_stopped_goes_on() -> None:
    """`script` does so, by the signal that tells of its child."""
    run("""
parent = start('''
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
child = os.fork()
if child == 0:
    os.execvp("sleep", ["sleep", "20"])
print(child, flush=True)
while (change := signal.sigwaitinfo([signal.SIGCHLD])).si_code != os.CLD_KILLED:
    if change.si_code == os.CLD_STOPPED:
        os.kill(os.getpid(), signal.SIGSTOP)
print("done")
''')
child = int(parent.stdout.readline())
assert Standstill().measured(lambda: is_stopped(child))
os.kill(child, signal.SIGKILL)
found = parent.stdout.read()
assert found == b"done\\n", found
""")


def test_processes_go_on_if_the_measurement_waits_for_one_of_them() -> None:
    """It may look at a file system whose server is one of them."""
    run("""
standstill._LONGEST_SECONDS = 0.5
server = start("print(input(), flush=True)")

def ask():
    server.stdin.write(b"question\\n")
    server.stdin.flush()
    return server.stdout.readline()

assert Standstill().measured(ask) == b"question\\n"
""")


def test_debugger_finds_no_further_signal_in_the_program_that_it_traces() -> None:
    run("""
debugger = start('''
import ctypes, os, signal, sys
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
''')
debugger.stdout.readline()
assert Standstill().measured(lambda: is_stopped(debugger.pid))
found = debugger.communicate()[0]
assert found == b"%d\\n" % (7 << 8), found
""")


def test_process_that_its_user_has_stopped_stays_so() -> None:
    run("""
process = subprocess.Popen(["sleep", "20"])
process.send_signal(signal.SIGSTOP)
while not is_stopped(process.pid):
    time.sleep(0.01)
assert Standstill().measured(lambda: is_stopped(process.pid))
time.sleep(0.1)
assert is_stopped(process.pid)
""")


def test_standstills_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    still = Standstill()
    found = []
    for seconds in (0.0, 4.9, 0.2):
        now[0] += seconds
        found.append(still.measured(lambda: "measured"))
    assert found == ["measured", None, "measured"]


def test_nothing_is_measured_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    still = Standstill()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert still.measured(lambda: "measured") is None
    assert still.measured(lambda: "measured") == "measured"


def test_a_measurement_that_does_not_end_delays_no_other() -> None:
    begun, end = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        end.wait(20)

    hanging = threading.Thread(target=Standstill().measured, args=(hang,))
    hanging.start()
    begun.wait(20)
    other = Standstill()
    try:
        assert other.measured(lambda: "measured") is None
    finally:
        end.set()
        hanging.join()
    assert other.measured(lambda: "measured") == "measured"


@pytest.mark.usefixtures("without_tables")
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
