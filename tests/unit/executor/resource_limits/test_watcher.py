"""Limits on the processes and the processors of an attempt, and the watch over all limits."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from labrats.executor.resource_limits import sampler, watcher
from labrats.model.errors import GiveUp
from labrats.model.job import FailedCode
from labrats.model.protocol import ResourceLimits
from labrats.processes import with_environment
from labrats.settings import EngineSettings
from tests.unit.executor.attempts import DEADLINE_SECONDS
from tests.unit.executor.resource_limits.limited_attempts import (
    BUSY,
    FILL_MEMORY,
    MANY_ENDED,
    MANY_THREADS,
    MANY_WITHOUT_MAIN_THREAD,
    MEMORY,
    an_attempt_of,
)

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


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (FORK_BOMB, "processes, over"),
        (MANY_CHILDREN, "processes, over"),
        (MANY_WITHOUT_MAIN_THREAD, "processes, over"),
        (MANY_ENDED, "processes, over"),
        (MANY_THREADS, "threads, over 32 for each of"),
    ],
    ids=["bomb", "children", "children without main threads", "ended children", "threads"],
)
def test_an_attempt_with_too_many_processes_is_ended(
    tmp_path: Path, unique_name: str, isolation: dict[str, Any], script: str, what: str
) -> None:
    attempt = an_attempt_of(tmp_path, script, ResourceLimits(processes=20), attempt=unique_name, **isolation)
    attempt.run()
    code, message = attempt.failure
    assert code is FailedCode.PROCESS_LIMIT
    assert f"{what} LABRATS_AGENT_PROCESSES (20): raise the limit" in message
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_an_attempt_within_its_limits_is_not_ended(tmp_path: Path, isolation: dict[str, Any]) -> None:
    limits = ResourceLimits(memory_bytes=2**30, processes=100)
    attempt = an_attempt_of(tmp_path, "print('out of words')", limits, **isolation)
    attempt.run()
    assert attempt.failure[0] is FailedCode.AGENT_ERROR  # the script prints no result


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
    def fail(*_: object, **__: object) -> list[int]:
        raise MemoryError("no memory to measure with")

    monkeypatch.setattr(sampler, "descendants", fail)
    monkeypatch.setattr(watcher, "kill_descendants", lambda _: None)
    with pytest.raises(MemoryError):
        await watcher.run_within_limits(asyncio.Event().wait, MEMORY)


async def test_work_that_cannot_be_measured_as_no_thread_is_left_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    ended = list[int]()
    monkeypatch.setattr(watcher, "LONG_SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(watcher, "kill_descendants", ended.append)
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await watcher.run_within_limits(asyncio.Event().wait, ResourceLimits())
    assert ended == [os.getpid()] * 2


@pytest.mark.parametrize("share", ["_THREADS_SHARE", "_MEMORY_SHARE"])
async def test_without_a_setting_the_work_has_a_share_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    monkeypatch.setattr(watcher, "LONG_SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(sampler, "_SHORT", 1.0)  # the memory of the machine is nearly full
    monkeypatch.setattr(sampler, share, 1e-9)

    async def work() -> None:
        child = await asyncio.create_subprocess_exec("sleep", "20")
        await child.wait()

    with pytest.raises(GiveUp, match=r"% of (what )?the machine") as ended:
        await watcher.run_within_limits(work, ResourceLimits())
    assert ended.value.code == ("process_limit" if share == "_THREADS_SHARE" else "out_of_memory")


def test_executor_that_cannot_end_its_agent_ends_itself() -> None:
    """Whoever has started it then ends the agent, which would otherwise go on without limits."""
    setting = "from labrats.executor.resource_limits import watcher; watcher.kill_descendants = None"
    done = subprocess.run(
        [sys.executable, "-c", f"{setting}\n{BUSY}", FILL_MEMORY.replace("sleep(20)", "sleep(3)")],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "TypeError" in done.stderr


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
