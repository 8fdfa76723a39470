"""Tests of the launcher as a real process."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from labrats.model.protocol import ResultEvent
from labrats.processes import ProcessId, executor_process_name, kill_descendants, process_name, with_environment
from tests.unit.executor.attempts import DEADLINE_SECONDS, AttemptFolder, an_attempt, wait_until


@dataclass(frozen=True)
class Engine:
    """The engine's end of the socket, with the launcher's process."""

    socket: socket.socket
    launcher: "subprocess.Popen[bytes]"

    def request(self, attempt: AttemptFolder) -> dict[str, Any]:
        """Request an executor. Return the launcher's answer."""
        self.socket.sendall(json.dumps({"folder": str(attempt.path)}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self.socket.recv(65536))
        assert answer["folder"] == str(attempt.path)
        return answer

    def start(self, attempt: AttemptFolder) -> int:
        """Request an executor. Return its pid."""
        return int(self.request(attempt)["pid"])


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


def test_attempt_runs_and_its_exit_is_recorded(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "hello"}, {"result": 42}])

    pid = engine.start(attempt)

    assert recorded_exit(attempt) == "exit 0"
    assert claimed_by(attempt).pid == pid
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
    assert recorded_exit(attempt) == "exit 0"


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
    assert recorded_exit(attempt) == "exit 0"


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
