"""Processes that stand still while they are measured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labrats.executor.resource_limits import memory
from labrats.executor.resource_limits.standstill import Standstill
from labrats.processes import become_subreaper, descendants, is_stopped, kill_descendants

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
