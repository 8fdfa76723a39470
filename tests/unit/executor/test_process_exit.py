"""The end of a program, with the processes that it leaves running."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from labrats.model.config import JobConfig
from labrats.model.job import FailedCode
from labrats.processes import send_signal
from tests.unit.executor.attempts import (
    DEADLINE_SECONDS,
    AttemptFolder,
    a_repository,
    an_attempt,
    in_a_clone_of,
)

OTHER_USER = 54321

AS_EXECUTOR = """
import asyncio, os, subprocess, sys, time
from pathlib import Path
from labrats import processes
from labrats.executor import attempt, leftovers
from labrats.executor.providers.react.commands import run_program
from labrats.model.errors import GiveUp

leftovers._SECONDS = leftovers._SECONDS_WHEN_STOPPED = 1.0
if {is_spared}:
    leftovers.kill_once = processes.descendants
processes.become_subreaper()

async def run(script, seconds=20):
    return await run_program(["/bin/sh", "-c", script], Path.cwd(), dict(os.environ), seconds)

async def measured_run(script, seconds=20):
    "Return the failure, the time that it took, and the longest time for which the event loop was blocked."
    longest = 0.0

    async def measure():
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - before)

    measuring, started = asyncio.create_task(measure()), time.monotonic()
    try:
        await run(script, seconds)
    except GiveUp as failure:
        seconds = time.monotonic() - started
        await asyncio.sleep(0.05)  # until a pause at the end is measured, too
        return failure, seconds, longest
    finally:
        measuring.cancel()
"""

WAITING_LONGER = "leftovers._SECONDS = leftovers._SECONDS_BESIDE_SURVIVOR = 3.0\n"
"""For tests of the time that the executor waits, on a busy machine."""


@dataclass(frozen=True)
class Machine:
    """A folder, and a command that runs a program which SIGKILL does not end.

    duration:  the argument of `sleep` in the command, which no other process has.
    leaving:   a shell script that leaves the program running, and waits until it belongs to the other user.
    is_spared: True if the test prevents the executor from sending SIGKILL, as for a process that waits in the kernel.
        Otherwise the program belongs to another user.
    """

    folder: Path
    command: str
    is_spared: bool
    duration: str

    @property
    def leaving(self) -> str:
        return f"{self.command} & sleep 0.3"

    def output_of(self, script: str, *arguments: str) -> list[str]:
        """Run a Python script after the definitions of AS_EXECUTOR. Return the lines that it prints."""
        program = [sys.executable, "-c", AS_EXECUTOR.format(is_spared=self.is_spared) + script, *arguments]
        done = subprocess.run(
            program if self.is_spared else ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill", *program],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "never retrieved" not in done.stderr
        return done.stdout.splitlines()

    def execute(self, attempt: AttemptFolder, before: str = "") -> None:
        """Run an attempt to its end. before: a script that runs first."""
        lines = self.output_of(f"{before}\nattempt.execute(Path(sys.argv[1]))", str(attempt.path))
        attempt.output.write_text("".join(f"{line}\n" for line in lines))

    def survivors(self) -> list[int]:
        commands = {int(path.parent.name): path for path in Path("/proc").glob("[0-9]*/cmdline")}
        return [pid for pid, path in commands.items() if _words(path) == ["sleep", self.duration]]


def _words(command_line: Path) -> list[str]:
    try:
        return command_line.read_text(errors="replace").split("\0")[:-1]
    except OSError:  # the process has ended
        return []


@pytest.fixture(params=["SIGKILL has no effect", "another user"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    is_spared, duration = request.param != "another user", f"60.{secrets.randbelow(10**9):09}"
    if not is_spared and os.geteuid() != 0:
        pytest.skip("needs root")
    change = [] if is_spared else ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups"]
    machine = Machine(tmp_path, " ".join([*change, "sleep", duration]), is_spared, duration)
    try:
        yield machine
    finally:
        for pid in machine.survivors():
            send_signal(pid, signal.SIGKILL)


def test_a_survivor_fails_the_program_at_once_without_blocking_the_loop(machine: Machine) -> None:
    """It keeps the output open. It could still exchange files that the executor reads and writes later."""
    script = (
        "failure, seconds, blocked = asyncio.run(measured_run(sys.argv[1])); print(failure.code, seconds, blocked)\n"
    )
    script = f"{WAITING_LONGER}{script}print(failure)"
    code_and_times, message = machine.output_of(script, f"{machine.leaving}; echo started")
    code, seconds, blocked = code_and_times.split()
    assert code == FailedCode.AGENT_ERROR
    assert 3 <= float(seconds) < 10
    assert float(blocked) < 2
    [survivor] = machine.survivors()
    assert f"'sleep' (process {survivor} of the user " in message
    assert ("belongs to another user: end it in the command that starts it" in message) is not machine.is_spared
    assert (f"of the user {OTHER_USER})" in message) is not machine.is_spared


def test_nothing_waits_for_a_survivor_twice(machine: Machine) -> None:
    """The output of the program ends here, so that the failure is the one of its end."""
    script = f"{WAITING_LONGER}print(asyncio.run(measured_run(sys.argv[1]))[1])"
    [seconds] = machine.output_of(script, f"exec >/dev/null 2>&1; {machine.leaving}")
    assert 3.3 <= float(seconds) < 6.3


@pytest.mark.parametrize("machine", ["another user"], indirect=True)
def test_a_program_that_survives_does_not_hold_up_the_executor(machine: Machine) -> None:
    script = "failure, seconds, _ = asyncio.run(measured_run(sys.argv[1], 0.5)); print(failure.code, seconds)"
    [printed] = machine.output_of(WAITING_LONGER + script, f"exec {machine.command}")
    code, seconds = printed.split()
    assert code == FailedCode.AGENT_ERROR
    assert 3.5 <= float(seconds) < 6.5


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["timeout", "cancellation"])
def test_a_survivor_replaces_no_timeout_and_no_cancellation(machine: Machine, is_cancelled: bool) -> None:
    """But no other program runs beside it."""
    script = """
async def end(script, is_cancelled):
    running = asyncio.create_task(run(script))
    if is_cancelled:
        await asyncio.sleep(0.5)
        running.cancel()
        await running
    async with asyncio.timeout(0.5):
        await running

async def main():
    try:
        await end(sys.argv[1], sys.argv[2] == "True")
    except BaseException as ended:
        print(type(ended).__name__)
    started = time.monotonic()
    try:
        await run("touch begun")
    except GiveUp as failure:
        print(failure.code, time.monotonic() - started < 0.5, Path("begun").exists())

asyncio.run(main())
"""
    ended, after = machine.output_of(script, f"{machine.command} & exec tail -f /dev/null", str(is_cancelled))
    assert ended == ("CancelledError" if is_cancelled else "TimeoutError")
    assert after == f"{FailedCode.AGENT_ERROR} True False"


def test_a_survivor_of_a_setup_command_fails_the_setup(machine: Machine) -> None:
    attempt = an_attempt_of_agent(machine, "touch begun", setup=f"{machine.leaving}; echo started")
    machine.execute(attempt)
    code, message = attempt.failure
    assert code == FailedCode.SETUP
    assert "cannot be killed" in message
    assert attempt.logs[-1] == "started"
    assert not (attempt.workspace / "begun").exists()


def test_a_survivor_of_the_agent_fails_the_attempt_and_closes_its_workspace(machine: Machine) -> None:
    attempt = an_attempt_of_agent(machine, f"echo new > notes.txt; {machine.leaving}")
    machine.execute(attempt)
    code, message = attempt.failure
    assert code == FailedCode.AGENT_ERROR
    assert "cannot be killed" in message
    assert_closed(machine, attempt)


def test_a_survivor_does_not_replace_the_timeout_of_the_job(machine: Machine) -> None:
    """A timeout is not repeated."""
    attempt = an_attempt_of_agent(
        machine, f"echo new > notes.txt; {machine.command} & exec tail -f /dev/null", timeout_ms=2000
    )
    machine.execute(attempt)
    assert attempt.failure[0] == FailedCode.TIMEOUT
    assert_closed(machine, attempt)
    assert "a process of this attempt cannot be killed: 'sleep'" in attempt.logs[-1]


def test_an_agent_beside_a_survivor_does_not_succeed(machine: Machine) -> None:
    """Its provider has not started the process by a program."""
    attempt = an_attempt(machine.folder, [{"write": {"path": "new", "text": "x"}}, {"result": "done"}])
    machine.execute(
        attempt, f"subprocess.Popen({machine.command.split()!r}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
    )
    assert attempt.failure[0] == FailedCode.AGENT_ERROR
    assert_closed(machine, attempt)


def an_attempt_of_agent(
    machine: Machine, script: str, setup: str | None = None, timeout_ms: int | None = None
) -> AttemptFolder:
    """Build an attempt whose agent is a shell script, in a clone of a repository."""
    program = machine.folder / "agent"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    fields = in_a_clone_of(a_repository(machine.folder / "repository"))
    if setup:
        fields["workspace_setup"] = replace(fields["workspace_setup"], setup=(("sh", "-c", setup),))
    config = JobConfig(provider="claude", timeout_ms=timeout_ms)
    return an_attempt(machine.folder, config=config, programs={"claude": str(program)}, **fields)


def assert_closed(machine: Machine, attempt: AttemptFolder) -> None:
    [survivor] = machine.survivors()
    closed = "[the workspace is not read, since a process could still change it: 'sleep' "
    assert [line for line in attempt.logs if line.startswith(f"{closed}(process {survivor} ")]
    assert attempt.error.outputs.files_changed is None
