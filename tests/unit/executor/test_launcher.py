"""The launcher as a real process: what it starts, what it sees to when an executor dies, and when it ends."""

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
from labrats.processes import ProcessId, folder_mark, kill_descendants, name_of, with_environment
from tests.unit.executor.attempts import DEADLINE_SECONDS, AttemptFolder, an_attempt, wait_until


@dataclass(frozen=True)
class Engine:
    """The engine's end of the socket, and the launcher's process."""

    socket: socket.socket
    launcher: "subprocess.Popen[bytes]"

    def ask_for(self, attempt: AttemptFolder) -> dict[str, Any]:
        """Request an executor. Returns the launcher's answer."""
        self.socket.sendall(json.dumps({"folder": str(attempt.path)}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self.socket.recv(65536))
        assert answer["folder"] == str(attempt.path)
        return answer

    def start(self, attempt: AttemptFolder) -> int:
        """Request an executor. Returns its pid."""
        return int(self.ask_for(attempt)["pid"])


@pytest.fixture(params=[socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A launcher of its own for each test; gone afterwards, with its executors."""
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


def ended(attempt: AttemptFolder) -> str:
    """Wait for the end to be recorded, and return the record."""
    record = attempt.path / "exit"
    wait_until(record.exists, "the launcher has recorded the end")
    return record.read_text()


def claimed_by(attempt: AttemptFolder) -> ProcessId:
    claim = attempt.path / "claim"
    wait_until(claim.exists, "an executor has claimed the attempt")
    process = ProcessId.parse(claim.read_text())
    assert process
    return process


def test_an_attempt_runs_and_its_end_is_recorded(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "hello"}, {"result": 42}])

    pid = engine.start(attempt)

    assert ended(attempt) == "exit 0"
    assert claimed_by(attempt).pid == pid
    assert isinstance(attempt.outcome, ResultEvent)
    assert attempt.outcome.result == 42
    assert (attempt.path / "stderr.log").read_text() == ""


def test_an_executor_is_known_by_its_folder_to_an_engine_that_may_not_trace_it(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"hang": True}])

    pid = engine.start(attempt)

    claimed_by(attempt)
    assert name_of(pid) == folder_mark(attempt.path)
    assert name_of(engine.launcher.pid) != folder_mark(attempt.path)


def test_several_attempts_run_side_by_side(engine: Engine, tmp_path: Path) -> None:
    attempts = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        attempts.append(an_attempt(tmp_path / name, [{"log": "ready"}, {"hang": True}]))
    pids = [engine.start(attempt) for attempt in attempts]
    for attempt in attempts:
        wait_until(lambda attempt=attempt: attempt.logs == ["ready"], "all are running")  # type: ignore[misc]

    for pid in pids:
        os.kill(pid, signal.SIGTERM)

    assert [ended(attempt) for attempt in attempts] == ["exit 1"] * 3


@pytest.mark.parametrize(("step", "record"), [({"exit": 3}, "exit 3"), ({"signal": 9}, "signal 9")])
def test_a_crash_is_recorded_as_it_happened(engine: Engine, tmp_path: Path, step: Any, record: str) -> None:
    attempt = an_attempt(tmp_path, [step])

    engine.start(attempt)

    assert ended(attempt) == record


@pytest.mark.parametrize("detached", [False, True])
def test_a_crash_leaves_no_process_behind(engine: Engine, tmp_path: Path, unique_name: str, detached: bool) -> None:
    steps = [{"fork": {"seconds": 300, "detached": detached}}, {"signal": 9}]
    attempt = an_attempt(tmp_path, steps, attempt=unique_name)

    engine.start(attempt)

    assert ended(attempt) == "signal 9"
    assert with_environment("LABRATS_ATTEMPT", unique_name) == []


def test_a_leftover_that_has_ended_by_itself_is_no_trouble() -> None:
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
            print("nobody is left")
    """
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert (ran.stdout, ran.stderr) == ("nobody is left\n", "")


def test_the_crash_of_one_attempt_does_not_touch_another_ones_processes(
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

    assert ended(crashing) == "signal 9"
    assert len(with_environment("LABRATS_ATTEMPT", unique_name)) == 1
    os.kill(steady_pid, signal.SIGTERM)
    assert ended(steady) == "exit 1"


def test_of_two_executors_for_an_attempt_the_second_leaves_without_a_trace(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"hang": True}])
    first = engine.start(attempt)
    wait_until(lambda: attempt.logs == ["ready"], "the first one runs")

    second = ProcessId.of(engine.start(attempt))

    wait_until(lambda: second is None or second.is_reaped, "the second one has ended")
    assert claimed_by(attempt).pid == first
    assert attempt.logs == ["ready"]
    assert not (attempt.path / "exit").exists()
    os.kill(first, signal.SIGTERM)
    assert ended(attempt) == "exit 1"
    assert attempt.outcome


def test_an_attempt_buried_before_it_began_never_starts(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "never"}])
    (attempt.path / "claim").write_text("never started\n")

    executor = ProcessId.of(engine.start(attempt))

    wait_until(lambda: executor is None or executor.is_reaped, "the executor has ended")
    assert attempt.events == []


def test_it_outlives_the_engine_until_its_last_executor_has_ended(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"hang": True}])
    pid = engine.start(attempt)
    wait_until(lambda: attempt.logs == ["ready"], "the attempt runs")

    engine.socket.close()
    os.kill(pid, signal.SIGTERM)

    assert ended(attempt) == "exit 1"
    assert engine.launcher.wait(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_meant_for_the_engine_do_not_end_it(engine: Engine, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    engine.start(an_attempt(tmp_path / "a"))  # an answer says that it is ready for signals

    engine.launcher.send_signal(number)

    attempt = an_attempt(tmp_path / "b")
    engine.start(attempt)
    assert ended(attempt) == "exit 0"


def test_an_executor_is_private_to_its_user_and_leads_its_own_session(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"write": {"path": "a.txt", "text": ""}}, {"log": "ready"}, {"hang": True}])
    pid = engine.start(attempt)
    wait_until(lambda: attempt.logs == ["ready"], "the attempt runs")

    assert os.getsid(pid) == pid
    assert attempt.output.stat().st_mode & 0o077 == 0
    assert (attempt.workspace / "a.txt").stat().st_mode & 0o077 == 0
    os.kill(pid, signal.SIGTERM)
    ended(attempt)


def test_an_executor_reacts_to_signals_as_any_program_does(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path, [{"log": "ready"}, {"hang": True}])
    pid = engine.start(attempt)
    wait_until(lambda: attempt.logs == ["ready"], "the attempt runs")

    os.kill(pid, signal.SIGHUP)

    assert ended(attempt) == "signal 1"


def test_a_folder_that_is_gone_costs_only_its_own_executor(engine: Engine, tmp_path: Path) -> None:
    attempt = an_attempt(tmp_path)
    missing = replace(attempt, path=tmp_path / "missing")

    executor = ProcessId.of(engine.start(missing))

    wait_until(lambda: executor is None or executor.is_reaped, "the executor has ended")
    engine.start(attempt)
    assert ended(attempt) == "exit 0"


def test_an_end_that_cannot_be_recorded_costs_only_the_record(engine: Engine, tmp_path: Path) -> None:
    unwritable, attempt = (an_attempt(make_folder(tmp_path / name), [{"exit": 3}]) for name in ("a", "b"))
    (unwritable.path / "exit").mkdir()  # as on a full disk, no record can be put there

    executor = ProcessId.of(engine.start(unwritable))

    wait_until(lambda: executor is None or executor.is_reaped, "the executor has been reaped")
    engine.start(attempt)
    assert ended(attempt) == "exit 3"


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path
