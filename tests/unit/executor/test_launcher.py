"""Tests of the launcher as a real process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from labrats.model.config import JobConfig
from labrats.model.protocol import ResultEvent, Sandbox
from labrats.processes import (
    ProcessId,
    children,
    executor_process_name,
    kill_descendants,
    process_name,
    with_environment,
)
from tests.unit.executor.attempts import DEADLINE_SECONDS, AttemptFolder, an_attempt, wait_until

SUCCESS = """echo '{"type": "result", "subtype": "success", "result": "done"}'"""


@dataclass(frozen=True)
class Engine:
    """The engine's end of the socket, with the launcher's process."""

    socket: socket.socket
    launcher: "subprocess.Popen[bytes]"
    messages: list[dict[str, Any]] = field(default_factory=list)

    def request(self, attempt: AttemptFolder, *redacted: str, sandboxed: bool = False) -> dict[str, Any]:
        """Request an executor. Return the launcher's answer."""
        self.send(folder=str(attempt.path), sandboxed=sandboxed, redacted=redacted)
        return self.receive(lambda message: message["folder"] == str(attempt.path) and "ended" not in message)

    def start(self, attempt: AttemptFolder, *, sandboxed: bool = False) -> int:
        """Request an executor. Return its pid."""
        return int(self.request(attempt, sandboxed=sandboxed)["pid"])

    def end(self, attempt: AttemptFolder, *, reuse: bool = True) -> int:
        """Wait until the attempt has ended, and let its executor be reused or not. Return the executor's pid."""
        ended = self.receive(lambda message: message["folder"] == str(attempt.path) and "ended" in message)["ended"]
        self.send(executor=ended, reuse=reuse)
        return int(ended)

    def send(self, **message: Any) -> None:
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, is_expected: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first message that is expected. Others are kept."""
        while not (found := [message for message in self.messages if is_expected(message)]):
            self.messages.extend(map(json.loads, self.socket.recv(65536).splitlines()))
        self.messages.remove(found[0])
        return found[0]


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Yield a new launcher. It is ended with its executors afterwards."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, request.param)
    ours.settimeout(DEADLINE_SECONDS)
    command = [sys.executable, "-m", "labrats.executor.launcher", str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as launcher:
        theirs.close()
        try:
            yield Engine(ours, launcher)
        finally:
            ours.close()
            kill_descendants(launcher.pid)
            launcher.wait(DEADLINE_SECONDS)


def recorded_exit(attempt: AttemptFolder) -> str:
    """Wait for the record of the exit, and return it."""
    record = attempt.path / "exit"
    wait_until(record.exists, "the launcher has recorded the exit")
    return record.read_text()


def claimed_by(attempt: AttemptFolder) -> ProcessId:
    claim = attempt.path / "claim"
    wait_until(claim.exists, "an executor has claimed the attempt")
    process = ProcessId.parse(claim.read_text())
    assert process
    return process


def test_attempt_runs_and_its_end_is_reported(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "hello"}, {"result": 42}])

    pid = engine.start(attempt)

    assert engine.end(attempt) == pid
    assert isinstance(attempt.outcome, ResultEvent)
    assert attempt.outcome.result == 42
    assert (attempt.path / "stderr.log").read_text() == ""


def test_process_name_of_an_executor_identifies_its_folder(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"hang": True}])

    pid = engine.start(attempt)

    claimed_by(attempt)
    assert process_name(pid) == executor_process_name(attempt.path)
    assert process_name(engine.launcher.pid) != executor_process_name(attempt.path)


def test_several_attempts_run_at_the_same_time(engine: Engine, tmp_path: Path) -> None:
    attempts = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        attempts.append(an_attempt(tmp_path / name, [{"log": "ready"}, {"hang": True}]))
    pids = [engine.start(attempt) for attempt in attempts]
    for attempt in attempts:
        wait_until(lambda attempt=attempt: attempt.logs == ["ready"], "all are running")  # type: ignore[misc]

    for pid in pids:
        os.kill(pid, signal.SIGTERM)

    assert [recorded_exit(attempt) for attempt in attempts] == ["exit 1"] * 3


@pytest.mark.parametrize(("step", "record"), [({"exit": 3}, "exit 3"), ({"signal": 9}, "signal 9")])
def test_crash_is_recorded_with_its_status_or_signal(engine: Engine, tmp_path: Path, step: Any, record: str) -> None:
    attempt = an_attempt(tmp_path, [step])

    engine.start(attempt)

    assert recorded_exit(attempt) == record


@pytest.mark.parametrize("detached", [False, True])
def test_crash_leaves_no_process_running(engine: Engine, tmp_path: Path, unique_name: str, detached: bool) -> None:
    steps = [{"fork": {"seconds": 300, "detached": detached}}, {"signal": 9}]
    attempt = an_attempt(tmp_path, steps, attempt=unique_name)

    engine.start(attempt)

    assert recorded_exit(attempt) == "signal 9"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_leftover_that_has_already_exited_is_reaped() -> None:
    script = """if True:
        import os, socket
        from labrats.executor.launcher import Launcher
        ours, theirs = socket.socketpair()
        leftover = os.fork()
        if leftover == 0:
            os._exit(0)
        os.waitid(os.P_PID, leftover, os.WEXITED | os.WNOWAIT)
        Launcher(theirs)._record_exits()
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            print("no child is left")
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert (done.stdout, done.stderr) == ("no child is left\n", "")


def test_crash_of_an_attempt_does_not_affect_processes_of_another(
    engine: Engine, tmp_path: Path, unique_name: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fork = {"fork": {"seconds": 300, "detached": True}}
    steady = an_attempt(tmp_path / "a", [fork, {"log": "ready"}, {"hang": True}], attempt=unique_name)
    crashing = an_attempt(tmp_path / "b", [fork, {"signal": 9}])
    steady_pid = engine.start(steady)
    wait_until(lambda: len(with_environment("LABRATS_ATTEMPT", unique_name)) == 1, "it has a process")

    engine.start(crashing)

    assert recorded_exit(crashing) == "signal 9"
    assert len(with_environment("LABRATS_ATTEMPT", unique_name)) == 1
    os.kill(steady_pid, signal.SIGTERM)
    assert recorded_exit(steady) == "exit 1"


def test_second_executor_of_an_attempt_exits_without_effect(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"hang": True}])
    first = engine.start(attempt)
    wait_until(lambda: attempt.logs == ["ready"], "the first one runs")

    second = ProcessId.of(engine.start(attempt))

    wait_until(lambda: second is None or second.is_reaped, "the second one has exited")
    assert claimed_by(attempt).pid == first
    assert attempt.logs == ["ready"]
    assert not (attempt.path / "exit").exists()
    os.kill(first, signal.SIGTERM)
    assert recorded_exit(attempt) == "exit 1"
    assert attempt.outcome


def test_attempt_with_a_foreign_claim_does_not_start(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "never"}])
    (attempt.path / "claim").write_text("never started\n")

    executor = ProcessId.of(engine.start(attempt))

    wait_until(lambda: executor is None or executor.is_reaped, "the executor has exited")
    assert attempt.events == []


def test_launcher_outlives_the_engine_until_its_last_executor_has_exited(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"hang": True}])
    pid = engine.start(attempt)
    wait_until(lambda: attempt.logs == ["ready"], "the attempt runs")

    engine.socket.close()
    os.kill(pid, signal.SIGTERM)

    assert recorded_exit(attempt) == "exit 1"
    assert engine.launcher.wait(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_launcher_ignores_signals_sent_to_the_engine(engine: Engine, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    engine.start(an_attempt(tmp_path / "a"))  # the answer shows that the signal handlers are installed

    engine.launcher.send_signal(number)

    attempt = an_attempt(tmp_path / "b")
    engine.start(attempt)
    engine.end(attempt)


def test_executor_has_its_own_session_and_creates_private_files(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"write": {"path": "a.txt", "text": ""}}, {"log": "ready"}, {"hang": True}])
    pid = engine.start(attempt)
    wait_until(lambda: attempt.logs == ["ready"], "the attempt runs")

    assert os.getsid(pid) == pid
    assert attempt.output.stat().st_mode & 0o077 == 0
    assert (attempt.workspace / "a.txt").stat().st_mode & 0o077 == 0
    os.kill(pid, signal.SIGTERM)
    recorded_exit(attempt)


def test_executor_has_default_signal_handlers(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"hang": True}])
    pid = engine.start(attempt)
    wait_until(lambda: attempt.logs == ["ready"], "the attempt runs")

    os.kill(pid, signal.SIGHUP)

    assert recorded_exit(attempt) == "signal 1"


def test_missing_folder_affects_only_its_own_executor(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path)
    missing = replace(attempt, path=tmp_path / "missing")

    executor = ProcessId.of(engine.start(missing))

    wait_until(lambda: executor is None or executor.is_reaped, "the executor has exited")
    engine.start(attempt)
    engine.end(attempt)


def test_exit_that_cannot_be_recorded_does_not_affect_other_executors(engine: Engine, tmp_path: Path) -> None:
    unwritable, attempt = (an_attempt(make_folder(tmp_path / name), [{"exit": 3}]) for name in ("a", "b"))
    (unwritable.path / "exit").mkdir()  # prevents the record, like a full disk

    executor = ProcessId.of(engine.start(unwritable))

    wait_until(lambda: executor is None or executor.is_reaped, "the executor has been reaped")
    engine.start(attempt)
    assert recorded_exit(attempt) == "exit 3"


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def numbered_attempts(folder: Path, number: int, steps: list[Any] | None = None) -> list[AttemptFolder]:
    return [an_attempt(make_folder(folder / str(each)), steps or [{"result": each}]) for each in range(number)]


def test_executor_runs_further_attempts_after_successes(engine: Engine, tmp_path: Path) -> None:
    attempts = numbered_attempts(tmp_path, 3)
    executors = set()
    for attempt in attempts:
        executors.add(engine.start(attempt))
        engine.end(attempt)

    assert len(executors) == 1
    assert [attempt.result for attempt in attempts] == [0, 1, 2]
    assert not any((attempt.path / "exit").exists() for attempt in attempts)


def test_claim_of_an_ended_attempt_names_no_living_process(engine: Engine, tmp_path: Path) -> None:
    attempt, other = numbered_attempts(tmp_path, 2)

    pid = engine.start(attempt)
    engine.end(attempt)

    claim = claimed_by(attempt)
    assert claim.pid == pid
    assert claim.is_reaped
    assert not claim.is_alive
    assert process_name(pid) == "lr-idle"
    assert engine.start(other) == pid


def test_attempt_without_a_sandbox_gets_no_executor_that_has_run_one_with_a_sandbox(
    engine: Engine, tmp_path: Path
) -> None:
    def start(name: str, sandbox: Sandbox | None) -> tuple[int, str]:
        (tmp_path / name).mkdir()
        attempt = an_attempt(tmp_path / name, [{"log": "ready"}, {"sleepMs": 200}, {"result": 1}], sandbox=sandbox)
        pid = engine.start(attempt, sandboxed=sandbox is not None)
        wait_until(lambda: attempt.logs == ["ready"], "it runs")
        seccomp = re.search(r"^Seccomp:\s*(\d)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert seccomp
        assert engine.end(attempt) == pid
        return pid, seccomp[1]

    confined, mode = start("confined", Sandbox(program="bwrap"))
    assert mode == "2"
    free, mode = start("free", None)
    assert (free == confined, mode) == (False, "0")
    assert start("again", None) == (free, "0")
    assert start("confined again", Sandbox(program="bwrap"))[0] in (confined, free)


def test_leftover_of_another_user_stays_and_exits_of_others_are_recorded() -> None:
    script = """if True:
        import os, signal, socket
        from labrats import processes
        from labrats.executor import launcher
        ours, theirs = socket.socketpair()
        leftover = os.fork()
        if leftover == 0:
            signal.pause()
        kill = os.kill
        def refuse(pid, number):
            if pid == leftover:
                raise PermissionError
            kill(pid, number)
        processes.os.kill = refuse
        engine = launcher.Launcher(theirs)
        dead = os.fork()
        if dead == 0:
            os._exit(0)
        engine._executors[dead] = launcher.Executor(dead, socket.socket())
        os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
        engine._record_exits()
        print(list(engine._executors), os.waitpid(leftover, os.WNOHANG))
        kill(leftover, signal.SIGKILL)
        os.waitid(os.P_PID, leftover, os.WEXITED | os.WNOWAIT)
        engine._record_exits()
        print(processes.has_child())
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert (done.stdout, done.stderr) == ("[] (0, 0)\nFalse\n", "")


def test_executor_that_is_not_to_be_reused_exits(engine: Engine, tmp_path: Path) -> None:
    attempt, other = numbered_attempts(tmp_path, 2)
    executor = engine.start(attempt)

    engine.end(attempt, reuse=False)

    wait_until(lambda: executor not in children(engine.launcher.pid), "the executor has exited")
    assert engine.start(other) != executor


@pytest.mark.parametrize(
    ("script", "record"),
    [("exit 1", "exit 1"), ("rm ../attempt/output.jsonl", "exit 0"), ("echo 1 2 3 > ../attempt/claim", None)],
    ids=["has failed", "has lost its output", "has lost its claim"],
)
def test_executor_runs_no_attempt_after_one_that(
    engine: Engine, tmp_path: Path, script: str, record: str | None
) -> None:
    program = tmp_path / "agent"
    program.write_text(f"#!/bin/sh\n{script}\n{SUCCESS}")
    program.chmod(0o755)
    config = JobConfig(provider="claude")
    attempt = an_attempt(make_folder(tmp_path / "first"), config=config, programs={"claude": str(program)})
    executor = engine.start(attempt)

    wait_until(lambda: executor not in children(engine.launcher.pid), "the executor has exited")

    assert record is None or recorded_exit(attempt) == record
    assert engine.start(an_attempt(make_folder(tmp_path / "second"))) != executor


def test_executor_is_stopped_by_a_signal_also_in_a_further_attempt(engine: Engine, tmp_path: Path) -> None:
    first = an_attempt(make_folder(tmp_path / "first"))
    second = an_attempt(make_folder(tmp_path / "second"), [{"log": "ready"}, {"hang": True}])
    engine.start(first)
    engine.end(first)
    pid = engine.start(second)
    wait_until(lambda: second.logs == ["ready"], "the second attempt runs")

    os.kill(pid, signal.SIGTERM)

    assert recorded_exit(second) == "exit 1"
    assert second.failure[1] == "stopped on request"


def test_idle_executors_exit_with_the_engine(engine: Engine, tmp_path: Path) -> None:
    attempt, unread = numbered_attempts(tmp_path, 2)
    idle = [ProcessId.of(engine.start(each)) for each in (attempt, unread)]
    engine.end(attempt)
    engine.receive(lambda message: "ended" in message)  # without an answer

    engine.socket.close()

    wait_until(lambda: all(each is None or each.is_reaped for each in idle), "the executors have exited")
    assert engine.launcher.wait(DEADLINE_SECONDS) == 0


def test_running_executor_exits_after_its_attempt_when_the_launcher_is_dead(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"sleepMs": 300}, {"result": 1}])
    executor = ProcessId.of(engine.start(attempt))
    assert executor
    wait_until(lambda: attempt.logs == ["ready"], "the attempt runs")

    engine.launcher.kill()

    wait_until(lambda: not executor.is_alive, "the executor has exited")
    assert attempt.result == 1


def test_executor_exits_after_its_attempt_while_the_launcher_is_stopped(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"sleepMs": 100}, {"result": 1}])
    executor = ProcessId.of(engine.start(attempt))
    assert executor
    wait_until(lambda: attempt.logs == ["ready"], "the attempt runs")

    engine.launcher.send_signal(signal.SIGSTOP)

    wait_until(lambda: not executor.is_alive, "the executor has exited")
    assert attempt.result == 1
    engine.launcher.send_signal(signal.SIGCONT)
    other = an_attempt(make_folder(tmp_path / "other"))
    assert engine.start(other) != executor.pid
    engine.end(other)


def test_killed_idle_executor_is_replaced(engine: Engine, tmp_path: Path) -> None:
    attempts = numbered_attempts(tmp_path, 3)
    for attempt in attempts:
        pid = engine.start(attempt)
        engine.end(attempt)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: process_name(pid) == "", "it is dead")  # type: ignore[misc]

    assert [attempt.result for attempt in attempts] == [0, 1, 2]


def test_one_executor_is_forked_ahead(engine: Engine, tmp_path: Path) -> None:
    def executors() -> list[int]:
        return children(engine.launcher.pid)

    wait_until(lambda: len(executors()) == 1, "an executor waits")
    spare = executors()

    assert engine.start(an_attempt(tmp_path, [{"hang": True}])) == spare[0]

    wait_until(lambda: len(executors()) == 2, "another executor waits")


def test_values_of_the_request_are_redacted_in_that_attempt(engine: Engine, tmp_path: Path) -> None:
    first, second = numbered_attempts(tmp_path, 2, [{"log": "a test-token-0123"}, {"result": 1}])
    engine.request(first, "test-token-0123")
    engine.end(first)
    engine.request(second)
    engine.end(second)

    assert (first.logs, second.logs) == (["a [redacted]"], ["a test-token-0123"])
